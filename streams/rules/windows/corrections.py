"""Corrections: what a row was leaves its windows and what it shall be enters them, once per identity and revision.

Of several corrections to one revision the first in the log counts, as in the ledger. Rows of hours that take no row any
more wait for the repair from the ledger, as late ones do.
"""

from functools import partial

import numpy as np
import polars as pl

from tollmeter.schemas.alert import Alert
from tollmeter.schemas.control import Correction
from tollmeter.schemas.priced import DOUBLED_REVISION, VOID
from tollmeter.streams.rules.windows.alerts import Passage
from tollmeter.streams.rules.windows.dedupe import Mask
from tollmeter.streams.rules.windows.fold import PARTITIONS, add_passage, defer, name_scopes, passage_of
from tollmeter.streams.rules.windows.repair import late_edges
from tollmeter.streams.rules.windows.state import Identity, State
from tollmeter.streams.rules.windows.totals import Matrix, Vector, measure_matrix


def revised_ids(rows: pl.DataFrame) -> pl.Series:
    """Return what the memory of ids knows a correction by: the id and, behind it, the revision in four hex digits."""
    hexed = {revision: f"{revision:04x}" for revision in rows["revision"].unique().to_list()}
    return rows["event_id"].cast(pl.String) + rows["revision"].replace_strict(hexed, return_dtype=pl.String)


def fold_correction(
    state: State, correction: Correction, rows: pl.DataFrame, offset: int, appended_ms: int
) -> list[Alert]:
    """Fold a correction record (the columns of `columns_read`, `revision`); return the edges that it crosses."""
    state.applied = offset
    if not rows.height:
        return []
    passage = passage_of(rows)
    if correction.doubled:
        _settle_doubled(state, passage, rows, offset)
        return []
    new = _new(state, correction, rows, passage, offset)
    live = np.concatenate((new[: correction.was], new))
    if not live.any():
        return []
    kept = rows.filter(pl.Series(live))
    chosen = passage.only(live)
    name_scopes(state, chosen, kept)
    signs = np.where(np.flatnonzero(live) < correction.was, -1, 1)
    signs[(kept["status"].cast(pl.String) == VOID).to_numpy()] = 0
    chosen.matrix = measure_matrix(kept) * signs[:, None]
    return add_passage(state, chosen, offset, partial(_found, appended_ms=appended_ms))


def _settle_doubled(state: State, passage: Passage, rows: pl.DataFrame, offset: int) -> None:
    """Note that rows which never entered a window are void now; what was computed from the ledger may hold them.

    Somebody who knew more of the log may void what was counted here: its hours are repaired, too.
    """
    every, identities = np.arange(rows.height), _identities(passage, rows)
    in_time = passage.times_us >= state.remember_from_us
    counted = np.array([identity not in state.doubled for identity in identities], dtype=bool) & in_time
    counted[in_time] &= _first(state, passage, rows["org_id"], revised_ids(rows), every[in_time])
    stale = _late(state, passage, every) | counted
    if stale.any():
        defer(state, rows["org_id"].gather(every[stale]), passage.charged_us[stale], offset, passage.quiet[stale])
    for identity in identities:
        state.doubled.discard(identity)
        if state.budgets.asks_for_more(identity[1]):
            state.unsettled[identity[1]] = offset


def _identities(passage: Passage, rows: pl.DataFrame) -> list[Identity]:
    return list(zip(passage.times_us.tolist(), rows["org_id"].cast(pl.String), rows["event_id"], strict=True))


def _is_doubled(state: State, passage: Passage, rows: pl.DataFrame) -> Mask:
    """Tell which rows were never counted, since their id came first at another time, and are void whatever they say."""
    overruled = (rows["revision"] < DOUBLED_REVISION).to_numpy()
    void = rows["event_id"].cast(pl.String) + f"{DOUBLED_REVISION:04x}"
    found = state.seen.has(passage.times_us, state.scopes.text_codes(rows["org_id"]), void)
    if state.doubled:
        found |= np.array([identity in state.doubled for identity in _identities(passage, rows)], dtype=bool)
    return overruled & found


def _new(state: State, correction: Correction, rows: pl.DataFrame, passage: Passage, offset: int) -> Mask:
    """Tell which replacements are to be folded, and have the hours of those repaired that come too late for it."""
    asserted = np.arange(correction.was, rows.height)
    doubled = _is_doubled(state, passage, rows)[asserted]
    late = _late(state, passage, asserted) & ~doubled
    fresh = np.zeros(asserted.size, dtype=bool)
    in_time = np.flatnonzero(~late & ~doubled)
    fresh[in_time] = _first(state, passage, rows["org_id"], revised_ids(rows), asserted[in_time])
    # What came from another organisation is an identity that nobody may count a second time by sending it again.
    moved = np.flatnonzero(fresh & (asserted >= 2 * correction.was))
    known = moved[~_first(state, passage, rows["org_id"], rows["event_id"].cast(pl.String), asserted[moved])]
    late[known], fresh[known] = True, False
    if late.any():
        at = asserted[late]
        defer(state, rows["org_id"].gather(at), passage.charged_us[at], offset, passage.quiet[at])
    return fresh


def _late(state: State, passage: Passage, at: Vector) -> Mask:
    clocks = np.array([state.clocks.get(source & PARTITIONS, 0) for source in passage.sources[at].tolist()])
    sealed_us = (clocks.astype(np.int64) - state.rules.horizon_ms) * 1000
    late: Mask = (passage.charged_us[at] < sealed_us) | (passage.times_us[at] < state.remember_from_us)
    return late


def _first(state: State, passage: Passage, orgs: pl.Series, ids: pl.Series, at: Vector) -> Mask:
    if not at.size:
        return np.ones(0, dtype=bool)
    return state.seen.first(passage.times_us[at], state.scopes.text_codes(orgs.gather(at)), ids.gather(at))


def _found(
    state: State, level: str, bucket: int, scopes: Vector, before: Matrix, after: Matrix, appended_ms: int
) -> list[Alert]:
    if (level, True) in (("minute", bucket < state.closed_minute), ("hour", bucket < state.closed_hour)):
        state.touched.add((level, bucket))
    return late_edges(state, level, bucket, scopes, before, after, appended_ms)
