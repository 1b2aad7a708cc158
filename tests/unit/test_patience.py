"""Deadlines of tests: a second of a busy machine counts in part, one of an idle machine whole, and all of them end."""

import time

import pytest

from tests import patience


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time now, for the test to move."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience, "share", lambda: 1.0)
    return now


def test_an_idle_machine_has_the_seconds_that_were_given(clock: list[float]) -> None:
    waiting = patience.Patience(2.0)
    clock[0] = 1.0
    assert not waiting.ended()
    clock[0] = 2.0
    assert waiting.ended()


def test_a_busy_machine_has_more(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "share", lambda: 0.25)
    waiting = patience.Patience(2.0)
    for _ in range(7):
        clock[0] += 1.0
        assert not waiting.ended()
    clock[0] += 1.0
    assert waiting.ended()


def test_a_suspended_machine_has_lost_nothing(clock: list[float]) -> None:
    waiting = patience.Patience(5.0)
    clock[0] = 3_600.0
    assert not waiting.ended()
    assert waiting.left_s == 4.0


@pytest.mark.parametrize(("running", "part"), [(0.0, 1.0), (1.0, 1.0), (4.0, 0.5), (30.0, 2 / 30)])
def test_the_share_of_a_core(running: float, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience.os, "sched_getaffinity", lambda number: {0, 1}, raising=False)
    monkeypatch.setattr(patience, "_runnable", lambda: running)
    assert patience.share() == pytest.approx(part)


def test_somebody_runs_now() -> None:
    assert patience._runnable() > 0
