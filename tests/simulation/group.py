"""A consumer group: who owns what, a new generation whenever somebody comes, goes, or is silent for too long."""

from collections.abc import Callable

from faust.types import TP

from tests.simulation.broker import Broker
from tests.simulation.world import Process, World

SESSION_S = 4.0
MOST = 3


class Group:
    """The workers of one stage. `start` makes a new worker; a dead one is replaced after a while."""

    def __init__(self, world: World, broker: Broker, name: str, topics: tuple[str, ...], start: Callable[..., Process]):
        self._world, self._broker, self.name, self._start = world, broker, name, start
        self.topics = topics
        self.members: list[Process] = []
        self._down_until = 0.0

    def join(self) -> None:
        """Start one more worker."""
        member = self._start(self)
        self.members.append(member)
        self.rebalance()

    def died(self, process: Process) -> None:
        """A worker is gone: its partitions wait for the session timeout or for the one that takes its place."""
        rng = self._world.rng
        self._world.after(rng.choice((0.2, SESSION_S)), lambda: self.leave(process))
        self._world.after(rng.choice((0.1, 1.0, 3.0)), self._replace)

    def stop(self, seconds: float) -> None:
        """End all workers; nobody takes their place for a while."""
        self._down_until = self._world.now + seconds
        for process in [member for member in self.members if not member.dead]:
            process.kill()

    def _replace(self) -> None:
        if self._world.now < self._down_until:
            self._world.at(self._down_until, self._replace)
        elif sum(not member.dead for member in self.members) < MOST:
            self.join()

    def leave(self, process: Process) -> None:
        if process in self.members:
            self.members.remove(process)
            self.rebalance()

    def pause(self, process: Process, seconds: float) -> None:
        """Stop a worker for a while; beyond the session timeout it is a zombie when it wakes."""
        process.paused = True
        if seconds > SESSION_S:
            self._world.after(SESSION_S, lambda: self.leave(process))
        self._world.after(seconds, lambda: self._wake(process))

    def _wake(self, process: Process) -> None:
        process.paused, process.woke_at = False, self._world.now
        if process.dead:
            return
        process.loop.wake(self._world.now)
        if process not in self.members:  # it goes on as if it owned its partitions, until its next heartbeat
            self._world.after(self._world.rng.choice((0.0, 0.3, 2.0)), lambda: self._rejoin(process))

    def _rejoin(self, process: Process) -> None:
        if not process.dead and process not in self.members:
            self.members.append(process)
            self.rebalance()

    def rebalance(self) -> None:
        """Begin a new generation: those that can hear it stop first, then each gets its share."""
        self._broker.generation[self.name] += 1
        generation = self._broker.generation[self.name]
        alive = [member for member in self.members if not member.dead]
        tps = [tp for tp in sorted(self._broker.logs) if tp.topic in self.topics]
        for number, member in enumerate(alive):
            share = {tp for at, tp in enumerate(tps) if at % len(alive) == number}
            if not member.paused:
                self._hand_over(member, generation, share)
            else:
                self._world.after(0.5, lambda member=member: self._missed(member, generation))

    def _hand_over(self, member: Process, generation: int, share: set[TP]) -> None:
        member.consumer.revoke()
        member.loop.call_soon(lambda: member.loop.create_task(member.consumer.assigned(generation, share)))

    def _missed(self, member: Process, generation: int) -> None:
        """Somebody slept through a rebalance: the group asks again."""
        if member.dead or member not in self.members or generation != self._broker.generation[self.name]:
            return
        if member.paused:
            self._world.after(0.5, lambda: self._missed(member, generation))
        else:
            self.rebalance()
