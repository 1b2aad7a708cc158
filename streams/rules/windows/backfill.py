"""Totals that begin with a policy are made whole from the ledger, as of the offset of a checkpoint.

A tag, a week or a day of another zone is counted only while a budget asks for it, and late rows are not folded at all.
Of sessions and runs that all have a default, those count too that nobody has seen since: the most used ones, if many.
The ledger's rows up to offset X less what was live at X is what is missing, in open periods too: it is added by a
record of the log. Needs a ledger that has stored everything up to X.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tollmeter.streams.rules.windows.repair import REPAIR_SCHEMA
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import (
    AT_RISK,
    CALLS,
    COST,
    MEASURES,
    QUARTER,
    bucket_at,
    bucket_end_s,
    bucket_start_s,
)

Key = tuple[int, str, str]
"""Bucket, kind and name of a scope."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """What is live of one organisation at one level, as of `applied`: all of it that may have to be corrected."""

    org_id: str
    level: str
    partition: int
    applied: int
    from_s: int
    until_s: int
    current: int
    """The bucket of the present. An earlier one is corrected only where something is live: it was watched by then."""
    scopes: frozenset[tuple[str, str]]
    live: dict[Key, tuple[int, ...]]
    every: frozenset[str] = frozenset()
    """Kinds of which all names count, in the present, whether they are in `scopes` or not."""
    room: int = 0
    """How many more names there is room for."""

    @property
    def kinds(self) -> list[str]:
        """The kinds of scope that the ledger is asked for."""
        return sorted({kind for kind, _ in self.scopes} | self.every)


def backfills(state: State) -> tuple[Backfill, ...]:
    """Return what is to be backfilled in a state as it is now; nothing before its first event.

    Nor before it has caught up with its newest cell: what is live belongs to an offset further on, until then.
    """
    if not state.clocks or state.applied < state.newest_stamp:
        return ()
    now_s = max(state.clocks.values()) // 1000
    found = []
    for org_id in sorted(state.unsettled):
        by_level: dict[str, list[int]] = {level: [] for _, level in sorted(state.budgets.default_levels(org_id))}
        for scope, levels in sorted(state.budgets.extras(org_id).items()):
            for level in levels:
                by_level.setdefault(level, []).append(scope)
        found += [_backfill(state, org_id, level, scopes, now_s) for level, scopes in sorted(by_level.items())]
    return tuple(found)


def _backfill(state: State, org_id: str, level: str, scopes: list[int], now_s: int) -> Backfill:
    current = bucket_at(level, now_s)
    buckets = sorted(state.levels.get(level, {}))
    since = min(buckets, default=current) if level == QUARTER else bucket_at(level, bucket_start_s(level, current) - 1)
    if level == QUARTER:
        hours = max(budget.limit.hours or 0 for scope in scopes for budget in state.budgets.of(scope))
        since = min(since, current - hours * 4)
    numbers = np.array(scopes, dtype=np.int64)
    live: dict[Key, tuple[int, ...]] = {}
    for bucket in buckets:
        if bucket < since:
            continue
        values = state.levels[level][bucket].take(numbers)[:, : len(MEASURES)]
        for scope, row in zip(scopes, values.tolist(), strict=True):
            if any(row):
                live[bucket, state.scopes.names[scope][1], state.scopes.names[scope][2]] = tuple(row)
    return Backfill(
        org_id,
        level,
        state.partition,
        state.applied,
        bucket_start_s(level, since),
        bucket_end_s(level, current),
        current,
        frozenset(state.scopes.names[scope][1:] for scope in scopes),
        live,
        frozenset(kind for kind, its_level in state.budgets.default_levels(org_id) if its_level == level),
        max(0, state.rules.sessions_per_org - len(scopes)),
    )


def missing_cells(backfill: Backfill, ledger: pl.DataFrame) -> pl.DataFrame:
    """Return the cells (REPAIR_SCHEMA) that are to be added; `ledger` = totals by bucket, scope and name."""
    totals: dict[Key, tuple[int, ...]] = {
        (bucket, kind, name): tuple(values)
        for bucket, kind, name, *values in ledger.select("bucket", "scope", "name", *MEASURES).iter_rows()
    }
    zero = (0,) * len(MEASURES)
    rows, fresh = [], _fresh(backfill, totals)
    for key in sorted(totals.keys() | backfill.live.keys()):
        bucket, kind, name = key
        watched = backfill.level == QUARTER or bucket == backfill.current or key in backfill.live
        if ((kind, name) not in backfill.scopes or not watched) and key not in fresh:
            continue
        pairs = zip(totals.get(key, zero), backfill.live.get(key, zero), strict=True)
        change = [of_ledger - live for of_ledger, live in pairs]
        if any(change):
            rows.append((backfill.level, bucket, kind, name, False, *change))
    return pl.DataFrame(rows, schema=REPAIR_SCHEMA, orient="row")


def _fresh(backfill: Backfill, totals: dict[Key, tuple[int, ...]]) -> set[Key]:
    """Return the sessions and runs of the present that nobody has seen, as far as there is room: the dearest ones."""
    found = [
        key
        for key in totals
        if key[0] == backfill.current and key[1] in backfill.every and key[1:] not in backfill.scopes
    ]
    found.sort(key=lambda key: (-totals[key][COST] - totals[key][AT_RISK], -totals[key][CALLS], key))
    return set(found[: backfill.room])
