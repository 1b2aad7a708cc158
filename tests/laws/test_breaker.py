"""The breaker against an oracle that keeps the whole history and judges it afresh at every question."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tollmeter.producers.fallback.breaker import PROBE_LEASE_S, Breaker, Rule, State, Ticket

RULE = Rule(failures=2, open_s=30.0)
ENTER = ("enter", None)
steps = st.sampled_from(
    [
        *(("wait", seconds) for seconds in (1.0, 29.0, 30.0, PROBE_LEASE_S)),
        *(ENTER,) * 8,
        *(("leave", (which, ok)) for which in range(3) for ok in (True, False, False, None)),
    ]
)
"""Calls come faster than their outcomes, and time passes rarely: results that come late are the hard case."""


@dataclass
class Oracle:
    """Everything that happened, as facts: ("enter", time, call, probe) and ("leave", time, call, ok)."""

    facts: list[tuple[str, float, int, Any]] = field(default_factory=list)

    def judge(self) -> tuple[float | None, set[int], int | None, float]:
        """Return when it opened last (None: closed), the calls that still matter, the probe in flight and its start."""
        opened: float | None = None
        mattering: set[int] = set()
        outcomes: list[bool] = []
        probe, probe_at = None, 0.0
        for kind, at, call, more in self.facts:
            if kind == "enter":
                if more:
                    probe, probe_at, mattering = call, at, {call}
                else:
                    mattering.add(call)
                continue
            if call not in mattering:
                continue
            mattering.discard(call)
            was_probe = call == probe
            if was_probe:
                probe = None
            if more is None:
                continue
            outcomes.append(more)
            in_a_row = next((n for n, ok in enumerate(reversed(outcomes)) if ok), len(outcomes))
            if was_probe or (not more and in_a_row >= RULE.failures):
                opened = None if more else at
                outcomes, mattering = [], set()
        return opened, mattering, probe, probe_at

    def admits(self, now: float) -> tuple[State, str]:
        opened, _, probe, probe_at = self.judge()
        if opened is None:
            return State.CLOSED, "pass"
        if now < opened + RULE.open_s:
            return State.OPEN, "no"
        return State.HALF_OPEN, "no" if probe is not None and now < probe_at + PROBE_LEASE_S else "probe"


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(steps, min_size=20, max_size=60))
def test_any_history(history: list[tuple[str, Any]]) -> None:
    breaker, oracle, now = Breaker(RULE), Oracle(), 1000.0
    tickets: list[Ticket] = []
    flying: list[int] = []
    for kind, what in history:
        if kind == "wait":
            now += what
        elif kind == "enter":
            ticket = breaker.enter(now)
            _, expected = oracle.admits(now)
            assert ("no" if ticket is None else "probe" if ticket.probe else "pass") == expected
            if ticket is not None:
                oracle.facts.append(("enter", now, len(tickets), ticket.probe))
                flying.append(len(tickets))
                tickets.append(ticket)
        elif flying:
            which, ok = what
            call = flying.pop(which % len(flying))
            breaker.leave(tickets[call], ok, now)
            oracle.facts.append(("leave", now, call, ok))
        assert breaker.state(now) is oracle.admits(now)[0]


def test_a_provider_that_fails_and_recovers() -> None:
    breaker, now = Breaker(RULE), 0.0
    for _ in range(2):
        ticket = breaker.enter(now)
        assert ticket is not None
        breaker.leave(ticket, False, now)
    assert (breaker.state(29.9), breaker.enter(29.9)) == (State.OPEN, None)
    probe = breaker.enter(30.0)
    assert probe is not None
    assert probe.probe
    assert breaker.enter(30.0) is None, "one call finds out, the others wait"
    breaker.leave(probe, True, 31.0)
    assert breaker.state(31.0) is State.CLOSED


def test_a_failed_probe_starts_the_pause_again() -> None:
    breaker = Breaker(Rule(failures=1, open_s=10.0))
    first = breaker.enter(0.0)
    assert first is not None
    breaker.leave(first, False, 0.0)
    probe = breaker.enter(10.0)
    assert probe is not None
    breaker.leave(probe, False, 12.0)
    assert [breaker.state(at) for at in (12.0, 21.9, 22.0)] == [State.OPEN, State.OPEN, State.HALF_OPEN]


def test_what_comes_late_decides_nothing() -> None:
    breaker = Breaker(RULE)
    early, first, second = (breaker.enter(0.0) for _ in range(3))
    assert early is not None
    assert first is not None
    assert second is not None
    breaker.leave(first, False, 1.0)
    breaker.leave(second, False, 2.0)
    breaker.leave(early, True, 3.0)
    assert breaker.state(31.9) is State.OPEN, "a call from before the failures shows nothing"
    lost = breaker.enter(32.0)
    assert lost is not None
    again = breaker.enter(32.0 + PROBE_LEASE_S)
    assert again is not None
    breaker.leave(lost, False, 333.0)
    assert breaker.state(333.0) is State.HALF_OPEN, "nor does a probe that was given up"
    breaker.leave(again, True, 334.0)
    assert breaker.state(334.0) is State.CLOSED
