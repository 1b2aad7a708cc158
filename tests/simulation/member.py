"""A worker's side of a consumer group: deliveries in offset order, commits of the finished prefix, rebalances, fences.

Stands in for Faust's app and consumer; production's serial loop, stages and incidents of logs run on it unchanged.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from tests.simulation.broker import Broker
from tests.simulation.world import Process, Refused, World
from tollmeter.streams.engine.app import StageApp
from tollmeter.streams.engine.consumer import AccountableConsumer
from tollmeter.streams.engine.gaps import Loss, with_log
from tollmeter.streams.engine.health import Health
from tollmeter.streams.engine.incidents import Incidents

LOOK_AGAIN_S = 2.0


class Message:
    """One delivery: some records of one partition."""

    __slots__ = ("finished", "generation_id", "offset", "partition", "topic", "tp", "value")

    def __init__(self, tp: TP, records: list[Any], generation: int) -> None:
        self.tp, self.offset, self.generation_id, self.value = tp, records[-1].offset, generation, records
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
    """As much of Faust's app as the stages use; what it does about a log that is not as expected is production's."""

    incidents: Incidents
    declare = StageApp.on_loss
    stop_reading = StageApp.stop_reading
    before_reading = StageApp.before_reading
    _go_on_behind_what_is_passed_over = StageApp._go_on_behind_what_is_passed_over
    miscounted = StageApp.miscounted

    def __init__(self, process: Process, broker: Broker, group: str, source_topics: tuple[str, ...]) -> None:
        self.source_topics = source_topics
        self.should_stop = self.rebalancing = False
        self.consumer_generation_id = 0
        self.agents: list[Callable[[Any], Any]] = []
        self.stopped_at: dict[Any, int] = {}
        self.stage: Any = None
        self.health = Health(group, lambda: None)
        self.give_up = process.crash
        self.consumer = Consumer(process, broker, group, self)
        process.consumer = self.consumer

    async def on_loss(self, loss: Loss, running: bool) -> None:
        self.consumer.losses.append(loss)
        await self.declare(loss, running)  # type: ignore[misc]  # of an app of Faust's there

    async def passed(self) -> frozenset[Any]:
        """Nobody passes over anything here."""
        return frozenset()

    def topic(self, *names: str, **_: Any) -> object:
        return names

    def agent(self, _topic: object, name: str) -> Callable[[Any], None]:
        return self.agents.append

    def start(self, process: Process) -> None:
        process.loop.create_task(self.agents[0](self.consumer.stream))
        process.loop.create_task(self.consumer.ending(self.consumer.fetch))
        process.loop.create_task(self.consumer.ending(self.consumer.look_again))


class Consumer:
    """`positions`: next offset to fetch; `_done`: offset behind the last finished delivery.

    How it accounts for jumps in its logs is production's.
    """

    hold = AccountableConsumer.hold
    let_go = AccountableConsumer.let_go
    check_delivery = AccountableConsumer.check_delivery
    check_positions = AccountableConsumer.check_positions
    leave_other_logs = AccountableConsumer.leave_other_logs
    _declare = AccountableConsumer._declare

    def __init__(self, process: Process, broker: Broker, group: str, app: App) -> None:
        self._process, self._broker, self._group, self.app = process, broker, group, app
        self._world: World = process.world
        self.stream = Stream()
        self.flow_active = self.settled = False
        self.positions: dict[TP, int] = {}
        self._done: dict[TP, int] = {}
        self._next: dict[TP, int] = {}
        self._committed_offset: dict[TP, int | None] = defaultdict(lambda: None)
        self.held: dict[TP, str] = {}
        self.losses = process.world.losses
        self._inflight: dict[TP, deque[Message]] = {}
        self._unfinished: set[Message] = set()
        self.settled_at = 0.0
        self._idle: asyncio.Future[None] | None = None
        self._commit_due = False
        self._rebalance = asyncio.Lock()

    def assignment(self) -> set[TP]:
        return set(self.positions)

    def pause_partitions(self, tps: set[TP]) -> None:
        """Do nothing more: `hold` names them."""

    def resume_partitions(self, _tps: set[TP]) -> None:
        self.wake()

    async def ending(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a part of the consumer; its error ends the process."""
        try:
            await work()
        except Exception as error:
            if not self._process.dead:
                self._process.crash(error)

    async def look_again(self) -> None:
        """Ask from time to time whether topics are still what they were."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            if self.settled:
                await self.app.before_reading(self.assignment())  # type: ignore[misc]

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
            log, at = self._broker.logs[tp], self.positions[tp]
            if not log.first <= at <= log.end:  # out of range: the client goes to the log's start, and says nothing
                at = log.first
            records = log.read(at, 1 + int(rng.random() * 6))
            self.positions[tp] = at + len(records)
            if not records:
                continue
            message = Message(tp, records, self.app.consumer_generation_id)
            await self.check_delivery(message)  # type: ignore[misc,arg-type]
            if message.generation_id != self.app.consumer_generation_id or not self.flow_active:
                continue
            self._inflight.setdefault(tp, deque()).append(message)
            self._unfinished.add(message)
            self.stream.put(SimpleNamespace(message=message, value=records))
            await asyncio.sleep(rng.choice((0, 0, 0, 0.05, 0.4)))

    def _waiting(self) -> list[TP]:
        if not self.flow_active:
            return []
        logs = self._broker.logs
        ours = [(tp, at, logs[tp]) for tp, at in self.positions.items() if tp in logs and tp not in self.held]
        return [tp for tp, at, log in ours if at < log.end or at > log.end]

    def finish(self, message: Message) -> None:
        message.finished = True
        self._unfinished.discard(message)
        if message.generation_id == self.app.consumer_generation_id:
            self._done[message.tp] = message.offset + 1
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
                note = with_log(self.app.incidents.id_of(tp.topic), "")
                self._broker.commit(self._group, self.app.consumer_generation_id, tp, offset, note)

    async def heads(self) -> set[TP]:
        """Return the partitions in which nothing waited when this was asked."""
        generation = self.app.consumer_generation_id
        ends = {tp: self._broker.end(tp) for tp in self._done if tp in self.positions and tp in self._broker.logs}
        await asyncio.sleep(self._world.rng.choice((0, 0.3, 1.5)))
        self._process.point()
        if not self.flow_active or generation != self.app.consumer_generation_id:
            return set()
        return {tp for tp, end in ends.items() if self._done.get(tp, -1) >= end}

    # rebalances ------------------------------------------------------------------------------------------------------

    def revoke(self) -> None:
        """Stop: what waits goes back, what is under way ends or gives up."""
        self.flow_active = self.settled = False
        self.app.rebalancing = True

    async def assigned(self, generation: int, tps: set[TP]) -> None:
        """Take the partitions of a new generation and go to their positions; one rebalance after the other."""
        async with self._rebalance:
            if generation == self._broker.generation[self._group]:
                await self.ending(partial(self._assigned, generation, tps))

    async def _assigned(self, generation: int, tps: set[TP]) -> None:
        for _ in range(self._world.rng.choice((0, 5, 40))):  # a revoke waits for the batch under way, not for ever
            if not self._unfinished:
                break
            await asyncio.sleep(0.1)
        self._commit()
        self.app.consumer_generation_id = generation
        self._inflight.clear()
        self._unfinished.clear()
        self.stream.clear()
        self.held.clear()
        self.positions = {}
        self._done = await self._seek({tp for tp in tps if tp in self._broker.logs})
        await self.check_positions()  # type: ignore[misc]
        if generation != self._broker.generation[self._group]:
            return
        self._process.point()
        self.positions = dict(self._done)
        self.app.rebalancing = False
        self.flow_active = self.settled = True
        self.settled_at = self._world.now
        self.wake()

    async def _seek(self, tps: set[TP]) -> dict[TP, int]:
        """Return where to begin: committed offsets, unless another log is meant; then the positions of the stage."""
        committed = self._broker.committed[self._group]
        found = {tp: committed.get(tp, 0) for tp in sorted(tps)}
        if not self.app.stage.own_position:
            notes = {tp: (committed[tp], self._broker.notes[self._group, tp]) for tp in found if tp in committed}
            found |= await self.leave_other_logs(notes)  # type: ignore[misc]
        return found | dict(await self.app.stage.assigned(set(found)))

    async def seek_wait(self, positions: dict[TP, int]) -> None:
        """Do nothing more: positions are taken over when all are known."""

    async def _bounds(self, tps: Iterable[TP]) -> tuple[dict[TP, int], dict[TP, int]]:
        logs = self._broker.logs
        if any(tp not in logs for tp in tps):
            raise Refused("no such partition")
        return {tp: logs[tp].first for tp in tps}, {tp: logs[tp].end for tp in tps}
