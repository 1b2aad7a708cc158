"""A start is given up when nothing moves, or at its limit; a slow machine is neither."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tollmeter.embedded.patience import STILL_S, Patience, demand_s


def given_up_at(limit_s: float, share: float, steps: tuple[float, ...] = ()) -> tuple[float, str]:
    """Return when a start is given up whose processes want this share of a processor, and why."""
    patience, now = Patience(limit_s, 0.0), 0.0
    while True:
        now += 1.0
        if why := patience.look(now, share * now, sum(now >= step for step in steps)):
            return now, why


@pytest.mark.parametrize(
    ("share", "steps", "at", "why"),
    [
        (2.0, (), 901.0, "TOLLMETER_START_LIMIT_S"),
        (0.2, (), 901.0, "TOLLMETER_START_LIMIT_S"),
        (0.02, (), 62.0, "nothing has moved"),
        (0.0, (), 62.0, "nothing has moved"),
        (0.0, (30.0, 80.0), 141.0, "nothing has moved"),
    ],
    ids=["busy", "starved", "idle", "hung", "slow steps"],
)
def test_it_waits_while_something_moves(share: float, steps: tuple[float, ...], at: float, why: str) -> None:
    ended, text = given_up_at(900.0, share, steps)
    assert (ended, why in text) == (at, True)


def test_where_the_system_does_not_say_there_is_the_limit() -> None:
    patience = Patience(900.0, 0.0)
    assert not any(patience.look(now, None, 0) for now in range(0, 900, 10))
    assert "900 s" in patience.look(901.0, None, 0)


def test_a_process_that_ended_is_a_step() -> None:
    patience = Patience(900.0, 0.0)
    assert patience.look(1.0, 50.0, 0) == ""
    assert patience.look(STILL_S + 0.5, 3.0, 0) == ""
    assert patience.look(2 * STILL_S, 3.0, 0) == ""


def test_it_says_so_now_and_then() -> None:
    patience = Patience(900.0, 0.0)
    assert [now for now in range(1, 31) if patience.should_say(now)] == [10, 20, 30]
    assert patience.waited_s(30.0) == 30.0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel says so on Linux alone")
def test_a_process_that_gets_no_processor_wants_one(eventually: Callable[..., Any]) -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        began, before = time.monotonic(), demand_s([busy.pid])
        assert before is not None
        eventually(lambda: (demand_s([busy.pid]) or 0.0) - before > 0.5)
        waited = time.monotonic() - began
        assert (demand_s([busy.pid]) or 0.0) - before > 0.5 * waited, "used or waited for: it is one and the same"
        eventually(lambda: _grows_by(idle.pid) < 0.05)
    finally:
        for process in (busy, idle):
            process.kill()
            process.wait()


def _grows_by(pid: int) -> float:
    before = demand_s([pid]) or 0.0
    time.sleep(0.5)
    return (demand_s([pid]) or 0.0) - before
