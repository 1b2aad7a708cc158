"""Broken versions of production's own fold, checkpoints and cells; they run with `columns=True`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl

from tests.simulation import fold
from tests.simulation.columns import ColumnFolding
from tests.simulation.kernels import RowFolding
from tollmeter.producers.guard.spend import SpendView
from tollmeter.schemas.policy import Policy
from tollmeter.streams.rules.anomalies.detector import Detector
from tollmeter.streams.rules.anomalies.profiles import Profiles
from tollmeter.streams.rules.limits.bindings import Budgets
from tollmeter.streams.rules.limits.spend_rows import as_of
from tollmeter.streams.rules.windows import corrections, profile_rows
from tollmeter.streams.rules.windows.dedupe import Dedupe
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.suspects import suspicion
from tollmeter.streams.rules.windows.windows import Cells
from tollmeter.streams.watch.spend_publisher import SpendPublisher


class NoHighWater(ColumnFolding):
    """Records of PRICE's last batch come again, and nothing remembers how far the sources were read."""

    def fold(self, state: Any, records: Sequence[Any], on_barrier: Any) -> list[Any]:
        alerts = []
        for record in records:
            state.high.clear()
            alerts += super().fold(state, [record], on_barrier)
        return alerts


class WallClockInFold(ColumnFolding):
    """The fold asks the machine what time it is."""

    def fold(self, state: Any, records: Sequence[Any], on_barrier: Any) -> list[Any]:
        if self._process is not None and state.clocks:
            state.clocks.update(dict.fromkeys(state.clocks, self._process.world.wall_ms()))
        return super().fold(state, records, on_barrier)


class SealedRewritten(ColumnFolding):
    """Late rows go into buckets that were sealed and forgotten, and write them anew."""

    def fold(self, state: Any, records: Sequence[Any], on_barrier: Any) -> list[Any]:
        state.rules = _EverOpen(state.rules)
        return super().fold(state, records, on_barrier)


class _EverOpen:
    """Rules under which nothing is late."""

    def __init__(self, rules: Any) -> None:
        self._rules = getattr(rules, "_rules", rules)
        self.horizon_ms = 10**14

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rules, name)


class SnapshotAnywhere(ColumnFolding):
    """Progress is taken while rows of the batch are still pending."""

    def snapshot(self, state: Any) -> Any:
        ahead = state.applied
        state.applied = ahead + 1
        try:
            return super().snapshot(state)
        finally:
            state.applied = ahead


class WallClockInWindows(ColumnFolding):
    """The rules about identity ask the machine what time it is."""

    def fold(self, state: Any, records: Sequence[Any], on_barrier: Any) -> list[Any]:
        note = Detector.note

        def now(detector: Detector, calls: Any) -> None:
            if self._process is not None:
                calls.minute[:] = self._process.world.wall_ms() // 60_000
            note(detector, calls)

        with patch.object(Detector, "note", now):
            return super().fold(state, records, on_barrier)


class StepPerBatch(ColumnFolding):
    """The rules about identity judge whenever a batch ends."""

    def fold(self, state: Any, records: Sequence[Any], on_barrier: Any) -> list[Any]:
        alerts = super().fold(state, records, on_barrier)
        found = state.detector.step(state.applied)
        return alerts + [suspicion(state.scopes, finding) for finding in found]


def no_profiles(_state: Any, _rows: Any) -> None:
    """A restart forgets what keys were like."""


_load_rows = profile_rows.load


def no_series(state: Any, rows: Any) -> None:
    """A restart knows who keys are, but not what they and others usually spend."""
    _load_rows(state, rows.filter(~pl.col("scope").str.starts_with("series/")))


_load_profiles = Profiles.load


def unstamped(self: Profiles, scopes: Any, values: Any, stamps: Any) -> None:
    """Profiles come back without knowing which records they hold."""
    _load_profiles(self, scopes, values, np.full_like(stamps, -1))


