"""The same line, driven by Hypothesis: what it finds comes out as a short story of what happened."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.simulation.kernels import SOURCES
from tests.simulation.line import Line
from tests.simulation.mutants import CommitBeforeAck, CommitBeforeInsert
from tests.simulation.oracle import Oracle
from tests.simulation.rows import Event
from tests.simulation.run import NONE, settle
from tests.simulation.traffic import ORGS, Mix, Traffic
from tests.simulation.watcher import Watcher
from tests.simulation.world import Faults, World
from tollmeter.schemas import topics
from tollmeter.schemas.control import PolicySet
from tollmeter.schemas.policy import Policy

STAGES = st.sampled_from(("price", "ledger", "watch"))
SOURCE = st.integers(0, SOURCES - 1)
START = 1_795_168_800.0


class LineMachine(RuleBasedStateMachine):
    """Each rule is something that happens to the line; at the end faults stop and everything must agree."""

    make: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.line = Line(World(7, Faults(), START), self.make)
        self.watcher = Watcher(self.line)
        self.traffic = Traffic(self.line, Mix(), 0, 1.0)
        for group in self.line.groups.values():
            group.join()
        self.number = 0

    @rule(org=st.sampled_from(ORGS), units=st.integers(0, 9), source=SOURCE, behind=st.integers(0, 2))
    def produce(self, org: str, units: int, source: int, behind: int) -> None:
        """An event; `behind` dates it back: now, within the horizon, hours late."""
        self.number += 1
        at_us = int((self.line.world.wall() - (0, 300, 4_000)[behind]) * 1_000_000)
        event = Event(self.number, org, "u1", "k1", at_us, units)
        self.traffic.sent.append(event)
        self.line.broker.append(topics.EVENTS, source, None, event, [])

    @rule(which=st.integers(0, 10**6), source=SOURCE)
    def resend(self, which: int, source: int) -> None:
        if self.traffic.sent:
            event = self.traffic.sent[which % len(self.traffic.sent)]
            self.line.broker.append(topics.EVENTS, source, None, event, [])

    @rule(source=SOURCE)
    def produce_garbage(self, source: int) -> None:
        self.line.broker.append(topics.EVENTS, source, None, None, [])

    @rule(org=st.sampled_from(ORGS), limit=st.sampled_from((5_000, 20_000)))
    def set_policy(self, org: str, limit: int) -> None:
        policy = Policy(org_id=org, daily_limit_micro=limit)
        self.traffic.changed.add(policy.policy_id)
        self.traffic._control(PolicySet(policy=policy), org)

    @rule(seconds=st.sampled_from((0.05, 0.5, 3.0)))
    def work(self, seconds: float) -> None:
        self.line.world.run(self.line.world.now + seconds)

    @rule(seconds=st.sampled_from((60, 1_200, 7_200)))
    def time_passes(self, seconds: int) -> None:
        self.line.world.jump(seconds)

    @rule(stage=STAGES)
    def kill9(self, stage: str) -> None:
        for process in list(self.line.world.processes):
            if process.name == stage:
                process.kill()

    @rule(stage=STAGES, seconds=st.sampled_from((1.0, 6.0)))
    def sigstop(self, stage: str, seconds: float) -> None:
        for process in self.line.world.processes:
            if process.name == stage and not process.paused:
                self.line.groups[stage].pause(process, seconds)

    @rule(stage=STAGES)
    def join(self, stage: str) -> None:
        if len(self.line.groups[stage].members) < 3:
            self.line.groups[stage].join()

    @rule(away=st.sampled_from((0.0, 0.5, 1.0)), lost=st.sampled_from((0.0, 0.5)))
    def clickhouse(self, away: float, lost: float) -> None:
        self.line.world.faults = Faults(store_away=away, store_lost=lost, refuse=self.line.world.faults.refuse)

    @rule(refuse=st.sampled_from((0.0, 0.3)))
    def broker(self, refuse: float) -> None:
        self.line.world.faults = Faults(refuse=refuse, store_away=self.line.world.faults.store_away)

    def teardown(self) -> None:
        world = self.line.world
        world.faults = NONE
        world.run(world.now + 12.0)
        settle(self.line)
        assert world.problems + self.watcher.problems + Oracle(self.line, self.traffic).problems() == []


BRIEF = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def test_the_line_survives_any_story() -> None:
    run_state_machine_as_test(LineMachine, settings=BRIEF)


@pytest.mark.parametrize("make", [{"Ledger": CommitBeforeInsert}, {"Price": CommitBeforeAck}], ids=["ledger", "price"])
def test_a_broken_line_does_not(make: dict[str, Callable[..., Any]]) -> None:
    broken = type("Broken", (LineMachine,), {"make": make})
    search = settings(BRIEF, max_examples=1000, derandomize=True, phases=[Phase.generate])
    with pytest.raises(AssertionError, match="I6"):
        run_state_machine_as_test(broken, settings=search)
