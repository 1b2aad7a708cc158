"""WATCH: fold each partition of usage.priced, send alerts, checkpoint; its position follows the checkpoint.

The order that keeps it exact: fold, alerts and voids acknowledged, then (every few seconds) cells, policies, progress.
ClickHouse away: the fold and the alerts go on, the checkpoint waits. A start needs ClickHouse and waits for it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Self, TypeVar

from faust.types import TP

from tollmeter.schemas import topics
from tollmeter.schemas.alert import CONTENT_TYPE, Alert
from tollmeter.schemas.envelope import is_tick
from tollmeter.schemas.progress import LogPosition
from tollmeter.schemas.record import Delivery, Record
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import Unavailable
from tollmeter.streams.engine import metrics
from tollmeter.streams.engine.gaps import Loss
from tollmeter.streams.engine.line import Line
from tollmeter.streams.engine.loop import Batching
from tollmeter.streams.engine.stage import run as run_stage
from tollmeter.streams.rules.windows.alerts import fresh
from tollmeter.streams.rules.windows.snapshot import Snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.checkpoint import Checkpoint, CheckpointStore, Pace, Saving
from tollmeter.streams.watch.kernel import WatchKernel, rules_from
from tollmeter.streams.watch.ledger_totals import repair_cells
from tollmeter.streams.watch.records import BATCH_ROWS, read_back, weight
from tollmeter.streams.watch.repairs import RepairKernel, Repairs
from tollmeter.streams.watch.spend_publisher import SpendPublisher

log = logging.getLogger("tollmeter")

BACKLOG_LINGER_S = 0.5
"""A backlog is folded in large pieces: a row among 2,500 costs half as much again as one among 8,000."""
IDLE_S = 0.2
LOADS = 4
"""Partitions that are loaded at once: while one waits for the broker or ClickHouse, others come in."""
LOOK_S = 1.0
LAST_OFFSET = (1 << 63) - 1
CLICKHOUSE, CHECKPOINT = "ClickHouse", "usage_windows"
_Answer = TypeVar("_Answer")
EDGES = ("budget", "remaining")
"""Kinds of alerts after which guards are told at once what is spent."""


class Watch:
    """One worker's share of the partitions: their states, and the timers of their checkpoints."""

    name: ClassVar[str] = "watch"
    reads: ClassVar[tuple[str, ...]] = (topics.PRICED,)
    writes: ClassVar[tuple[str, ...]] = (topics.ALERTS, topics.SPEND, topics.PRICED)
    own_position: ClassVar[bool] = True

    def __init__(
        self,
        line: Line,
        kernel: WatchKernel,
        store: CheckpointStore,
        repairs: Repairs,
        spend_publisher: SpendPublisher | None,
    ) -> None:
        self._line, self._settings, self._runtime, self.health = line, line.settings, line.runtime, line.health
        self._kernel, self._store, self._repairs, self._spend_publisher = kernel, store, repairs, spend_publisher
        self.batching = Batching(4 * BATCH_ROWS, weight, 0.0, BACKLOG_LINGER_S, IDLE_S).within_bytes()
        self._log_id = line.log_id(topics.PRICED)
        self._states: dict[int, State] = {}
        self._saving: dict[int, Saving] = {}
        self._pace = Pace(self._settings.checkpoint_s)
        self._repairing: dict[int, asyncio.Task[None]] = {}
        self._looking: dict[int, asyncio.Task[None]] = {}
        self._looked_at = 0.0

    @classmethod
    def on(cls, line: Line) -> Self:
        """Build it with its checkpoints, repairs and spend."""
        settings = line.settings
        kernel = WatchKernel(rules_from(settings, line.layout.events), partial(read_back, settings))
        return cls(
            line,
            kernel,
            CheckpointStore(settings),
            Repairs(
                settings, line.send, kernel=RepairKernel(partial(repair_cells, limit=settings.watch_scopes_per_org))
            ),
            SpendPublisher(settings, line.send),
        )

    async def leaving(self) -> None:
        """Nothing: whoever comes next goes on behind the checkpoint."""

    def commit_note(self, tp: TP) -> str:
        """Return no note."""
        return ""

    async def assigned(self, partitions: set[TP]) -> dict[TP, int]:
        """Return for each partition the offset behind its checkpoint, loading the states that are new here."""
        ours = {tp.partition: tp for tp in partitions}
        for gone in set(self._states) - set(ours):
            del self._states[gone]
        for state in self._states.values():
            state.halted = ""
        fresh = sorted(set(ours) - set(self._states))
        turns = asyncio.Semaphore(LOADS)
        loads = [asyncio.create_task(self._load(number, turns)) for number in fresh]
        try:
            for number, load in zip(fresh, loads, strict=True):  # what is declared, and when, is in their order
                await self._take_over(ours[number], await load)
        finally:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
        return {tp: LogPosition.of(self._states[number].applied).next_offset for number, tp in ours.items()}

    async def _load(self, number: int, turns: asyncio.Semaphore) -> State:
        async with turns:
            began = self._runtime.monotonic()
            saved = await self._checkpoint(number)
            state = await self._kernel.resume(number, saved)
            if saved is None:
                await self._save_first(state)
            metrics.STATE_REBUILD.labels(str(number)).set(self._runtime.monotonic() - began)
            return state

    async def _save_first(self, state: State) -> None:
        """Save which log a partition begins with before anything of it is read: it may be made anew within a second."""
        state.log_id = self._log_id
        first = self._kernel.snapshot(state)
        for write in self._store.writes:
            await self._patiently(state.partition, partial(write, first))

    async def _take_over(self, tp: TP, state: State) -> None:
        if self._log_id and state.log_id not in ("", self._log_id):
            await self._line.incidents.lost(Loss(tp, "new_epoch", 0, -1))
            self._renew(state)
        state.log_id = self._log_id or state.log_id
        self._states[tp.partition] = state

    async def lost(self, loss: Loss) -> None:
        """Go on behind a gap, or in a log made anew; hours that may lack rows are repaired from the ledger."""
        if (state := self._states.get(loss.tp.partition)) is None:  # whoever has it now finds the same
            return
        if loss.kind == "new_epoch":
            self._renew(state)
        else:  # deliveries from before the gap may still wait: `applied` stays
            state.unread.append((loss.first, loss.last))
            state.lost_to = max(state.lost_to, state.base + loss.last)

    def _renew(self, state: State) -> None:
        state.unread.append((LogPosition.of(state.applied).next_offset, LAST_OFFSET))
        self._kernel.renew(state, self._log_id)

    async def _look_behind(self, state: State) -> None:
        """Find the hours of rows that were never folded, now that LEDGER has passed them."""
        for span in list(state.unread):
            first, last = span
            passed = 0 if last == LAST_OFFSET else last  # of an old log nothing comes once LEDGER reads the new one
            if await self._repairs.ledger_beyond(state.partition, state.log_id, passed):
                ask = partial(self._store.hours_at, state.partition, first, last)
                self._kernel.missing(state, await self._patiently(state.partition, ask))
                state.unread.remove(span)

    async def _checkpoint(self, number: int) -> Checkpoint | None:
        return await self._patiently(number, partial(self._store.load, number))

    async def _patiently(self, number: int, ask: Callable[[], _Answer]) -> _Answer:
        """Ask ClickHouse until it answers: without its state a partition cannot begin."""
        delay = 0.1
        while True:
            try:
                found = await self._runtime.blocking(ask)
                self.health.go_on(CLICKHOUSE)
                return found
            except Unavailable as error:
                log.warning("partition %d waits for its checkpoint: %s", number, error)
                self.health.wait(CLICKHOUSE, f"no checkpoint can be loaded: {error}", self._runtime.monotonic())
                await asyncio.sleep(delay * (1 + self._runtime.random()))
                delay = min(15.0, 2 * delay)

    async def step(self, deliveries: Sequence[Delivery]) -> None:
        """Fold the records of a batch, partition by partition, send the alerts they cause, then save what is due."""
        waiting: dict[int, list[Record]] = {}
        for delivery in deliveries:
            waiting.setdefault(delivery.partition, []).extend(delivery.value)
        for state, (number, records) in zip([*map(self._states.get, waiting)], waiting.items(), strict=True):
            # What came before the pause is read again with what stands in front of it; so is what came for a state that
            # went while alerts of another partition were sent: the one loaded since has not folded what lies between.
            if state is None or state.halted or self._states.get(number) is not state:
                continue
            taken: list[Snapshot] = []
            alerts = self._kernel.fold(state, records, partial(self._snapshot_if_due, taken))
            while state.halted and not await self._stops(state):
                alerts += self._kernel.fold(state, records, partial(self._snapshot_if_due, taken))
            if not all(map(is_tick, records)):  # after the fold: a snapshot within it holds but the first of them
                self._pace.moved(number)
            await self._send(alerts)
            for correction in self._kernel.voided(state, records):
                await self._line.send(self._settings.topic(topics.PRICED), number, None, *correction)
            if self._spend_publisher is not None and any(alert.kind in EDGES for alert in alerts):
                await self._spend_publisher.tell_now(state)
            for snapshot_ in taken:
                self._saving[number] = Saving(state, snapshot_, asyncio.create_task(self._save(snapshot_)))

    async def _stops(self, state: State) -> bool:
        """Stop reading in front of a record of an unknown format, unless a person has passed over it."""
        offset = LogPosition.of(state.halted_at).offset
        if await self._line.passed_over(state.partition, offset):
            state.passed.add(state.halted_at)
            state.halted = ""
            return False
        tp = TP(self._settings.topic(topics.PRICED), state.partition)
        await self._line.stop_reading(tp, offset, f"{state.halted}; upgrade this worker")
        return True

    def _snapshot_if_due(self, taken: list[Snapshot], state: State) -> None:
        now = self._runtime.monotonic()
        if state.partition not in self._saving and not taken and self._pace.due(state.partition, now):
            taken.append(self._kernel.snapshot(state))
            self.health.storing(CHECKPOINT, now)

    async def _send(self, alerts: Sequence[Alert]) -> None:
        """Return when every alert is acknowledged; what concerns times too long ago is counted, but alerts nobody."""
        told = fresh(alerts, self._runtime.time(), self._settings.alert_max_age_h * 3_600)
        if len(told) < len(alerts):
            log.info("%d alerts about old events are not sent", len(alerts) - len(told))
            metrics.ALERTS_SUPPRESSED.inc(len(alerts) - len(told))
        send, targets = partial(self._line.send, self._settings.topic(topics.ALERTS)), self._line.layout.priced
        await asyncio.gather(
            *(
                send(topics.org_partition(alert.org_id, targets), subject(alert), alert.wire(), CONTENT_TYPE)
                for alert in told
            )
        )
        for alert in told:
            metrics.ALERTS.labels(alert.kind).inc()

    async def idle(self, now: float) -> None:
        """Publish spend, look for what was never read, and settle the checkpoints that ended."""
        if self._spend_publisher is not None:
            await self._spend_publisher.tell(self._states, now)
        self._look_for_unread(now)
        for number, saving in list(self._saving.items()):
            if saving.task.done():
                del self._saving[number]
                self._settle(number, saving)

    def _look_for_unread(self, now: float) -> None:
        for number, state in self._states.items():
            last = self._looking.get(number)
            if last is not None and last.done():
                del self._looking[number]
                if (error := last.exception()) is not None:
                    self._runtime.crash(error)
            if state.unread and number not in self._looking and now >= self._looked_at + LOOK_S:
                self._looking[number] = asyncio.create_task(self._look_behind(state))
        if now >= self._looked_at + LOOK_S:
            self._looked_at = now

    async def _save(self, taken: Snapshot) -> None:
        for write in self._store.writes:
            await self._runtime.blocking(write, taken)

    def _repair(self, saved: Snapshot) -> None:
        """Have late rows repaired as of this checkpoint, unless the last repair of the partition is still at it."""
        last = self._repairing.get(saved.partition)
        if last is not None and last.done() and (error := last.exception()) is not None:
            self._runtime.crash(error)
        if (saved.progress.deferred or saved.unsettled) and (last is None or last.done()):
            self._repairing[saved.partition] = asyncio.create_task(self._repairs.after(saved))

    def _settle(self, number: int, saving: Saving) -> None:
        error = saving.task.exception()
        if error is not None or saving.taken.progress.deferred or saving.taken.unsettled:
            self._pace.moved(number)
        if error is None:
            self.health.stored(CHECKPOINT)
            self._repair(saving.taken)
            return
        metrics.SINK_RETRIES.labels(CHECKPOINT).inc()
        if not isinstance(error, Unavailable):
            self._runtime.crash(error)
        log.warning("checkpoint of partition %d failed, the next one holds it too: %s", number, error)
        if self._states.get(number) is saving.state:  # else it has left, and may be back with a state of its own
            self._kernel.undo(saving.state, saving.taken)


def subject(alert: Alert) -> bytes:
    """Return the Kafka key of an alert: its scope."""
    return f"{alert.org_id}/{alert.scope}/{alert.name}".encode()


def run(settings: Settings) -> int:
    """Run the WATCH worker until it is told to stop; return the exit code. Raises `BrokerError` before it starts."""
    return run_stage(settings, Watch)
