"""Late rows reach the windows by repair: an organisation's sealed hours as the ledger has them replace what was folded.

A sealed bucket takes no row of the log any more, so the ledger's value is right whenever it is read. Days and months
that are still open take the difference to the hour's old value; those that are sealed are replaced as well. Two owners
may send the same repair: a round whose base lies before the last accepted one's record is ignored.
"""

from collections.abc import Collection

import numpy as np
import polars as pl

from tollmeter.schemas.alert import Alert
from tollmeter.schemas.control import Round
from tollmeter.schemas.policy import ASKED_COLUMNS
from tollmeter.streams.rules.limits.budgets import crossed, level_of, used
from tollmeter.streams.rules.windows.alerts import UNTOLD_S, budget_alert, late_spend_alert
from tollmeter.streams.rules.windows.sessions import is_over
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import (
    MEASURES,
    QUARTER,
    Matrix,
    Vector,
    bucket_at,
    bucket_end_s,
    bucket_start_s,
)

REPAIR_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "level": pl.String,
    "bucket": pl.Int64,
    "scope": pl.String,
    "name": pl.String,
    "absolute": pl.Boolean,
    **dict.fromkeys(MEASURES, pl.Int64),
}
"""Cells of a repair: totals of a bucket (absolute), or what is to be added to one."""

MAX_HOURS = 24
_PER_DAY = 24


def due(
    state_deferred: dict[tuple[str, int], int], quiet: Collection[tuple[str, int]], watermark_s: int, horizon_s: int
) -> dict[str, tuple[int, ...]]:
    """Return by organisation the hours that hold deferred rows and are sealed, the newest first, at most MAX_HOURS.

    Those of which nobody is told come in rounds of their own, when nothing else is left.
    """
    hours: dict[str, dict[bool, list[int]]] = {}
    for org, hour in sorted(state_deferred, reverse=True):
        if sealed("hour", hour, watermark_s, horizon_s):
            hours.setdefault(org, {}).setdefault((org, hour) in quiet, []).append(hour)
    return {org: tuple(found[min(found)][:MAX_HOURS]) for org, found in sorted(hours.items())}


def sealed(level: str, bucket: int, watermark_s: int, horizon_s: int) -> bool:
    """Tell whether no row can be folded into a bucket any more."""
    return bucket_start_s(level, bucket + 1) + horizon_s <= watermark_s


