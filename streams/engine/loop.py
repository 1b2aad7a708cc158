"""The serial loop of a stage: everything that waits becomes one batch, and a batch is durable before its ack."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from tollmeter.streams.engine.app import StageApp
from tollmeter.streams.engine.runtime import RUNTIME, Runtime

READY_FILE = "TOLLMETER_READY_FILE"
BACKLOG_GAP_S = 0.3  # when nothing has arrived for so long, the backlog is at its end
PASS_BYTES = 32 << 20
"""Most bytes of records in one batch, give or take one delivery: what waits in memory is bounded, whatever it holds."""
Step = Callable[[list[Any]], Awaitable[Sequence[Any] | None]]
Idle = Callable[[float], Awaitable[None]]

log = logging.getLogger("tollmeter")


def within_bytes(weigh: Callable[[Any], int], limit: int) -> Callable[[Any], int]:
    """Return a measure by which `limit` is also reached at PASS_BYTES."""
    return lambda event: max(weigh(event), event.message.size * limit // PASS_BYTES)


class GivenUp(Exception):  # noqa: N818  # an answer, no error
    """Raised by a step whose partitions were taken away: its events go back, unacked."""


class BatchLoop:
    """The serial loop of a stage.

    `step(events)` gets every delivery that waits, of all partitions, as one batch; they are acked after it returned,
    but for those that it returns: they stay unacked, and with them what follows in their partitions.
    `event.value` is a list of aiokafka records in offset order. What arrives meanwhile forms the next batch. A batch
    starts when `weigh` counts `limit`, or when its first event has waited `linger_s`; one that weighs a tenth of the
    limit by then is part of a backlog, and waits up to `backlog_linger_s` while more arrives. `idle(now)` runs between
    batches, at most every `idle_every_s`, with the monotonic time. Neither ever runs beside the other.
    """

    def __init__(
        self,
        app: StageApp,
        step: Step,
        *,
        limit: int,
        weigh: Callable[[Any], int] = lambda event: len(event.value),
        linger_s: float = 0.0,
        backlog_linger_s: float = 0.0,
        idle: Idle | None = None,
        idle_every_s: float = 0.1,
        runtime: Runtime = RUNTIME,
    ) -> None:
        self.app, self._runtime = app, runtime
        self._step, self._limit, self._weigh, self._linger_s = step, limit, weigh, linger_s
        self._backlog_linger_s = max(linger_s, backlog_linger_s)
        self._idle, self._idle_every_s = idle, idle_every_s
        self._idle_at = 0.0
        self._waiting: list[Any] = []
        self._weight = 0
        self._since = self._arrived = 0.0
        self._ready_said = False
        topic = app.topic(
            *app.source_topics, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        app.agent(topic, name="passes")(self._agent)

    def ours(self, event: Any) -> bool:
        """Tell whether this worker still owns the event: check it before an effect that cannot be undone."""
        return bool(self.app.consumer.flow_active and event.message.generation_id == self.app.consumer_generation_id)

    def all_ours(self, events: Sequence[Any]) -> bool:
        """Tell whether every event is still ours; False as soon as a rebalance or a stop has begun."""
        return all(self.ours(event) for event in events)

    async def _agent(self, stream: Any) -> None:
        arrivals = aiter(stream.noack().events())
        coming: asyncio.Task[Any] | None = None
        try:
            while True:
                coming = await self._gather(arrivals, coming)
                await self._run_pass()
                await self._maybe_idle()
                self._announce()
        except StopAsyncIteration:
            if not self.app.should_stop:
                self._runtime.crash(RuntimeError("the stream of records ended"))
        except Exception as error:
            self._runtime.crash(error)
        finally:
            if coming is not None:
                coming.cancel()

    async def _gather(self, arrivals: AsyncIterator[Any], coming: asyncio.Task[Any] | None) -> asyncio.Task[Any]:
        """Take what has arrived, waiting for the first event until the next idle time; return the pending read."""
        if coming is None:
            coming = asyncio.create_task(_next(arrivals))
        await asyncio.wait({coming}, timeout=self._patience())
        while coming.done():
            event = coming.result()
            if not self._waiting:
                self._since = self._runtime.monotonic()
            self._waiting.append(event)
            self._arrived = self._runtime.monotonic()
            self._weight += self._weigh(event)
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
        until = self._idle_at + self._idle_every_s
        if self._waiting:
            until = min(until, self._due_at())
        return max(0.0, until - now)

    def _due_at(self) -> float:
        soonest = self._since + self._linger_s
        if self._weight * 10 < self._limit:
            return soonest
        return min(self._since + self._backlog_linger_s, max(soonest, self._arrived + BACKLOG_GAP_S))

    async def _run_pass(self) -> None:
        """Run one batch if it is due. What no longer is ours goes back, so that a rebalance need not wait for it."""
        lost = [event for event in self._waiting if not self.ours(event)]
        if lost:
            self._abandon(lost)
            self._set_waiting([event for event in self._waiting if self.ours(event)])
        due = self._weight >= self._limit or self._runtime.monotonic() >= self._due_at()
        if not self._waiting or not due:
            return
        events = self._waiting
        self._set_waiting([])
        try:
            held = await self._step(events) or ()
        except GivenUp:
            self._abandon(events)
            return
        self._abandon(held)
        for event in events:
            if event not in held:
                self.app.consumer.finish(event.message)

    def _set_waiting(self, events: list[Any]) -> None:
        self._waiting = events
        self._weight = sum(self._weigh(event) for event in events)

    def _abandon(self, events: Sequence[Any]) -> None:
        for event in events:
            self.app.consumer.abandon(event.message)

    async def _maybe_idle(self) -> None:
        now = self._runtime.monotonic()
        if now < self._idle_at + self._idle_every_s:
            return
        self._idle_at = now
        if self._idle is not None and self.app.consumer.flow_active:
            await self._idle(now)

    def _announce(self) -> None:
        if self._ready_said or not self.app.consumer.settled:
            return
        self._ready_said = True
        owned = ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(self.app.consumer.assignment()))
        log.info("ready: %s", owned or "no partition is left for this worker")
        if path := os.environ.get(READY_FILE):
            Path(path).write_text(f"{os.getpid()}\n", encoding="ascii")


async def _next(arrivals: AsyncIterator[Any]) -> Any:
    return await anext(arrivals)
