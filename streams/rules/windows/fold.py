"""Fold priced rows into a partition's state and say which budgets and floors they crossed.

Row order is log order. Several records may be folded in one batch: all decisions made here depend on sums that only
grow and on thresholds that change at barriers and control records alone, so the cut into batches changes nothing.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl

from tollmeter.schemas.alert import Alert
from tollmeter.schemas.policy import ASKED_COLUMNS, SCOPE_COLUMNS
from tollmeter.schemas.priced import BACKFILL
from tollmeter.streams.rules.limits.budgets import crossed, level_of, used
from tollmeter.streams.rules.windows.alerts import Passage, budget_alert, spike_alert
from tollmeter.streams.rules.windows.anomalies import spike_threshold
from tollmeter.streams.rules.windows.asked import asked_columns, asked_of_rows
from tollmeter.streams.rules.windows.cardinality import scopes_of_rows
from tollmeter.streams.rules.windows.dedupe import Mask
from tollmeter.streams.rules.windows.memory import known_rows
from tollmeter.streams.rules.windows.scopes import NOBODY
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.suspects import note
from tollmeter.streams.rules.windows.totals import (
    BROUGHT_IN,
    LEVELS,
    MEASURE_SOURCES,
    PEAK_HOUR,
    PEAK_MINUTE,
    QUARTER,
    Matrix,
    Vector,
    bucket_of,
    key_cost,
    measure_matrix,
    sum_by_key,
)

MINUTE_US = 60_000_000
PARTITIONS = (1 << 16) - 1
"""The partition within a source number; what stands above it counts the epochs of the source topic."""
HOUR_US = 60 * MINUTE_US
COLUMNS_READ = tuple(
    dict.fromkeys(
        (
            "event_id",
            "event_time",
            "received_at",
            "src_partition",
            "src_offset",
            "flags",
            *SCOPE_COLUMNS.values(),
            *MEASURE_SOURCES,
            "prompt_hash",
        )
    )
)
"""The priced columns that WATCH reads."""
Found = Callable[[State, str, int, Vector, Matrix, Matrix], list[Alert]]
"""(state, level, bucket, scopes, measures before, and after) of cells that were added to; what that means."""


def columns_read(state: State) -> tuple[str, ...]:
    """Return the columns that this state needs: tags, sessions and runs only while a policy asks for them."""
    return (*COLUMNS_READ, *asked_columns(state))


def fold_rows(state: State, rows: pl.DataFrame, offset: int) -> list[Alert]:
    """Fold rows (the columns of `columns_read`) up to `offset`, in log order; return the alerts they caused.

    While the state still has cells with stamps at or above `offset`, pass one record at a time.
    """
    passage = passage_of(rows)
    live = _live(state, passage, rows["event_id"], offset)
    state.applied = offset
    if not live.any():
        return []
    if not live.all():
        rows, passage = rows.filter(pl.Series(live)), passage.only(live)
    name_scopes(state, passage, rows)
    passage.matrix = measure_matrix(rows)
    note(state.detector, passage, rows)
    return add_passage(state, passage, offset, partial(_found, passage=passage))


def add_passage(state: State, passage: Passage, offset: int, found: Found) -> list[Alert]:
    """Add the matrix of a passage to the windows of its scopes, and return what `found` says of each bucket."""
    keys, sums, first_minute, plain = _by_scope_and_minute(state, passage)
    alerts: list[Alert] = []
    for level in LEVELS:
        alerts += _add_level(state, level, keys[:plain], sums[:plain], first_minute, offset, found)
    for level in state.budgets.extra_levels:
        bound = state.budgets.bound_at(level, keys % len(state.scopes))
        if bound.size:
            alerts += _add_level(state, level, keys[bound], sums[bound], first_minute, offset, found)
    _set_aside(state, passage, offset)
    return alerts


def _set_aside(state: State, passage: Passage, offset: int) -> None:
    """Count once more, apart, what was brought in afterwards."""
    rows = np.flatnonzero(passage.quiet)
    if not rows.size:
        return
    minutes = passage.charged_us[rows] // MINUTE_US
    for level, kind in BROUGHT_IN.items():
        scopes, buckets = passage.scopes[kind][rows], bucket_of(level, minutes)
        for bucket in np.unique(buckets).tolist():
            inside = (buckets == bucket) & (scopes != NOBODY)
            if inside.any():
                state.cells(level, bucket).add(*sum_by_key(scopes[inside], passage.matrix[rows[inside]]), offset)


def name_scopes(state: State, passage: Passage, rows: pl.DataFrame) -> None:
    """Fill in which scopes each row counts for."""
    passage.scopes = scopes_of_rows(state, rows, passage.charged_us)
    passage.asked = asked_of_rows(state, rows)
    state.budgets.look_at_new_scopes()


def passage_of(rows: pl.DataFrame) -> Passage:
    """Return where and when the rows were charged; scopes and matrix are not filled in."""
    received_ms = rows["received_at"].cast(pl.Int64).to_numpy()
    times_us = rows["event_time"].cast(pl.Int64).to_numpy()
    return Passage(
        sources=rows["src_partition"].to_numpy().astype(np.int64),
        offsets=rows["src_offset"].to_numpy(),
        received_ms=received_ms,
        times_us=times_us,
        charged_us=np.minimum(times_us, received_ms * 1000),
        quiet=(rows["flags"].cast(pl.String) == BACKFILL).to_numpy(),
        orgs=rows["org_id"],
    )


def _live(state: State, passage: Passage, event_ids: pl.Series, offset: int) -> Mask:
    """Move marks and clocks over the rows and tell which of them are to be folded: new, in time, not seen before."""
    replay = np.zeros(passage.sources.size, dtype=bool)
    late = np.zeros(passage.sources.size, dtype=bool)
    for source in np.unique(passage.sources).tolist():
        at = np.flatnonzero(passage.sources == source)
        marks = np.maximum.accumulate(np.concatenate(([state.high.get(source, -1)], passage.offsets[at])))
        replay[at] = passage.offsets[at] <= marks[:-1]
        state.high[source] = int(marks[-1])
        partition = source & PARTITIONS
        clock = np.maximum(np.maximum.accumulate(passage.received_ms[at]), state.clocks.get(partition, 0))
        late[at] = passage.charged_us[at] < (clock - state.rules.horizon_ms) * 1000
        state.move_clock(partition, int(clock[-1]))
    remembered = passage.times_us >= state.remember_from_us
    late |= ~remembered
    known = known_rows(state, passage, event_ids, remembered)
    first = known.first & ~known.doubled
    deferred = late & ~replay & first
    _count(state, replay, deferred, ~replay & ~known.first, known.doubled)
    deferred |= replay & first  # the record in which it came first is gone, or too old to be sure: the ledger knows
    if deferred.any():
        chosen = passage.orgs.filter(pl.Series(deferred)), passage.charged_us[deferred]
        defer(state, *chosen, offset, passage.quiet[deferred])
    return ~replay & ~late & first


def defer(state: State, orgs: pl.Series, charged_us: Vector, offset: int, quiet: Mask) -> None:
    """Have the hours of these rows repaired from the ledger: they can no longer be folded.

    Of hours that nothing but `quiet` rows wait for nobody is told.
    """
    found = pl.DataFrame([orgs.cast(pl.String), pl.Series("hour", charged_us // HOUR_US), pl.Series("quiet", quiet)])
    for org, hour, silent in sorted(found.unique().iter_rows()):
        if not silent:
            state.quiet_hours.discard((org, hour))
        elif (org, hour) not in state.deferred:
            state.quiet_hours.add((org, hour))
        state.deferred[org, hour] = offset
        if state.budgets.asks_for_more(org):
            state.unsettled[org] = offset


def _count(state: State, replay: Mask, deferred: Mask, resent: Mask, doubled: Mask) -> None:
    replays = int(replay.sum())
    state.counters["accepted"] += replay.size - replays
    state.counters["replays"] += replays
    state.counters["late_deferred"] += int(deferred.sum())
    state.counters["resends"] += int(resent.sum())
    state.counters["doubled"] += int(doubled.sum())


def _by_scope_and_minute(state: State, passage: Passage) -> tuple[Vector, Matrix, int, int]:
    """Return keys (minute - first minute) * scopes + scope, ascending per kind, with their sums.

    The last number is how many of the keys, from the first one on, have windows of every level.
    """
    minutes = passage.charged_us // MINUTE_US
    first = int(minutes.min())
    relative = (minutes - first) * len(state.scopes)
    keys, sums = [], []
    for numbers in passage.scopes.values():
        named = numbers != NOBODY
        whole = bool(named.all())
        found = sum_by_key(
            relative + numbers if whole else (relative + numbers)[named],
            passage.matrix if whole else passage.matrix[named],
        )
        keys.append(found[0])
        sums.append(found[1])
    plain = sum(map(len, keys))
    for kind, (at, asked) in passage.asked.items():
        found = sum_by_key(relative[at] + asked, passage.matrix[at])
        plain += found[0].size if kind not in ASKED_COLUMNS else 0
        keys.append(found[0])
        sums.append(found[1])
    return np.concatenate(keys), np.concatenate(sums), first, plain


def _add_level(
    state: State, level: str, keys: Vector, sums: Matrix, first_minute: int, offset: int, found: Found
) -> list[Alert]:
    """Add the sums to every bucket of one level and return what `found` says of them."""
    count = len(state.scopes)
    minutes, scopes = keys // count + first_minute, keys % count
    buckets = bucket_of(level, minutes)
    first = int(buckets.min())
    if level != "minute" and int(minutes.max()) != first_minute:
        merged, sums = sum_by_key((buckets - first) * count + scopes, sums)
        buckets, scopes = merged // count + first, merged % count
    alerts: list[Alert] = []
    for bucket in np.unique(buckets).tolist():
        inside = buckets == bucket
        ours = scopes[inside]
        before, after = state.cells(level, bucket).add(ours, sums[inside], offset)
        alerts += found(state, level, bucket, ours, before, after)
    return alerts


def _found(
    state: State, level: str, bucket: int, scopes: Vector, before: Matrix, after: Matrix, passage: Passage
) -> list[Alert]:
    """Return the alerts of one bucket that rows were added to."""
    if level == QUARTER:
        return _note_rolling(state, level, scopes, passage)
    finder = _spike_alerts if level in ("minute", "hour") else _budget_alerts
    return finder(state, level, bucket, scopes, before, after, passage)


def _budget_alerts(
    state: State, level: str, bucket: int, scopes: Vector, before: Matrix, after: Matrix, passage: Passage
) -> list[Alert]:
    """Return an alert for each edge that a scope's use crossed in this bucket."""
    alerts: list[Alert] = []
    for unit, watchlist in state.budgets.lists(level):
        watched = scopes[watchlist.watched(scopes)].tolist()
        state.to_publish.update(watched)
        state.touched_budgets.update(passage.loud(watched))
        was, is_ = used(before, unit), used(after, unit)
        for at in watchlist.crossing(scopes, was, is_).tolist():
            scope = int(scopes[at])
            for budget in state.budgets.of(scope):
                if (level_of(budget), budget.unit) != (level, unit):
                    continue
                for edge in crossed(budget, int(was[at]), int(is_[at])):
                    where = scope, level, bucket, int(was[at])
                    received_ms, reached, late_s = passage.crossing(state, *where, unit, edge.amount)
                    alerts.append(budget_alert(state, budget, scope, bucket, edge, reached, received_ms, late_s))
    return alerts


