"""The consumer's account of itself: jumps in a log are declared, waiting is no death, paused partitions have a reason.

Base of the batch consumer in `transport`; like it, this leans on private names of exact versions.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from tollmeter.broker.fetched import as_is, values_size
from tollmeter.broker.make import LOOP_MS
from tollmeter.schemas.record import Record
from tollmeter.streams.engine.gaps import Loss, OnLoss, losses_at_start, losses_between, of_other_logs

LOOK_AGAIN_S = 30.0


class BatchMessage(ConsumerMessage):  # type: ignore[misc]  # Faust is read untyped
    """One delivery. `finished` says that its effects are durable.

    `acked` cannot say that: Faust also acks what its stream skips while the flow is stopped.
    """

    __slots__ = ("arrived_at", "finished", "size")

    def __init__(self, tp: TP, batch: Sequence[Record], generation: int) -> None:
        last: Any = batch[-1]
        super().__init__(
            last.topic,
            last.partition,
            last.offset,
            last.timestamp / 1000.0,
            last.timestamp_type,
            None,
            None,
            batch,
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )
        self.finished = False
        self.arrived_at = monotonic()
        self.size = values_size(batch)
        """Bytes of the values."""


class CommittedOnlyThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust is read untyped
    """Reads what was committed: records of a transaction that was aborted never happened. It gets them as `Fetched`."""

    def _create_worker_consumer(self, transport: object) -> object:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # Faust knows it in its exactly-once mode alone
        consumer._consumer_timeout = LOOP_MS / 1000  # what comes wakes it; else it would look five times a second
        consumer._value_deserializer = as_is
        return consumer


class AccountableConsumer(driver.Consumer):  # type: ignore[misc]  # Faust is read untyped
    """Knows which offset comes next, and what it is doing."""

    _inflight: defaultdict[TP, deque[BatchMessage]]
    """Delivered and not yet committed, per partition, in offset order. Stands in for Faust's lists of acked offsets
    and its gap logic, which takes the whole range of a batch for a gap and commits past an earlier failed one."""

    _done: dict[TP, int]
    """The offset behind the last finished delivery, or the position that was sought when there is none yet."""

    _next: dict[TP, int]
    """The offset expected next: what comes instead tells of records that are gone, or of another log."""

    polled_at: float
    """When the fetch loop turned last; it does not while `busy`: then it waits for the stage."""

    done_at: dict[TP, float]
    """Append time of the last finished record, seconds since 1970."""

    held: dict[TP, str]
    """Partitions that are paused until this worker is started again, with the reason."""

    def _new_consumer_thread(self) -> CommittedOnlyThread:
        return CommittedOnlyThread(self, loop=self.loop, beacon=self.beacon)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._inflight = defaultdict(deque)
        self._done, self._next, self.held, self.done_at = {}, {}, {}, {}
        self.polled_at, self.busy, self.assignments = monotonic(), False, 0

    @Service.task  # type: ignore[untyped-decorator]
    async def _stay_member(self) -> None:
        """Tell aiokafka that this consumer lives while the stage, waiting for ClickHouse, takes nothing from it.

        It counts only fetches, and leaves the group when there was none for `broker_max_poll_interval`. A loop that
        is stuck is noticed by the worker's health instead.
        """
        while not self.should_stop:
            await self.sleep(1.0)
            client = self._thread._consumer
            if client is not None and (self.busy or not self._get_active_partitions()):
                client._subscription._last_fetch_ended = monotonic()

    @Service.task  # type: ignore[untyped-decorator]
    async def _look_again(self) -> None:
        """Partition counts may change while the line runs."""
        while not self.should_stop:
            await self.sleep(LOOK_AGAIN_S)
            await self.app.before_reading(self.assignment())

    @contextmanager
    def waiting_for_stage(self) -> Iterator[None]:
        """Mark the time in which the fetch loop rightly stands still."""
        self.busy = True
        try:
            yield
        finally:
            self.busy, self.polled_at = False, monotonic()

    def hold(self, tp: TP, why: str) -> None:
        """Pause a partition for good: until this worker, or a newer one, gets it anew."""
        self.pause_partitions({tp})
        self.held[tp] = why

    def let_go(self, why: str) -> None:
        """Go on with the partitions that were paused for this reason: it holds no longer."""
        tps = {tp for tp, reason in self.held.items() if reason == why}
        for tp in tps:
            del self.held[tp]
        self.resume_partitions(tps & self.assignment())

    async def leave_other_logs(self, committed: Mapping[TP, tuple[int, str]]) -> dict[TP, int]:
        """Return where to begin in topics that were made anew since these offsets were committed.

        The new log may have grown beyond them by now: the position alone would tell nothing.
        """
        others = of_other_logs(committed, await self.app.incidents.ids({tp.topic for tp in committed}))
        if not others:
            return {}
        starts, ends = await self._bounds(others)
        for tp in sorted(others):
            await self._declare(Loss(tp, "new_epoch", starts[tp], ends[tp] - 1), running=False)
            self._committed_offset[tp] = None
        await self.seek_wait({tp: starts[tp] for tp in others})
        return {tp: starts[tp] for tp in others}

    async def check_positions(self) -> None:
        """Declare what lies between a position and its log, and go to the log's start.

        aiokafka would go there as well, but without a word. The commit of before is forgotten there: Faust commits
        only what is higher.
        """
        if self._done:
            starts, ends = await self._bounds(self._done)
            for loss in losses_at_start(self._done, starts, ends):
                await self._declare(loss, running=False)
                self._done[loss.tp] = starts[loss.tp]
                self._committed_offset[loss.tp] = None
                await self.seek_wait({loss.tp: starts[loss.tp]})
        self._next = self._done.copy()
        await self.app.before_reading(set(self._done))

    async def check_delivery(self, message: BatchMessage) -> None:
        """Compare a delivery with the offset expected; a jump is rare, so asking the broker costs nothing."""
        tp, first = message.tp, message.value[0].offset
        expected = self._next.get(tp, first)
        if first != expected:
            starts, ends = await self._bounds([tp])
            loss = losses_between(tp, expected, first, starts[tp], ends[tp])
            if loss is not None:
                await self._declare(loss, running=True)
        self._next[tp] = max(expected, message.offset + 1)

    async def _bounds(self, tps: Iterable[TP]) -> tuple[Mapping[TP, int], Mapping[TP, int]]:
        return await self.earliest_offsets(*tps), await self.highwaters(*tps)

    async def _declare(self, loss: Loss, *, running: bool) -> None:
        declare: OnLoss = self.app.on_loss
        await declare(loss, running)
