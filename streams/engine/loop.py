"""The serial loop of a stage: everything that waits becomes one batch, and a batch is durable before its ack."""

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tollmeter.schemas.record import Delivery
from tollmeter.streams.engine.line import Line, Log

READY_FILE = "TOLLMETER_READY_FILE"
QUIET_S, QUIET_IDLE_S = 5.0, 0.25
"""So long after the last delivery `idle` need not run more often than this: what comes wakes the loop at once."""
BACKLOG_GAP_S = 0.3  # when nothing has arrived for so long, the backlog is at its end
BATCH_BYTES = 32 << 20
"""Most bytes of records in one batch, give or take one delivery: what waits in memory is bounded, whatever it holds."""

log = logging.getLogger("tollmeter")


def records_of(delivery: Delivery) -> int:
    """Return how many records a delivery brings."""
    return len(delivery.value)


class Batching(NamedTuple):
    """When what waits becomes a batch: `weigh` has counted `limit`, or its first delivery has waited `linger_s`.

    A batch that weighs a twentieth of the limit by then is part of a backlog, and waits up to `backlog_linger_s` while
    more arrives. `idle` runs between batches, at most every `idle_every_s`, and more seldom while nothing comes.
    """

    limit: int
    weigh: Callable[[Delivery], int] = records_of
    linger_s: float = 0.0
    backlog_linger_s: float = 0.0
    idle_every_s: float = 0.1

    def within_bytes(self) -> "Batching":
        """Return the same, whose limit is also reached at BATCH_BYTES."""
        weigh, limit = self.weigh, self.limit
        return self._replace(weigh=lambda delivery: max(weigh(delivery), delivery.size * limit // BATCH_BYTES))


class GivenUp(Exception):  # noqa: N818  # an answer, no error
    """Raised by a step whose partitions were taken away: its deliveries go back, unacked."""


class Steps(Protocol):
    """What the loop needs of a stage."""

    batching: Batching

    async def step(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery] | None: ...
    async def idle(self, now: float) -> None: ...


class Arrival(Protocol):
    """What Faust's stream yields."""

    @property
    def message(self) -> Delivery: ...


class Arrivals(Protocol):
    """Faust's stream."""

    def noack(self) -> "Arrivals": ...
    def events(self) -> AsyncIterable[Arrival]: ...


class App(Protocol):
    """What the loop needs of Faust's app."""

    source_topics: tuple[str, ...]
    should_stop: bool

    @property
    def consumer(self) -> Log: ...
    def topic(self, *topics: str, **types: object) -> object: ...
    def agent(self, channel: object, *, name: str) -> Callable[[Callable[[Arrivals], Awaitable[None]]], object]: ...


class BatchLoop:
    """The serial loop of a stage.

    Its `step` gets every delivery that waits, of all partitions, as one batch; they are acked after it returned, but
    for those that it returns: they stay unacked, and with them what follows in their partitions. What arrives meanwhile
    forms the next batch. Neither `step` nor `idle` ever runs beside the other.
    """

    def __init__(self, line: Line, app: App, stage: Steps, batching: Batching | None = None) -> None:
        self._line, self._app, self._runtime = line, app, line.runtime
        self._step, self._idle = stage.step, stage.idle
        self._batching = batching = batching or stage.batching
        self._limit, self._weigh = batching.limit, batching.weigh
        self._backlog_linger_s = max(batching.linger_s, batching.backlog_linger_s)
        self._idle_at = 0.0
        self._waiting: list[Delivery] = []
        self._weight = 0
        self._since = self._arrived = 0.0
        self._ready_said = False
        topic = app.topic(
            *app.source_topics, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        app.agent(topic, name="batches")(self._agent)

    async def _agent(self, stream: Arrivals) -> None:
        arrivals = aiter(stream.noack().events())
        coming: asyncio.Task[Arrival] | None = None
        try:
            while True:
                coming = await self._gather(arrivals, coming)
                await self._run_batch()
                await self._maybe_idle()
                self._announce()
        except StopAsyncIteration:
            if not self._app.should_stop:
                self._runtime.crash(RuntimeError("the stream of records ended"))
        except Exception as error:
            self._runtime.crash(error)
        finally:
            if coming is not None:
                coming.cancel()

    async def _gather(
        self, arrivals: AsyncIterator[Arrival], coming: asyncio.Task[Arrival] | None
    ) -> asyncio.Task[Arrival]:
        """Take what has arrived, waiting for the first delivery until the next idle time; return the pending read."""
        if coming is None:
            coming = asyncio.create_task(_next(arrivals))
        await asyncio.wait({coming}, timeout=self._patience())
        while coming.done():
            delivery = coming.result().message
            if not self._waiting:
                self._since = self._runtime.monotonic()
            self._waiting.append(delivery)
            self._arrived = self._runtime.monotonic()
            self._weight += self._weigh(delivery)
            coming = asyncio.create_task(_next(arrivals))
            if self._weight >= self._limit:
                break
            await asyncio.sleep(0)  # the stream gives way once before it looks into its queue
            await asyncio.sleep(0)
        return coming

    def _patience(self) -> float:
        if self._weight >= self._limit:
            return 0.0
        now = self._runtime.monotonic()
        until = self._idle_at + self._idle_every_s(now)
        if self._waiting:
            until = min(until, self._due_at())
        return max(0.0, until - now)

    def _idle_every_s(self, now: float) -> float:
        every_s = self._batching.idle_every_s
        return max(every_s, QUIET_IDLE_S) if now > self._arrived + QUIET_S else every_s

    def _due_at(self) -> float:
        soonest = self._since + self._batching.linger_s
        if self._weight * 20 < self._limit:
            return soonest
        return min(self._since + self._backlog_linger_s, max(soonest, self._arrived + BACKLOG_GAP_S))

    async def _run_batch(self) -> None:
        """Run one batch if it is due. What no longer is ours goes back, so that a rebalance need not wait for it."""
        lost = [delivery for delivery in self._waiting if not self._line.owns(delivery)]
        if lost:
            self._abandon(lost)
            self._set_waiting([delivery for delivery in self._waiting if self._line.owns(delivery)])
        due = self._weight >= self._limit or self._runtime.monotonic() >= self._due_at()
        if not self._waiting or not due:
            return
        deliveries = self._waiting
        self._set_waiting([])
        try:
            held = await self._step(deliveries) or ()
        except GivenUp:
            self._abandon(deliveries)
            return
        self._abandon(held)
        kept = set(map(id, held))
        for delivery in deliveries:
            if id(delivery) not in kept:
                self._app.consumer.finish(delivery)

    def _set_waiting(self, deliveries: list[Delivery]) -> None:
        self._waiting = deliveries
        self._weight = sum(self._weigh(delivery) for delivery in deliveries)

    def _abandon(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._app.consumer.abandon(delivery)

    async def _maybe_idle(self) -> None:
        now = self._runtime.monotonic()
        if now < self._idle_at + self._idle_every_s(now):
            return
        self._idle_at = now
        if self._app.consumer.flow_active:
            await self._idle(now)

    def _announce(self) -> None:
        if self._ready_said or not self._app.consumer.settled:
            return
        self._ready_said = True
        owned = ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(self._app.consumer.assignment()))
        log.info("ready: %s", owned or "no partition is left for this worker")
        if path := os.environ.get(READY_FILE):
            Path(path).write_text(f"{os.getpid()}\n", encoding="ascii")


async def _next(arrivals: AsyncIterator[Arrival]) -> Arrival:
    return await anext(arrivals)
