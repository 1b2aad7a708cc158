"""A worker's side of a consumer group: deliveries in offset order, commits of the finished prefix, rebalances, fences.

Stands in for Faust's app and consumer; production's serial loop and stages run on it unchanged.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from tests.simulation.broker import Broker
from tests.simulation.world import Process, World
from tollmeter.streams.continuity import losses_at_start


class Message:
    """One delivery: some records of one partition."""

    __slots__ = ("finished", "generation_id", "offset", "partition", "topic", "tp")

    def __init__(self, tp: TP, last: int, generation: int) -> None:
        self.tp, self.offset, self.generation_id = tp, last, generation
        self.topic, self.partition = tp.topic, tp.partition
        self.finished = False


class Stream:
    """What an agent reads: deliveries, one after the other."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, event: Any) -> None:
        self._waiting.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def clear(self) -> None:
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def noack(self) -> "Stream":
        return self

    def events(self) -> "Stream":
        return self

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Any:
        while not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._waiting.popleft()


class App:
    """As much of Faust's app as the stages use."""

    def __init__(self, process: Process, broker: Broker, group: str, source_topics: tuple[str, ...]) -> None:
        self.source_topics = source_topics
        self.should_stop = self.rebalancing = False
        self.consumer_generation_id = 0
        self.agents: list[Callable[[Any], Any]] = []
        self.start_positions: Any = None
        self.after_loss: Any = None
        self.consumer = Consumer(process, broker, group, self)
        process.consumer = self.consumer

    def topic(self, *names: str, **_: Any) -> object:
        return names

    def agent(self, _topic: object, name: str) -> Callable[[Any], None]:
        return self.agents.append

    def start(self, process: Process) -> None:
        process.loop.create_task(self.agents[0](self.consumer.stream))
        process.loop.create_task(self.consumer.fetch())


class Consumer:
    """`positions`: next offset to fetch; `done`: offset behind the last finished delivery."""

    def __init__(self, process: Process, broker: Broker, group: str, app: App) -> None:
        self._process, self._broker, self._group, self._app = process, broker, group, app
        self._world: World = process.world
        self.stream = Stream()
        self.flow_active = self.settled = False
        self.positions: dict[TP, int] = {}
        self.done: dict[TP, int] = {}
        self.halted: set[TP] = set()
        self._inflight: dict[TP, deque[Message]] = {}
        self._unfinished: set[Message] = set()
        self._idle: asyncio.Future[None] | None = None
        self._commit_due = False
        self._rebalance = asyncio.Lock()

    def assignment(self) -> set[TP]:
        return set(self.positions)

    def pause_partitions(self, tps: set[TP]) -> None:
        self.halted |= tps

    # deliveries ------------------------------------------------------------------------------------------------------

    def appended(self, tp: TP) -> None:
        """Be told by the broker that a partition has grown."""
        if self._idle is not None and tp in self.positions and not self._idle.done():
            self._idle.set_result(None)

    def wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def fetch(self) -> None:
        """Hand out what is there, partition by partition, each at a speed of its own."""
        rng = self._world.rng
        while True:
            waiting = self._waiting()
            if not waiting or len(self.stream) > 6:
                self._idle = asyncio.get_running_loop().create_future()
                if waiting:
                    await asyncio.sleep(0.2)
                else:
                    await self._idle
                continue
            tp = waiting[int(rng.random() * len(waiting))]
            records = self._broker.logs[tp].read(self.positions[tp], 1 + int(rng.random() * 6))
            self.positions[tp] = records[-1].offset + 1
            message = Message(tp, records[-1].offset, self._app.consumer_generation_id)
            self._inflight.setdefault(tp, deque()).append(message)
            self._unfinished.add(message)
            self.stream.put(SimpleNamespace(message=message, value=records))
            await asyncio.sleep(rng.choice((0, 0, 0, 0.05, 0.4)))

    def _waiting(self) -> list[TP]:
        if not self.flow_active:
            return []
        logs = self._broker.logs
        return [tp for tp, at in self.positions.items() if at < logs[tp].end and tp not in self.halted]

    def finish(self, message: Message) -> None:
        message.finished = True
        self._unfinished.discard(message)
        self.done[message.tp] = message.offset + 1
        if not self._commit_due:
            self._commit_due = True
            self._process.loop.call_later(self._world.rng.choice((0, 0.1, 1.0)), self._commit)

    def abandon(self, message: Message) -> None:
        self._unfinished.discard(message)

    def _commit(self) -> None:
        self._commit_due = False
        self._process.point()
        for tp, queue in self._inflight.items():
            offset = None
            while queue and queue[0].finished:
                offset = queue.popleft().offset + 1
            if offset is not None:
                self._broker.commit(self._group, self._app.consumer_generation_id, tp, offset)

    async def heads(self) -> set[TP]:
        """Return the partitions in which nothing waited when this was asked."""
        generation = self._app.consumer_generation_id
        ends = {tp: self._broker.end(tp) for tp in self.done if tp in self.positions}
        await asyncio.sleep(self._world.rng.choice((0, 0.3, 1.5)))
        self._process.point()
        if not self.flow_active or generation != self._app.consumer_generation_id:
            return set()
        return {tp for tp, end in ends.items() if self.done.get(tp, -1) >= end}

    # rebalances ------------------------------------------------------------------------------------------------------

    def revoke(self) -> None:
        """Stop: what waits goes back, what is under way ends or gives up."""
        self.flow_active = self.settled = False
        self._app.rebalancing = True

    async def assigned(self, generation: int, tps: set[TP]) -> None:
        """Take the partitions of a new generation and go to their positions; one rebalance after the other."""
        async with self._rebalance:
            if generation == self._broker.generation[self._group]:
                await self._assigned(generation, tps)

    async def _assigned(self, generation: int, tps: set[TP]) -> None:
        for _ in range(self._world.rng.choice((0, 5, 40))):  # a revoke waits for the pass under way, not for ever
            if not self._unfinished:
                break
            await asyncio.sleep(0.1)
        self._commit()
        self._app.consumer_generation_id = generation
        self._inflight.clear()
        self._unfinished.clear()
        self.stream.clear()
        self.halted.clear()
        self.positions = {}
        logs, committed = self._broker.logs, self._broker.committed[self._group]
        found = {tp: committed.get(tp, logs[tp].first) for tp in sorted(tps)}
        if self._app.start_positions is not None:
            found |= await self._app.start_positions(set(found))
            for loss in losses_at_start(
                found, {tp: logs[tp].first for tp in found}, {tp: logs[tp].end for tp in found}
            ):
                self._world.losses.append(loss)
                await self._app.after_loss(loss)
        if generation != self._broker.generation[self._group]:
            return
        self._process.point()
        self.positions = {tp: max(at, logs[tp].first) for tp, at in found.items()}
        self.done = dict(self.positions)
        self._app.rebalancing = False
        self.flow_active = self.settled = True
        self.wake()
