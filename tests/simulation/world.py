"""Who runs when: one seeded scheduler over the loops of all processes, virtual time, and the agenda of faults.

A step is one callback of one process, so a process can be stopped between any two of its awaits; inside a step every
port is a point where it may be killed.
"""

import asyncio
import heapq
import random
from asyncio import events
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn

from tests.simulation.loop import Loop
from tollmeter.streams.engine.app import LogReplacedError
from tollmeter.streams.engine.gaps import Loss
from tollmeter.streams.engine.runtime import Runtime


class Killed(BaseException):
    """The process is gone: nothing of it may catch this."""


class Refused(Exception):  # noqa: N818  # an answer
    """The broker did not take a record, or its acknowledgement did not come."""


@dataclass(slots=True)
class Faults:
    """How often what goes wrong; all zero in the second half of a run."""

    kill: float = 0.0
    """A port call kills its process."""
    refuse: float = 0.0
    """A send fails for good without being written."""
    lost_ack: float = 0.0
    """A send fails for good although it was written."""
    slow_send: float = 0.0
    store_away: float = 0.0
    store_lost: float = 0.0
    """The answer of ClickHouse is lost after it has done what it was told."""
    store_half: float = 0.0
    """An insert is applied in part, then its answer is lost."""
    store_slow: float = 0.0
    pause: float = 0.0
    """Somebody is stopped, a second at most apart; shorter or longer than the session timeout."""
    rebalance: float = 0.0


class World:
    """Time, chance, and all that happens. `wall` may jump, `now` only moves on."""

    def __init__(self, seed: int, faults: Faults, start_wall: float) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.now = 0.0
        self._wall = start_wall
        self.processes: list[Process] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self.problems: list[str] = []
        self.losses: list[Loss] = []
        self.kills = self.steps = 0

    def time(self) -> float:
        return self.now

    def wall(self) -> float:
        return self._wall + self.now

    def wall_ms(self) -> int:
        return int(self.wall() * 1000)

    def jump(self, seconds: float) -> None:
        """Let the wall clocks of all machines move on."""
        self._wall += seconds

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a time, whoever lives then."""
        heapq.heappush(self._agenda, (when, next(self._numbers), action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def chance(self, probability: float) -> bool:
        return probability > 0.0 and self.rng.random() < probability

    def run(self, until: float) -> None:
        """Let everything happen up to a time."""
        random = self.rng.random
        try:
            while self.now < until:
                ready = [process for process in self.processes if process.loop.ready and not process.paused]
                if not ready:
                    if not self._advance(until):
                        return
                    continue
                process = ready[0] if len(ready) == 1 else ready[int(random() * len(ready))]
                with suppress(Killed):
                    self.steps += process.loop.run(1 + int(random() * 12))
        finally:
            events._set_running_loop(None)

    def _advance(self, until: float) -> bool:
        """Go to the next time at which anything happens."""
        times = [self._agenda[0][0]] if self._agenda else []
        for process in self.processes:
            if not process.paused:
                due = process.loop.next_time()
                if due is not None:
                    times.append(due)
        self.now = max(self.now, min([until, *times]))
        if self._agenda and self._agenda[0][0] <= self.now:
            events._set_running_loop(None)  # what befalls processes runs in none of them
            while self._agenda and self._agenda[0][0] <= self.now:
                heapq.heappop(self._agenda)[2]()
        for process in self.processes:
            if not process.paused:
                process.loop.wake(self.now)
        return bool(times)

    def problem(self, text: str) -> None:
        self.problems.append(text)


@dataclass(eq=False)
class Process:
    """One worker's process: its loop, and what can befall it."""

    world: World
    name: str
    on_end: Callable[["Process"], None]
    paused: bool = False
    woke_at: float = 0.0
    loop: Loop = field(init=False)
    consumer: Any = None

    def __post_init__(self) -> None:
        self.loop = Loop(self.world.time)
        self.world.processes.append(self)

    @property
    def dead(self) -> bool:
        return self.loop.dead

    def point(self) -> None:
        """A place where the process may be killed, or is already gone."""
        if self.dead:
            raise Killed
        if self.world.chance(self.world.faults.kill):
            self.kill()
            raise Killed

    def kill(self) -> None:
        """End the process at once, as kill -9 does."""
        if not self.dead:
            self.world.kills += 1
            self.world.processes.remove(self)
            self.loop.die()
            self.on_end(self)

    def crash(self, error: BaseException) -> NoReturn:
        """What the runtime's `crash` is here; an error that no fault explains is a finding."""
        if self.dead:
            raise Killed
        if not isinstance(error, Refused | LogReplacedError):
            self.world.problem(f"{self.name} crashed: {type(error).__name__}: {error}")
        self.kill()
        raise Killed

    def runtime(self) -> Runtime:
        """Return the runtime of this process."""
        rng = self.world.rng
        return Runtime(
            time=self.world.wall,
            monotonic=self.world.time,
            random=rng.random,
            new_id=lambda: f"{rng.getrandbits(48):012x}",
            blocking=self._blocking,
            crash=self.crash,
        )

    async def _blocking(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run work that takes a while; where it yields, others may come in between."""
        await asyncio.sleep(self.world.rng.choice((0, 0, 0.02, 0.3)) if not self.slow() else 4.0)
        self.point()
        steps = work(*args)
        if not hasattr(steps, "send"):
            self.point()
            return steps
        while True:
            try:
                next(steps)
            except StopIteration as done:
                self.point()
                return done.value
            await asyncio.sleep(self.world.rng.choice((0, 0, 0.3)))
            self.point()

    def slow(self) -> bool:
        return self.world.chance(self.world.faults.store_slow)