def _note_rolling(state: State, level: str, scopes: Vector, passage: Passage) -> list[Alert]:
    """Rolling sums fall as well as rise: they are judged at barriers, where the cut into batches plays no part."""
    for _, watchlist in state.budgets.lists(level):
        watched = scopes[watchlist.watched(scopes)]
        state.to_publish.update(watched.tolist())
        state.touched_rolling.update(passage.loud(watched.tolist()))
    return []


def _spike_alerts(
    state: State, level: str, bucket: int, scopes: Vector, before: Matrix, after: Matrix, passage: Passage
) -> list[Alert]:
    """Return an alert for each key whose open minute or hour became a new extreme in this batch."""
    minute = level == "minute"
    if bucket < (state.closed_minute if minute else state.closed_hour):
        state.touched.add((level, bucket))
        return []
    keys = np.flatnonzero(state.scopes.of_kind(scopes, "api_key"))
    past = state.live(level, bucket, scopes[keys], before[keys])
    was = key_cost(past)
    is_ = was + key_cost(after[keys] - before[keys]) - passage.quiet_cost(scopes[keys], level, bucket)
    floors = state.rules.floors
    if not (dear := is_ > (floors.minute_nano if minute else min(floors.hour_nano, floors.new_key_hour_nano))).any():
        return []
    keys, past, was, is_ = keys[dear], past[dear], was[dear], is_[dear]
    peaks = state.past_peaks(scopes[keys], PEAK_MINUTE if minute else PEAK_HOUR)
    limits = spike_threshold(level, peaks, floors)
    alerts = []
    for at in np.flatnonzero((was <= limits) & (is_ > limits)).tolist():
        where, limit = (level, bucket, int(scopes[keys[at]])), int(limits[at])
        reached = passage.key_crossing(*where, past[at : at + 1], limit)
        alerts.append(spike_alert(state, *where, reached, int(peaks[at]), limit))
    return alerts