def cells_of_round(
    hours: tuple[int, ...],
    minutes: pl.DataFrame,
    was: pl.DataFrame,
    larger: pl.DataFrame,
    sealed_days: set[int],
    sealed_months: set[int],
) -> pl.DataFrame:
    """Return the cells (REPAIR_SCHEMA) of a round.

    `minutes`: ledger totals by (bucket = minute, scope, name); `was`: live totals of the hours, their minutes, and the
    sealed days and months by (level, bucket, scope, name); `larger`: ledger totals of these days and months. What is
    live and not in the ledger at all was corrected away, and becomes nothing.
    """
    keys = ["bucket", "scope", "name"]
    by_hour = cells_by_hour(minutes)
    hourly = was.filter((pl.col("level") == "hour") & pl.col("bucket").is_in(hours))
    negative = hourly.with_columns(-pl.col(name) for name in MEASURES).drop("level")
    change = _summed(pl.concat([by_hour.select(negative.columns), negative]), keys)
    changed = change.filter(pl.any_horizontal(pl.col(name) != 0 for name in MEASURES))
    days = changed.with_columns(pl.col("bucket") // _PER_DAY)
    month_of = {day: bucket_at("month", day * 86_400) for day in days["bucket"].unique().to_list()}
    months = days.with_columns(pl.col("bucket").replace_strict(month_of, return_dtype=pl.Int64))
    parts = [
        _as_cells(minutes, "minute", absolute=True),
        _as_cells(by_hour, "hour", absolute=True),
        _as_cells(_summed(days.filter(~pl.col("bucket").is_in(sealed_days)), keys), "day", absolute=False),
        _as_cells(_summed(months.filter(~pl.col("bucket").is_in(sealed_months)), keys), "month", absolute=False),
        larger.with_columns(pl.lit(value=True).alias("absolute")).select(list(REPAIR_SCHEMA)),
    ]
    made = pl.concat(parts)
    return pl.concat([made, _gone(was, made)])


def cells_by_hour(minutes: pl.DataFrame) -> pl.DataFrame:
    """Return the totals of hours from those of their minutes."""
    return _summed(minutes.with_columns(pl.col("bucket") // 60), ["bucket", "scope", "name"])


def _gone(was: pl.DataFrame, made: pl.DataFrame) -> pl.DataFrame:
    gone = was.join(made.filter("absolute"), on=["level", "bucket", "scope", "name"], how="anti", maintain_order="left")
    empty = gone.with_columns(pl.lit(0, pl.Int64).alias(name) for name in MEASURES)
    return empty.with_columns(pl.lit(value=True).alias("absolute")).select(
        pl.col(name).cast(kind) for name, kind in REPAIR_SCHEMA.items()
    )


def _summed(cells: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return cells.group_by(keys, maintain_order=True).agg(pl.col(MEASURES).sum())


def _as_cells(totals: pl.DataFrame, level: str, *, absolute: bool) -> pl.DataFrame:
    made = totals.with_columns(pl.lit(level).alias("level"), pl.lit(absolute).alias("absolute"))
    return made.select(pl.col(name).cast(kind) for name, kind in REPAIR_SCHEMA.items())


def fold_repair(state: State, round_: Round, cells: pl.DataFrame, offset: int, appended_ms: int) -> list[Alert]:
    """Take over the cells of a repair record unless another round came first; return the thresholds it crosses."""
    state.applied = offset
    last_id, last_offset = state.repaired.get(round_.org_id, ("", -1))
    if round_.id != last_id and round_.base < last_offset:
        return []
    if round_.base < state.base - 1:  # from before the log was made anew: other parts of it may have gone with it
        return []
    state.repaired[round_.org_id] = (round_.id, offset)
    for hour in round_.hours:
        if state.deferred.get((round_.org_id, hour), round_.base + 1) <= round_.base:
            del state.deferred[round_.org_id, hour]
            state.quiet_hours.discard((round_.org_id, hour))
    if round_.extras and state.unsettled.get(round_.org_id, round_.base + 1) <= round_.base:
        del state.unsettled[round_.org_id]
    cells = _in_time(state, cells)
    _numbers(state, round_.org_id, cells.unique(["scope", "name"], maintain_order=True))
    state.budgets.look_at_new_scopes()
    alerts: list[Alert] = []
    for (level, bucket, absolute), part in cells.group_by(["level", "bucket", "absolute"], maintain_order=True):
        scopes = _numbers(state, round_.org_id, part)
        sums = np.ascontiguousarray(part.select(MEASURES).to_numpy(), dtype=np.int64)
        target = state.cells(str(level), int(bucket))
        before, after = (target.replace if absolute else target.add)(scopes, sums, offset)
        late_s = _lateness(round_, str(level), int(bucket), appended_ms)
        alerts += late_edges(state, str(level), int(bucket), scopes, before, after, appended_ms, late_s)
    if round_.hours and state.budgets.asks_for_more(round_.org_id):
        state.unsettled[round_.org_id] = offset  # what was settled so far may have been settled without these names
    return alerts


def _in_time(state: State, cells: pl.DataFrame) -> pl.DataFrame:
    """Leave out sessions and runs of periods that are over: they are forgotten, and their totals stay as written."""
    asked = cells.filter(pl.col("scope").is_in(list(ASKED_COLUMNS)))
    sealed_s = (state.watermark_ms() or 0) // 1_000 - state.rules.horizon_s
    periods = asked.select("level", "bucket").unique().iter_rows()
    over = [(level, bucket) for level, bucket in periods if is_over(level, bucket, sealed_s)]
    for level, bucket in over:
        gone = pl.col("scope").is_in(list(ASKED_COLUMNS)) & (pl.col("level") == level) & (pl.col("bucket") == bucket)
        cells = cells.filter(~gone)
    return cells


def _lateness(round_: Round, level: str, bucket: int, appended_ms: int) -> int:
    """Return the least age in seconds of what a round changes in a bucket; 0 where it repairs no hour of it."""
    if round_.quiet:
        return UNTOLD_S
    ends = [(hour + 1) * 3_600 for hour in round_.hours if bucket_at(level, hour * 3_600) == bucket]
    return max(0, appended_ms // 1_000 - max(ends)) if ends else 0


def _numbers(state: State, org_id: str, cells: pl.DataFrame) -> Vector:
    names = cells.select("scope", "name").iter_rows()
    return np.array([state.scopes.number((org_id, kind, name)) for kind, name in names], dtype=np.int64)


def late_edges(
    state: State,
    level: str,
    bucket: int,
    scopes: Vector,
    before: Matrix,
    after: Matrix,
    appended_ms: int,
    late_s: int = 0,
) -> list[Alert]:
    """Late spend counts toward the budget of its period: its edges are dated by the repair that brought it.

    For a period that is over there is one alert that says so, dated by its end. `late_s`: the age of the newest of it.
    """
    alerts: list[Alert] = []
    over = bucket_end_s(level, bucket) * 1000 <= appended_ms
    for unit, watchlist in state.budgets.lists(level):
        was, is_ = used(before, unit), used(after, unit)
        for at in watchlist.watched(scopes).tolist():
            scope, late = int(scopes[at]), int(is_[at]) - int(was[at])
            state.to_publish.add(scope)
            if level == QUARTER:  # rolling sums are judged at the next barrier
                state.touched_rolling.add(scope)
                continue
            for budget in state.budgets.of(scope):
                if (level_of(budget), budget.unit) != (level, unit) or not budget.thresholds:
                    continue
                if over and late > 0:
                    alerts.append(late_spend_alert(state, budget, scope, bucket, late, int(is_[at]), late_s))
                elif not over:
                    alerts += [
                        budget_alert(state, budget, scope, bucket, edge, int(is_[at]), appended_ms, late_s)
                        for edge in crossed(budget, int(was[at]), int(is_[at]))
                    ]
    return alerts
