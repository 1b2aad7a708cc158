"""A stage's serial loop without a broker: what waits is one batch, acks follow the step, what is lost goes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tollmeter.broker.layout import Layout
from tollmeter.settings import Settings
from tollmeter.streams.engine.line import Line
from tollmeter.streams.engine.loop import Batching, BatchLoop, GivenUp


class Consumer:
    """The side of the consumer that the loop talks to."""

    def __init__(self) -> None:
        self.flow_active, self.settled = True, False
        self.finished: list[int] = []
        self.abandoned: list[int] = []

    def finish(self, message: Any) -> None:
        self.finished.append(message.offset)

    def abandon(self, message: Any) -> None:
        self.abandoned.append(message.offset)


class App:
    """A Faust app as far as the loop needs one: it keeps the agent, and events are put into its stream by hand."""

    def __init__(self) -> None:
        self.consumer = Consumer()
        self.consumer_generation_id = 1
        self.incidents = self.health = None
        self.should_stop = False
        self.source_topics = ("usage.events",)
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.agents: list[Callable[[Any], Awaitable[None]]] = []

    def topic(self, *names: str, **_: Any) -> object:
        return names

    def agent(self, _topic: object, name: str) -> Callable[[Any], None]:
        return self.agents.append

    def put(self, offset: int, size: int = 1, generation: int = 1) -> None:
        message = SimpleNamespace(offset=offset, generation_id=generation, value=[offset] * size)
        self.queue.put_nowait(SimpleNamespace(message=message))

    def noack(self) -> "App":
        return self

    async def events(self) -> AsyncIterator[Any]:
        while True:
            await asyncio.sleep(0)
            yield await self.queue.get()


Step = Callable[[list[Any]], Awaitable[Any]]
Idle = Callable[[float], Awaitable[None]]


async def nothing(_now: float) -> None: ...


def start(app: App, step: Step, batching: Batching, idle: Idle = nothing) -> None:
    """Have the loop of a stage read the app's stream."""
    settings = Settings()
    line = Line(settings, Layout(1, 1), app, nothing)  # type: ignore[arg-type]  # a stand-in without Faust
    BatchLoop(line, app, SimpleNamespace(step=step, idle=idle, batching=batching))  # type: ignore[arg-type]


def offsets(deliveries: list[Any]) -> list[int]:
    return [delivery.offset for delivery in deliveries]


async def run_for(app: App, seconds: float = 0.15) -> None:
    """Run the agent of the app for a moment: the loop has no end of its own."""
    task = asyncio.ensure_future(app.agents[0](app))
    await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception():
        raise task.exception()  # type: ignore[misc]


def test_what_arrives_during_a_batch_is_the_next_batch() -> None:
    app, batches = App(), []

    async def step(deliveries: list[Any]) -> None:
        batches.append(offsets(deliveries))
        if len(batches) == 1:
            for number in (2, 3, 4):
                app.put(number)
            await asyncio.sleep(0.02)

    start(app, step, Batching(100))
    app.put(1)
    asyncio.run(run_for(app))
    assert batches == [[1], [2, 3, 4]]
    assert app.consumer.finished == [1, 2, 3, 4]


def test_a_batch_is_bounded_by_weight() -> None:
    app, batches = App(), []

    async def step(deliveries: list[Any]) -> None:
        batches.append(offsets(deliveries))

    start(app, step, Batching(10))
    for number in range(4):
        app.put(number, size=6)
    asyncio.run(run_for(app))
    assert batches == [[0, 1], [2, 3]]


def test_lingering_waits_for_more() -> None:
    app, batches = App(), []

    async def step(deliveries: list[Any]) -> None:
        batches.append(offsets(deliveries))

    async def feed() -> None:
        for number in range(3):
            app.put(number)
            await asyncio.sleep(0.01)

    async def both() -> None:
        await asyncio.gather(run_for(app, 0.4), feed())

    start(app, step, Batching(100, linger_s=0.2))
    asyncio.run(both())
    assert batches == [[0, 1, 2]]


@pytest.mark.parametrize(("size", "expected"), [(4, [[0], [1]]), (5, [[0, 1]])], ids=["live", "backlog"])
def test_a_twentieth_of_the_limit_is_a_backlog_and_waits_for_more(size: int, expected: list[list[int]]) -> None:
    app, batches = App(), []

    async def step(deliveries: list[Any]) -> None:
        batches.append(offsets(deliveries))
        if deliveries[0].offset == 0 and len(deliveries) == 1:
            app.put(1, size)

    async def feed() -> None:
        app.put(0, size)
        if size >= 5:  # a live delivery is a batch by itself, and the next one comes behind it
            await asyncio.sleep(0.02)
            app.put(1, size)

    async def both() -> None:
        await asyncio.gather(run_for(app, 0.8), feed())

    start(app, step, Batching(100, backlog_linger_s=0.2))
    asyncio.run(both())
    assert batches == expected


def test_what_a_step_holds_or_gives_up_is_not_finished() -> None:
    app = App()

    async def step(deliveries: list[Any]) -> list[Any]:
        if offsets(deliveries) == [9]:
            raise GivenUp
        return deliveries[1:2]

    start(app, step, Batching(3))
    for number in (1, 2, 3, 9):
        app.put(number)
    asyncio.run(run_for(app))
    assert app.consumer.finished == [1, 3]
    assert app.consumer.abandoned == [2, 9]


@pytest.mark.parametrize("stale", ["generation", "flow"])
def test_deliveries_of_lost_partitions_go_back_unseen(stale: str) -> None:
    app, batches = App(), []

    async def step(deliveries: list[Any]) -> None:
        batches.append(offsets(deliveries))

    start(app, step, Batching(100))
    app.put(1, generation=0 if stale == "generation" else 1)
    app.consumer.flow_active = stale != "flow"
    asyncio.run(run_for(app))
    assert batches == []
    assert app.consumer.abandoned == [1]


def test_idle_never_runs_beside_a_step() -> None:
    app, busy, seen = App(), [False], []

    async def step(deliveries: list[Any]) -> None:
        busy[0] = True
        await asyncio.sleep(0.05)
        busy[0] = False

    async def idle(now: float) -> None:
        seen.append(busy[0])

    start(app, step, Batching(1, idle_every_s=0.01), idle)
    for number in range(3):
        app.put(number)
    asyncio.run(run_for(app, 0.3))
    assert len(seen) > 5
    assert not any(seen)
