"""Single stories that a swarm does not tell: a record of a newer format, and a log that retention has shortened."""

import asyncio
from typing import Any

import pytest
from faust.types import TP

from tests.simulation import fold
from tests.simulation.group import Group
from tests.simulation.kernels import SETTINGS, SOURCES, TARGETS
from tests.simulation.line import Line
from tests.simulation.oracle import Oracle
from tests.simulation.row_state import RowState, snapshot
from tests.simulation.rows import Event
from tests.simulation.run import settle
from tests.simulation.traffic import ORGS, Mix, Traffic
from tests.simulation.watcher import Watcher
from tests.simulation.world import Faults, World
from tollmeter.schemas import envelope, topics
from tollmeter.schemas.priced import FORMAT_VERSION, H_FORMAT, H_KIND
from tollmeter.sinks.clickhouse.client import Unavailable
from tollmeter.streams.watch.stage import Saving

START = 1_795_168_800.0


class Story:
    """A line with one worker per stage and no faults."""

    def __init__(self, *, columns: bool = False) -> None:
        self.line = Line(World(3, Faults(), START), columns=columns)
        self.watcher = Watcher(self.line)
        self.traffic = Traffic(self.line, Mix(), 0, 1.0)
        for group in self.line.groups.values():
            group.join()
        self.number = 0

    def produce(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            at_us = int(self.line.world.wall() * 1_000_000)
            event = Event(self.number, ORGS[self.number % 3], "u1", "k1", at_us, 2)
            self.line.broker.append(topics.EVENTS, self.number % 2, None, event, [])

    def work(self, seconds: float) -> None:
        self.line.world.run(self.line.world.now + seconds)

    def stored(self) -> int:
        return len(self.line.store.events)

    def problems(self) -> list[str]:
        return self.line.world.problems + self.watcher.problems + Oracle(self.line, self.traffic).problems()


def test_a_newer_format_stops_its_partition_until_the_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story()
    story.produce(12)
    story.work(5.0)
    assert story.stored() == 12
    tp = TP(topics.PRICED, topics.org_partition(ORGS[0], TARGETS))
    newer: list[tuple[str, Any]] = [(H_FORMAT, str(FORMAT_VERSION + 1).encode()), (H_KIND, b"tick")]
    at = story.line.broker.append(topics.PRICED, tp.partition, None, b'{"clocks":{}}', newer).offset
    story.produce(12)
    story.work(5.0)
    broker = story.line.broker
    assert broker.committed["ledger"][tp] <= at, "LEDGER has passed what it cannot read"
    states = [state for watch in story.line.watches.values() for state in watch._states.values()]
    halted = next(state for state in states if state.partition == tp.partition)
    assert halted.applied < at, "WATCH has passed what it cannot read"
    behind = {org for org in ORGS if topics.org_partition(org, TARGETS) != tp.partition}
    elsewhere = [row for row in story.line.store.events.values() if row.org in behind]
    assert len(elsewhere) == 8 * len(behind), "the other partitions go on"

    for module in (envelope, fold):
        monkeypatch.setattr(module, "NEWEST_KNOWN", FORMAT_VERSION + 1)
    for process in list(story.line.world.processes):
        if process.name != "price":
            process.kill()
    story.work(8.0)
    settle(story.line)
    assert story.stored() == 24
    assert story.problems() == []


def test_what_retention_deletes_before_watch_reads_it_is_declared_and_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(columns=True)
    story.produce(12)
    story.work(4.0)
    monkeypatch.setattr(Group, "_replace", lambda self: None)
    next(process for process in story.line.world.processes if process.name == "watch").kill()
    story.produce(12)
    story.work(4.0)
    assert story.stored() == 24
    for log in story.line.broker.of(topics.PRICED):
        log.delete_before(log.end - 1)
    story.line.groups["watch"].join()
    story.work(4.0)
    losses = story.line.world.losses
    assert {(loss.kind, loss.tp.partition) for loss in losses} == {("gap", 0), ("gap", 1)}
    settle(story.line)
    oracle = Oracle(story.line, story.traffic)
    assert [*oracle._converged(), *oracle._ledger(), *oracle._windows()] == []


def test_a_checkpoint_that_fails_is_given_back_to_the_state_it_is_of() -> None:
    """Its partition may have left and come back meanwhile: what it held is folded again then, not added."""
    story = Story()
    story.produce(12)
    story.work(4.0)
    (watch,) = story.line.watches.values()
    (number, present), *_ = watch._states.items()
    former = RowState(number, SOURCES, SETTINGS.horizon_s)
    former.cell(("day", 1, "acme", "org", "")).calls = 3
    former.cell(("day", 1, "acme", "org", "")).dirty = True
    taken = snapshot(former)
    failed: Any = asyncio.Future(loop=next(iter(story.line.watches)).loop)
    failed.set_exception(Unavailable("away"))
    known = set(present.cells)
    watch._settle(number, Saving(former, taken, failed))
    assert set(present.cells) == known
    watch._states[number] = former
    watch._settle(number, Saving(former, taken, failed))
    assert [key for key, *_ in snapshot(former).cells] == [("day", 1, "acme", "org", "")]
