"""A stage's serial loop without a broker: what waits is one batch, acks follow the step, what is lost goes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tollmeter.streams.engine.loop import BatchLoop, GivenUp


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
        self.should_stop = False
        self.source_topics = ("usage.events",)
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.agents: list[Callable[[Any], Awaitable[None]]] = []

    def topic(self, *names: str, **_: Any) -> object:
        return names

    def agent(self, _topic: object, name: str) -> Callable[[Any], None]:
        return self.agents.append

    def put(self, offset: int, size: int = 1, generation: int = 1) -> None:
        message = SimpleNamespace(offset=offset, generation_id=generation)
        self.queue.put_nowait(SimpleNamespace(value=[offset] * size, message=message))

    def noack(self) -> "App":
        return self

    async def events(self) -> AsyncIterator[Any]:
        while True:
            await asyncio.sleep(0)
            yield await self.queue.get()


def offsets(events: list[Any]) -> list[int]:
    return [event.message.offset for event in events]


async def run_for(app: App, seconds: float = 0.15) -> None:
    """Run the agent of the app for a moment: the loop has no end of its own."""
    task = asyncio.ensure_future(app.agents[0](app))
    await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception():
        raise task.exception()  # type: ignore[misc]


def test_what_arrives_during_a_pass_is_the_next_pass() -> None:
    app, passes = App(), []

    async def step(events: list[Any]) -> None:
        passes.append(offsets(events))
        if len(passes) == 1:
            for number in (2, 3, 4):
                app.put(number)
            await asyncio.sleep(0.02)

    BatchLoop(app, step, limit=100)  # type: ignore[arg-type]  # a stand-in without Faust
    app.put(1)
    asyncio.run(run_for(app))
    assert passes == [[1], [2, 3, 4]]
    assert app.consumer.finished == [1, 2, 3, 4]


def test_a_pass_is_bounded_by_weight() -> None:
    app, passes = App(), []

    async def step(events: list[Any]) -> None:
        passes.append(offsets(events))

    BatchLoop(app, step, limit=10)  # type: ignore[arg-type]
    for number in range(4):
        app.put(number, size=6)
    asyncio.run(run_for(app))
    assert passes == [[0, 1], [2, 3]]


def test_lingering_waits_for_more() -> None:
    app, passes = App(), []

    async def step(events: list[Any]) -> None:
        passes.append(offsets(events))

    async def feed() -> None:
        for number in range(3):
            app.put(number)
            await asyncio.sleep(0.01)

    async def both() -> None:
        await asyncio.gather(run_for(app, 0.4), feed())

    BatchLoop(app, step, limit=100, linger_s=0.2)  # type: ignore[arg-type]
    asyncio.run(both())
    assert passes == [[0, 1, 2]]


def test_what_a_step_holds_or_gives_up_is_not_finished() -> None:
    app = App()

    async def step(events: list[Any]) -> list[Any]:
        if offsets(events) == [9]:
            raise GivenUp
        return events[1:2]

    BatchLoop(app, step, limit=3)  # type: ignore[arg-type]
    for number in (1, 2, 3, 9):
        app.put(number)
    asyncio.run(run_for(app))
    assert app.consumer.finished == [1, 3]
    assert app.consumer.abandoned == [2, 9]


@pytest.mark.parametrize("stale", ["generation", "flow"])
def test_events_of_lost_partitions_go_back_unseen(stale: str) -> None:
    app, passes = App(), []

    async def step(events: list[Any]) -> None:
        passes.append(offsets(events))

    BatchLoop(app, step, limit=100)  # type: ignore[arg-type]
    app.put(1, generation=0 if stale == "generation" else 1)
    app.consumer.flow_active = stale != "flow"
    asyncio.run(run_for(app))
    assert passes == []
    assert app.consumer.abandoned == [1]


def test_idle_never_runs_beside_a_step() -> None:
    app, busy, seen = App(), [False], []

    async def step(events: list[Any]) -> None:
        busy[0] = True
        await asyncio.sleep(0.05)
        busy[0] = False

    async def idle(now: float) -> None:
        seen.append(busy[0])

    BatchLoop(app, step, limit=1, idle=idle, idle_every_s=0.01)  # type: ignore[arg-type]
    for number in range(3):
        app.put(number)
    asyncio.run(run_for(app, 0.3))
    assert len(seen) > 5
    assert not any(seen)
