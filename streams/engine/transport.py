"""Faust transport that hands an agent one event per (partition, fetch): its value is the list of raw aiokafka records.

Faust's own path costs 130-200 microseconds of CPU a record, nearly all of it asyncio tasks and queue work; this one
costs 5-11 with the fetch. Kept: membership, rebalance, back-pressure, generation check, timers, commits. Gone for the
topics of such an app: models, codecs, tables, `group_by`, `take`, per-record sensors, replies.

It overrides private methods of faust-streaming 0.15.3 and aiokafka 0.14.0. Both are pinned exactly, and a test fails
when one of the overridden methods changes.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from tollmeter.broker.unpack import bound
from tollmeter.schemas.record import Record
from tollmeter.streams.engine.consumer import AccountableConsumer, BatchMessage
from tollmeter.streams.engine.gaps import log_and_note, of_other_logs, with_log

SCHEME = "tollmeter"
OVERRIDDEN = (
    "perform_seek",
    "on_partitions_assigned",
    "_wait_next_records",
    "getmany",
    "_drain_messages",
    "_filter_tps_with_pending_acks",
    "_new_offset",
    "verify_event_path",
    "_commit",
)

_PAUSED_S = 0.02
"""Pause before looking again when back-pressure holds every partition; upstream waits a full second."""


class BatchConsumer(AccountableConsumer):
    """Fetches batches and commits only what was finished, in order; starts where the app says.

    The app's stage is asked after every assignment for the offset to begin at, per partition; what it leaves out begins
    at the committed offset.
    """

    _sought: int | None
    """The generation whose positions have been sought. Without it nothing is fetched."""
    _quiet: dict[TP, tuple[int, int]]
    """Fetch position and the number of the fetch at which it was first seen, where nothing but markers may follow."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._fetches = self._drops = 0
        self._quiet, self._sought = {}, None

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Forget the last generation: what it did not commit is fetched again, by whoever owns it now.

        A delivery left behind would never be acked (the stream drops messages of an old generation) and would block
        the commits of its partition for ever.
        """
        self._sought = None
        self.assignments += 1
        for state in (self._inflight, self._acked, self._acked_index, self._gap, self.held):
            state.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, then to the start positions that the stage asks for; say what is gone there.

        Where nothing was committed yet upstream leaves the position alone, and what was fetched and dropped meanwhile
        would never be read: those partitions go back to their beginning.
        """
        generation, drops = self.app.consumer_generation_id, self._drops
        await super().perform_seek()
        fresh = [TopicPartition(tp.topic, tp.partition) for tp in self.assignment() if not self._read_offset[tp]]
        if fresh:
            await self._thread.seek_to_beginning(*fresh)
        own = self.app.stage.own_position  # then it knows which log that belongs to
        positions = {} if own else await self.leave_other_logs(await self._committed(self.assignment()))
        wanted = await self.app.stage.assigned(self.assignment())
        assigned = self.assignment()
        positions = {tp: offset for tp, offset in {**positions, **wanted}.items() if tp in assigned}
        if positions:
            await self.seek_wait(positions)
        # what was sought, not where the client stands: out of range it may have jumped to the log's start by now
        self._done = {tp: positions.get(tp, self._read_offset[tp] or 0) for tp in assigned}
        await self.check_positions()
        # A fetch may return, and be dropped, while this waits: its records lie behind a position sought before that.
        self._sought = generation if self._drops == drops else None

    async def _wait_next_records(self, timeout: float) -> tuple[Mapping[TP, Sequence[Record]], set[TP]]:  # noqa: ASYNC109
        """Fetch; but nothing while rebalancing, and nothing before the positions of this generation are sought.

        Upstream resumes partitions before it clears the queues at the end of a rebalance, so records fetched in
        between are lost. It also goes on after a seek that took too long, from wherever the position happens to be.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active: set[TP] = set() if self.app.rebalancing else self._get_active_partitions()
        if not active:
            await self.sleep(_PAUSED_S)
            return {}, active
        if self._sought != self.app.consumer_generation_id:
            try:
                with self.waiting_for_stage():
                    await self.perform_seek()
            except IllegalStateError as error:  # the partitions went away meanwhile: a rebalance follows
                self.log.info("seek during a rebalance: %r", error)
                return {}, set()
        return await self._getmany(active_partitions=active, timeout=timeout), active

    async def getmany(self, timeout: float) -> AsyncGenerator[tuple[TP, BatchMessage], None]:  # noqa: ASYNC109
        """Yield one message per partition: value = its records, offset = that of the last one.

        Everything is dropped when a rebalance began meanwhile, and the position is sought again before the next fetch.
        """
        generation = self.app.consumer_generation_id
        records, active = await self._wait_next_records(timeout)
        if self.should_stop:
            return
        for tp, batch in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                self._drop()
                return
            if not batch or (tp not in active and tp not in self._buffered_partitions):
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            yield tp, BatchMessage(tp, batch, generation)

    def _drop(self) -> None:
        """Remember that fetched records were dropped: the positions must be sought again before the next fetch."""
        self._drops += 1
        self._sought = None

    async def _drain_messages(self, fetcher: Service) -> None:
        """Feed the agents; upstream wraps each delivery in four asyncio tasks, most of all CPU time.

        A delivery blocks while the flow is suspended and may end after the rebalance. The read offset is therefore set
        before it: set afterwards it would overwrite the position just sought to, and the batch that is fetched again
        would be taken for an old one and skipped.
        """
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                self._fetches += 1
                self.polled_at = monotonic()
                await self.sleep(0)  # getmany may return without ever giving way to other tasks
                async with aclosing(self.getmany(timeout=1.0)) as messages:
                    async for tp, message in messages:
                        if self.suspend_flow.is_set():
                            self._drop()
                            break  # a rebalance started: the rest of this fetch is dropped
                        await self.check_delivery(message)
                        read = self._read_offset[tp]
                        if read is not None and message.offset < read:
                            continue
                        self._inflight[tp].append(message)
                        self._read_offset[tp] = message.offset
                        with self.waiting_for_stage():
                            await self.callback(message)
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            # the normal end of a fetch in progress at shutdown; raised further it would turn a clean stop into a crash
            if not self.transport.app.should_stop:
                raise

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit; beside the offsets stand the id of their topic and what the stage notes."""
        assigned, note = self.assignment(), self.app.stage.commit_note
        try:
            await self.commit_noted({tp: (offset, note(tp)) for tp, offset in offsets.items() if tp in assigned})
        except (CommitFailedError, IllegalStateError) as error:  # a rebalance: whoever owns them now reads them again
            self.log.info("no commit: %r", error)
            return False
        return True

    async def commit_noted(self, offsets: Mapping[TP, tuple[int, str]]) -> None:
        """Commit offsets with notes."""
        found = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(
                offset, with_log(self.app.incidents.id_of(tp.topic), note)
            )
            for tp, (offset, note) in offsets.items()
        }
        await self._thread.call_thread(self._thread._ensure_consumer().commit, found)

    async def committed(self, tps: Iterable[TP]) -> dict[TP, tuple[int, str]]:
        """Return offset and note of the last commit; the position where there is none, or one of another log."""
        found = await self._committed(tps)
        others = of_other_logs(found, await self.app.incidents.ids({tp.topic for tp in found}))
        return {
            tp: (found[tp][0], log_and_note(found[tp][1])[1])
            if tp in found and tp not in others
            else (await self.position(tp) or 0, "")
            for tp in tps
        }

    async def _committed(self, tps: Iterable[TP]) -> dict[TP, tuple[int, str]]:
        """Return offset and metadata of the last commit of each partition that has one."""
        if not (asked := [TopicPartition(tp.topic, tp.partition) for tp in tps]):
            return {}
        coordinator = self._thread._ensure_consumer()._coordinator
        found = await self._thread.call_thread(coordinator.fetch_committed_offsets, asked)
        return {TP(tp.topic, tp.partition): (at.offset, at.metadata) for tp, at in found.items() if at.offset >= 0}

    def _filter_tps_with_pending_acks(self, topics: Iterable[object] | None = None) -> Iterator[TP]:
        """Look at every partition with deliveries: upstream's lists are thrown away before the last commit."""
        wanted = None if topics is None else set(topics)
        return (tp for tp in list(self._inflight) if wanted is None or tp in wanted or tp.topic in wanted)

    def _new_offset(self, tp: TP) -> int | None:
        """Return one past the last batch of the finished run at the head, never past a batch that is not finished."""
        queue, offset = self._inflight[tp], None
        while queue and queue[0].finished:
            offset = queue.popleft().offset + 1
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return offset

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Check nothing: upstream guesses about single records here, and crashes while a position is unknown."""

    def finish(self, message: BatchMessage) -> None:
        """Ack a delivery whose effects are durable."""
        message.finished = True
        if message.generation_id == self.app.consumer_generation_id:  # others may have been further since then
            self._done[message.tp] = message.offset + 1
        self.done_at[message.tp] = message.timestamp
        message.ack(self)

    def abandon(self, message: BatchMessage) -> None:
        """Give a delivery back unprocessed: a rebalance or a stop waits for it no longer, and it is never committed."""
        self._unacked_messages.discard(message)
        waiting = self._waiting_for_ack
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def heads(self) -> set[TP]:
        """Return the partitions in which nothing waited when this was called: all that stood there is finished."""
        if not self.settled or not self._done:
            return set()
        generation = self._sought
        try:
            ends = await self.highwaters(*self._done)
            behind = [tp for tp, end in ends.items() if self._done.get(tp, -1) < end]
            past = {tp for tp in behind if await self._only_markers_follow(tp, ends[tp])}
        except KafkaError as error:  # no broker, or no longer our partition: then nobody knows
            self.log.info("no end offsets: %r", error)
            return set()
        if self._sought != generation:
            return set()
        return {tp for tp in ends if tp not in behind or tp in past}

    async def _only_markers_follow(self, tp: TP, end: int) -> bool:
        """Tell whether what stands before the end is no record: marks of transactions, or deleted ones.

        The fetch position alone does not say so: a record may be fetched and not yet delivered. When it has stayed
        the same over two more fetches, everything before it has been delivered.
        """
        if any(not message.finished for message in self._inflight[tp]):
            return False
        position = await self.position(tp) or 0
        seen, since = self._quiet.get(tp, (-1, 0))
        if seen != position:
            self._quiet[tp] = (position, self._fetches)
            return False
        return position >= end and self._fetches >= since + 2

    @property
    def settled(self) -> bool:
        """Partitions are assigned (perhaps none), and reading from the right positions has begun."""
        if self.app.rebalancing or not self.app.consumer_generation_id:
            return False
        return self._sought == self.app.consumer_generation_id or not self.assignment()


class AcknowledgedProducer(driver.Producer):  # type: ignore[misc]  # Faust is read untyped
    """Faust's producer made idempotent; Faust itself sets this only for its exactly-once mode."""

    def _settings_extra(self) -> dict[str, Any]:
        return {"enable_idempotence": True}


class Transport(driver.Transport):  # type: ignore[misc]  # Faust is read untyped
    Consumer = BatchConsumer
    Producer = AcknowledgedProducer


def register() -> str:
    """Make this transport known to Faust and bound what batches unpack to; return the scheme that selects it."""
    bound()
    TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"
    return SCHEME
