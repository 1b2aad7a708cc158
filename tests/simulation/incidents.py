"""What befalls whole logs: made anew, cut by retention, given one partition more, written to by a newer release.

A seed draws one of them at most. What an operator deletes before it was read is lost: the oracle is told which events
may be, and holds everything else to the truth, and what is lost to be declared.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faust.types import TP

from tests.simulation import fold
from tests.simulation.broker import Log
from tests.simulation.kernels import SETTINGS, TARGETS
from tests.simulation.line import GROUPS, PARTITIONS, Line
from tests.simulation.member import LOOK_AGAIN_S
from tests.simulation.rows import Event, Rows
from tollmeter.schemas import envelope, topics
from tollmeter.schemas.control import PolicySet
from tollmeter.schemas.envelope import control_record
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.priced import FORMAT_VERSION, H_FORMAT

KINDS = ("source renewed", "priced renewed", "retention", "count", "newer")
SHARE = 0.4
"""So many seeds have an incident."""
LATEST_S = 9.0
"""An incident that cannot begin by then does not: all of it belongs to the first part of a run."""
RETENTION_S = SETTINGS.horizon_s + 900
"""Longer than ids are remembered, with the clocks of brokers that differ: as retention must be."""
STAGE = {topics.EVENTS: ("price",), topics.PRICED: ("ledger", "watch")}
NOTHING = '{"applied": -1}'
Identity = tuple[int, str, str]


@dataclass
class Incident:
    """One seed's incident; `kind` is "" for none, `topic` what it concerns."""

    line: Line
    kind: str
    topic: str
    rng: random.Random
    lost: set[Identity] = field(default_factory=set)
    """Events that nobody had stored when their record was deleted: they may be missing."""
    problems: list[str] = field(default_factory=list)
    upgraded: list[tuple[Any, int]] = field(default_factory=list)
    """Modules that know the newer format by now, with what they knew before."""

    def schedule(self, until: float) -> None:
        """Put it on the agenda, in the first part of the run."""
        if not self.kind:
            return
        if self.priced_lost:  # a checkpoint that is cut inside one insert is completed from the log, and that may go
            self.line.world.faults.store_half = 0.0
        start: dict[str, Callable[[], None]] = {
            "source renewed": self._renew,
            "priced renewed": self._renew,
            "retention": self._age,
            "count": self._grow,
            "newer": self._write_newer,
        }
        self.line.world.at(2.0 + self.rng.random() * (until - 8.0), lambda: self._begin(start[self.kind]))

    def _begin(self, what: Callable[[], None]) -> None:
        """Begin, but not before WATCH has a checkpoint: a first one that was cut is completed from the log alone."""
        if not self.priced_lost or len(self.line.store.progress) >= TARGETS:
            what()
        elif self.line.world.now < LATEST_S:
            self.line.world.after(1.0, lambda: self._begin(what))
        else:
            self.kind = ""

    # made anew -------------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Somebody deletes the topic and makes it again, whoever reads or writes just then."""
        for log in self.line.broker.of(self.topic):
            self._note_lost(log, log.end)
        self.line.broker.recreate(self.topic, PARTITIONS[self.topic])
        self._metadata()

    def _metadata(self) -> None:
        """Some groups hear of it sooner than others."""
        for name in GROUPS:
            if self.topic in GROUPS[name]:
                self.line.world.after(self.rng.choice((0.0, 0.5, 3.0)), self.line.groups[name].rebalance)

    def _note_lost(self, log: Log, end: int) -> None:
        """Remember what nobody had read below an offset that is about to go."""
        for stage in STAGE[log.tp.topic]:
            if stage != "watch":
                at = self.line.broker.committed[stage].get(log.tp, 0)
                for record in log.read(at, max(0, end - max(at, log.first))):
                    self.lost |= identities(record.value)

    # retention -------------------------------------------------------------------------------------------------------

    def _age(self) -> None:
        """A stage is away for longer than records are kept."""
        world = self.line.world
        away = self.rng.choice((0.0, 1.5, 4.0))
        stage = self.rng.choice(STAGE[self.topic])
        if away:
            self.line.groups[stage].stop(away)
        world.after(away * 0.3, lambda: world.jump(self.rng.choice((1, 2, 3)) * RETENTION_S))
        world.after(away * 0.9, self._delete_old)

    def _delete_old(self) -> None:
        until_ms = self.line.world.wall_ms() - RETENTION_S * 1000
        for log in self.line.broker.of(self.topic):
            self._note_lost(log, log.first + sum(record.timestamp < until_ms for record in log.records))
            log.delete_older(until_ms)

    # partition counts ------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Somebody adds a partition; a while later an operator makes the topic again as it was laid out."""
        self.line.broker.grow(self.topic)
        self._metadata()
        self.line.world.after(self.rng.choice((3.0, 5.0)) + 2 * LOOK_AGAIN_S, self._mend)

    def _mend(self) -> None:
        """By now whoever reads the topic has stopped, with the reason."""
        for process in self.line.world.processes:
            consumer = process.consumer
            if self.topic in GROUPS[process.name] and consumer.settled and not process.paused:
                reads_on = {tp for tp in consumer.assignment() if tp not in consumer.held}
                since = max(consumer.settled_at, process.woke_at)
                if reads_on and since < self.line.world.now - 2 * LOOK_AGAIN_S:
                    self.problems.append(f"count: {process.name} reads {min(reads_on)} on")
        self._renew()

    # a newer release -------------------------------------------------------------------------------------------------

    def _write_newer(self) -> None:
        """Somebody upgrades the writers first: readers stop there until they are upgraded, too."""
        policy = Policy(org_id="acme", scope="model", name="newer", daily_limit_micro=1_000)
        value, headers = control_record(PolicySet(policy=policy))
        newer = [(name, b"%d" % (FORMAT_VERSION + 1) if name == H_FORMAT else text) for name, text in headers]
        partition = topics.org_partition(policy.org_id, TARGETS)
        record = self.line.broker.append(topics.PRICED, partition, None, value, newer)
        tp = TP(topics.PRICED, partition)
        self.line.world.after(self.rng.choice((2.0, 4.0)), lambda: self._upgrade(tp, record.offset))

    def _upgrade(self, tp: TP, offset: int) -> None:
        """Nobody has passed what he could not read; now all readers are replaced."""
        if self.line.broker.committed["ledger"].get(tp, 0) > offset:
            self.problems.append(f"newer: LEDGER has passed offset {offset} of {tp.partition}")
        if json.loads(self.line.store.progress.get(tp.partition, (0, NOTHING))[1])["applied"] >= offset:
            self.problems.append(f"newer: the checkpoint of {tp.partition} has passed offset {offset}")
        for module in (envelope, fold):
            self.upgraded.append((module, module.NEWEST_KNOWN))
            module.NEWEST_KNOWN = FORMAT_VERSION + 1
        for process in list(self.line.world.processes):
            if process.name != "price":
                process.kill()

    def close(self) -> None:
        """Take the upgrade back: the next seed begins without."""
        for module, version in self.upgraded:
            module.NEWEST_KNOWN = version
        self.upgraded.clear()

    # what the oracle asks --------------------------------------------------------------------------------------------

    @property
    def priced_lost(self) -> bool:
        """Tell whether records of usage.priced may be gone: then what was folded is no function of one log."""
        return self.topic == topics.PRICED and self.kind in ("priced renewed", "retention", "count")

    @property
    def ids_forgotten(self) -> bool:
        """Tell whether WATCH forgets which events it has counted: one dated far ahead may then count in two hours."""
        return self.priced_lost

    @property
    def declared(self) -> str:
        """The kind of loss that must be declared when an event is missing, "" for none."""
        return {"retention": "gap", "": "", "newer": ""}.get(self.kind, "new_epoch")


def identities(value: Any) -> set[Identity]:
    """Return the events that a record holds; those that ClickHouse refuses are never stored."""
    found = [value] if isinstance(value, Event) else value if isinstance(value, Rows) else []
    return {one.identity for one in found if not one.poison}


def draw(line: Line, seed: int, kind: str | None = None) -> Incident:
    """Return the incident of a seed, or one of a kind; drawn apart, so that the rest of the run is as without."""
    rng = random.Random(f"{seed} incident")
    if kind is None:
        kind = rng.choice(KINDS) if rng.random() < SHARE else ""
    topic = {
        "source renewed": topics.EVENTS,
        "priced renewed": topics.PRICED,
        "newer": topics.PRICED,
    }.get(kind, rng.choice((topics.EVENTS, topics.PRICED)) if kind else "")
    return Incident(line, kind, topic, rng)