def nothing_seen(self: Dedupe, times_us: Any, orgs: Any, event_ids: Any) -> Any:
    """Dedupe off."""
    return np.ones(times_us.size, dtype=bool)


_look = Dedupe.look


def each_time_counts(self: Dedupe, *rows: Any) -> Any:
    """An id counts at each time that it comes with."""
    known = _look(self, *rows)
    return known._replace(doubled=np.zeros_like(known.doubled))


def none_doubled(_state: State, _passage: Any, rows: Any) -> Any:
    """A correction of a row that nobody counted takes it away."""
    return np.zeros(rows.height, dtype=bool)


def nothing_repaired(state: State, passage: Any, rows: Any, _offset: int) -> None:
    """What was repaired with a row that is void now stays as it is."""
    for identity in corrections._identities(passage, rows):
        state.doubled.discard(identity)


class VoidsForgotten(RowFolding):
    """Rows whose id came first at another time are not counted, and stay in the ledger."""

    def voided(self, state: Any, records: Sequence[Any]) -> list[tuple[Any, Any]]:
        state.to_void.clear()
        return []


class VoidsBelow(RowFolding):
    """A row is voided by the next revision, as an operator would: one of his may come first."""

    def voided(self, state: Any, records: Sequence[Any]) -> list[tuple[Any, Any]]:
        return [
            (type(rows)(row._replace(revision=1) for row in rows), headers)
            for rows, headers in super().voided(state, records)
        ]


class VoidedOnce(RowFolding):
    """A row that comes again is not voided again, though ClickHouse may have refused its void."""

    def fold(self, state: Any, records: Sequence[Any], on_barrier: Any) -> list[Any]:
        told = state.doubled.union(*state.seen.values())
        alerts = super().fold(state, records, on_barrier)
        state.to_void = [identity for identity in state.to_void if identity not in told]
        return alerts


def all_remembered(_state: Any, _until_ms: int = 0) -> None:
    """Behind a loss it is taken for known which of several times of an id came first."""


_revises = fold._revises


def never_moved(*row: Any, moved: bool) -> bool:
    """Nobody remembers the id of a call that an operator brought in from another organisation."""
    return _revises(*row, moved=False)


def for_ever(_state: State) -> list[Any]:
    """What is raised until a time stays raised."""
    return []


_row = SpendView._row


def any_row(self: SpendView, key: str, row: Any) -> None:
    """The guard keeps whatever it read last."""
    self._accounts.account(key).stamp = -1
    _row(self, key, row)


class PromiseFirst(SpendPublisher):
    """`as_of` is said before the rows that it covers."""

    async def tell_now(self, state: Any) -> None:
        done = as_of(state)
        if done is not None:
            await self._send(done.key, done.model_dump_json().encode())
        await super().tell_now(state)


_load = Cells.load


def without_stamps(self: Cells, scopes: Any, values: Any, stamps: Any) -> None:
    """Cells come back without knowing which records they hold."""
    _load(self, scopes, values, np.full_like(stamps, -1))


_restore = Budgets.restore


def nobody(self: Budgets, rules: Iterable[Any], now_ms: int = 0) -> None:
    """A restart forgets who is in which groups."""
    _restore(self, [rule for rule in rules if isinstance(rule, Policy)], now_ms)


def nothing_missing(_state: Any) -> tuple[Any, ...]:
    """Totals that begin with a policy stay as they began."""
    return ()


def each_counts(_state: State, _passage: Any, _orgs: Any, _ids: Any, at: Any) -> Any:
    """A correction that is repeated counts again."""
    return np.ones(at.size, dtype=bool)


@contextmanager
def patched(*patches: tuple[Any, str, Any]) -> Iterator[None]:
    """Put functions in the place of production's for a while."""
    active = [patch.object(target, name, new) for target, name, new in patches]
    for one in active:
        one.start()
    try:
        yield
    finally:
        for one in active:
            one.stop()
