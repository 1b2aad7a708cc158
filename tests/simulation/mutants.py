"""Broken versions of production's classes, each with one rule taken away: the oracle must catch every one of them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.simulation import fold, rows
from tests.simulation.kernels import RowCheckpoints, RowFolding
from tests.simulation.line import Make
from tests.simulation.mutants_fold import (
    NoHighWater,
    PromiseFirst,
    SealedRewritten,
    SnapshotAnywhere,
    StepPerBatch,
    VoidedOnce,
    VoidsBelow,
    VoidsForgotten,
    WallClockInFold,
    WallClockInWindows,
    all_remembered,
    any_row,
    each_counts,
    each_time_counts,
    for_ever,
    never_moved,
    no_profiles,
    no_series,
    nobody,
    none_doubled,
    nothing_missing,
    nothing_repaired,
    nothing_seen,
    patched,
    unstamped,
    without_stamps,
)
from tests.simulation.mutants_limits import at_once, both_hold, nobody_new, one_level, shared_alone
from tests.simulation.mutants_logs import any_count, every_clock, look_away, one_log, one_source, say_nothing
from tollmeter.producers.guard.spend import SpendView
from tollmeter.schemas import envelope
from tollmeter.sinks.clickhouse import rollup
from tollmeter.sinks.clickhouse.client import Unavailable
from tollmeter.streams.engine import consumer
from tollmeter.streams.engine.incidents import Incidents
from tollmeter.streams.engine.loop import BatchLoop
from tollmeter.streams.ledger.stage import Ledger
from tollmeter.streams.price.stage import Price
from tollmeter.streams.rules.anomalies.profiles import Profiles
from tollmeter.streams.rules.limits import bindings, spend_rows
from tollmeter.streams.rules.limits.bindings import Budgets
from tollmeter.streams.rules.windows import backfill, barriers, corrections, sessions, snapshot
from tollmeter.streams.rules.windows.dedupe import Dedupe
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.windows import Cells
from tollmeter.streams.watch import kernel
from tollmeter.streams.watch import records as priced_log
from tollmeter.streams.watch.repairs import Repairs
from tollmeter.streams.watch.stage import Watch


class CommitBeforeInsert(Ledger):
    """LEDGER says that it is done while its insert is still under way."""

    async def step(self, events: Sequence[Any]) -> list[Any]:
        asyncio.ensure_future(super().step(events))  # noqa: RUF006
        return []


class GiveUpOnInsert(Ledger):
    """LEDGER goes on when ClickHouse does not answer."""

    async def _persist(self, work: Callable[[], None], *args: Any) -> None:
        try:
            await self._runtime.blocking(work)
        except Unavailable:
            return


class CommitBeforeAck(Price):
    """PRICE says that it is done before the brokers have acknowledged."""

    async def step(self, events: Sequence[Any]) -> None:
        asyncio.ensure_future(super().step(events))  # noqa: RUF006


class ParallelSends(Price):
    """PRICE has several unacknowledged records for one target."""

    async def _send_in_turn(self, target: int, records: Sequence[Any]) -> None:
        await asyncio.gather(*(super(ParallelSends, self)._send_in_turn(target, [record]) for record in records))


class LettersUnawaited(Price):
    """PRICE does not wait for its dead letters."""

    async def _send_dead_letters(self, priced: Any) -> None:
        asyncio.ensure_future(super()._send_dead_letters(priced))  # noqa: RUF006


class AckOnException(BatchLoop):
    """A batch that fails counts as done."""

    async def _run_batch(self) -> None:
        step = self._step

        async def forgiving(events: list[Any]) -> Sequence[Any] | None:
            try:
                return await step(events)
            except Exception:
                return None

        self._step = forgiving
        try:
            await super()._run_batch()
        finally:
            self._step = step


class AlertAfterCheckpoint(Watch):
    """WATCH sends alerts when the checkpoint that holds their sums is written."""

    async def _send(self, alerts: Sequence[Any]) -> None:
        self.__dict__.setdefault("held", []).extend(alerts)

    async def idle(self, now: float) -> None:
        saved = any(saving.task.done() for saving in self._saving.values())
        await super().idle(now)
        if saved:
            held, self.__dict__["held"] = self.__dict__.get("held", []), []
            await super()._send(held)


class ResumeAtCommitted(Watch):
    """WATCH starts where the group has committed, not behind its checkpoint."""

    async def assigned(self, partitions: set[Any]) -> dict[Any, int]:
        await super().assigned(partitions)
        return {}


class ProgressFirst(RowCheckpoints):
    """A checkpoint claims its progress before its cells are written."""

    @property
    def writes(self) -> Any:
        return tuple(reversed(super().writes))


class SeenNotRebuilt(RowFolding):
    """A restart forgets which ids were seen."""

    async def read_back(self, number: int, end: int) -> Any:
        for nothing in ():
            yield nothing


class FailedIsSaved(RowFolding):
    """A checkpoint that failed counts as written."""

    def undo(self, state: Any, failed: Any) -> None:
        """Forget that it failed."""


class RepairTooSoon(Repairs):
    """Repairs do not wait until LEDGER holds what the checkpoint holds."""

    async def _ledger_caught_up(self, saved: Any) -> bool:
        return True


class Mutant(NamedTuple):
    """`make` replaces classes, `patches` functions; `columns` runs production's fold, which costs more.

    `kind` is the incident that shows it, None where any seed may.
    """

    name: str
    make: Make
    patches: tuple[tuple[Any, str, Any], ...] = ()
    columns: bool = False
    kind: str | None = None

    @contextmanager
    def applied(self) -> Iterator[Make]:
        """Put the broken parts in place for a while."""
        with patched(*self.patches):
            yield self.make


MUTANTS = (
    Mutant("commit before insert", {"Ledger": CommitBeforeInsert}),
    Mutant("insert given up", {"Ledger": GiveUpOnInsert}),
    Mutant("commit before the acknowledgement", {"Price": CommitBeforeAck}),
    Mutant("parallel sends", {"Price": ParallelSends}),
    Mutant("dead letters not awaited", {"Price": LettersUnawaited}),
    Mutant("ack on exception", {"BatchLoop": AckOnException}),
    Mutant("alert after the checkpoint", {"Watch": AlertAfterCheckpoint}),
    Mutant("resume at the committed offset", {"Watch": ResumeAtCommitted}),
    Mutant("progress row first", {"Checkpoints": ProgressFirst}),
    Mutant("seen not rebuilt", {"WatchKernel": SeenNotRebuilt}),
    Mutant("failed checkpoint counts as saved", {"WatchKernel": FailedIsSaved}),
    Mutant("repair before the ledger holds it", {"Repairs": RepairTooSoon}),
    Mutant("last price wins", {}, ((rows, "row_version", lambda revision, offset: offset),)),
    Mutant("rollup without slack", {}, ((rollup, "SLACK_MARGIN_S", -20.0),)),
    Mutant("no high water", {"WatchKernel": NoHighWater}, columns=True),
    Mutant("dedupe off", {}, ((Dedupe, "first", nothing_seen),), columns=True),
    Mutant("no scope stamp", {}, ((Cells, "load", without_stamps),), columns=True),
    Mutant("wall clock in the fold", {"WatchKernel": WallClockInFold}, columns=True),
    Mutant("sealed bucket rewritten", {"WatchKernel": SealedRewritten}, columns=True),
    Mutant("spend without stamp", {}, ((SpendView, "_row", any_row),), columns=True),
    Mutant("spend promised before it is said", {"SpendPublisher": PromiseFirst}, columns=True),
    Mutant("progress ahead of the cells", {"WatchKernel": SnapshotAnywhere}, columns=True),
    Mutant("corrections count each time", {}, ((corrections, "_first", each_counts),), columns=True),
    Mutant("each time of an id counts", {}, ((Dedupe, "look", each_time_counts),), columns=True),
    Mutant("voids forgotten", {"WatchKernel": VoidsForgotten}),
    Mutant("voids at the next revision", {"WatchKernel": VoidsBelow}),
    Mutant("voided once", {"WatchKernel": VoidedOnce}),
    Mutant("order known behind a loss", {}, ((fold, "forgotten", all_remembered),)),
    Mutant("moved ids forgotten", {}, ((fold, "_revises", never_moved),)),
    Mutant("corrections of what nobody counted", {}, ((corrections, "_is_doubled", none_doubled),), columns=True),
    Mutant("repaired before the void", {}, ((corrections, "_settle_doubled", nothing_repaired),), columns=True),
    Mutant("raised for ever", {}, ((barriers, "expire", for_ever),), columns=True),
    Mutant("void rows counted", {}, ((corrections, "VOID", "-"),), columns=True),
    Mutant("profiles forgotten", {}, ((kernel, "load", no_profiles),), columns=True),
    Mutant("series forgotten", {}, ((kernel, "load", no_series),), columns=True),
    Mutant("no stamp on profiles", {}, ((Profiles, "load", unstamped),), columns=True),
    Mutant("wall clock in windows", {"WatchKernel": WallClockInWindows}, columns=True),
    Mutant("suspicions by batch", {"WatchKernel": StepPerBatch}, columns=True),
    Mutant("gap passed in silence", {}, ((Incidents, "lost", say_nothing),), kind="retention"),
    Mutant("rows behind a gap forgotten", {}, ((Watch, "_look_behind", look_away),), kind="retention"),
    Mutant("offsets of another log", {}, ((consumer, "of_other_logs", one_log),), kind="source renewed"),
    Mutant("epoch ignored", {}, ((priced_log, "source_epoch", one_source),), columns=True, kind="source renewed"),
    Mutant("members forgotten", {}, ((Budgets, "restore", nobody),), columns=True, kind=""),
    Mutant("default for nobody", {}, ((bindings._Org, "limits_each", shared_alone),), columns=True, kind=""),
    Mutant("default beside an own policy", {}, ((Budgets, "_of_member", both_hold),), columns=True, kind=""),
    Mutant("sessions end in their period", {}, ((sessions, "is_over", at_once),), columns=True, kind=""),
    Mutant("sessions begin with the policy", {}, ((backfill, "_fresh", nobody_new),), columns=True, kind=""),
    Mutant("one level for all", {}, ((spend_rows, "level_of", one_level),), columns=True, kind=""),
    Mutant("totals not backfilled", {}, ((snapshot, "backfills", nothing_missing),), columns=True, kind=""),
    Mutant("partitions not counted", {}, ((Incidents, "why_not_read", any_count),), kind="count"),
    Mutant("clock of a partition that is gone", {}, ((State, "move_clock", every_clock),), columns=True, kind="count"),
    Mutant("newer format passed over", {}, ((envelope, "NEWEST_KNOWN", 99),), kind="newer"),
)
