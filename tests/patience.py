"""Deadlines that follow progress: beside other work a second counts only for the part of it that we could use.

A fixed deadline fails on a busy machine although everything comes; one without end hides what never comes. Here the
time runs as slowly as the machine does: with thirty programs on two cores a second counts a fifteenth.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")

_SELDOM_S = 0.5
LOOK_S = 1.0
"""No more than this counts between two looks: what is longer was not ours, such as a suspended machine."""


def share() -> float:
    """Return the part of a core that a program which wants one gets now, at most 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(1.0, cores / max(1.0, _runnable()))


def _runnable() -> float:
    """How many programs run or want to; Linux knows it, elsewhere the load of the last minute must do."""
    with suppress(OSError):
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            if line.startswith("procs_running "):
                return float(line.split()[1])
    return os.getloadavg()[0]


class Patience:
    """Seconds of an idle machine that may pass."""

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds
        self._looked_at = time.monotonic()

    def ended(self) -> bool:
        """Count the time since the last look and tell whether nothing is left; look more often than once a second."""
        now = time.monotonic()
        self.left_s -= min(now - self._looked_at, LOOK_S) * share()
        self._looked_at = now
        return self.left_s <= 0


def eventually(check: Callable[[], Value], timeout: float = 30.0, every: float = 0.05) -> Value:
    """Return the first truthy result of `check`; fail with its last result or error when patience ends.

    `timeout` counts seconds of an idle machine. What takes long is looked for less often, and no more than half of the
    time goes into looking: a look costs work, too.
    """
    patience, began = Patience(timeout), time.monotonic()
    while True:
        last: object = None
        looks_at = time.monotonic()
        try:
            value = check()
            if value:
                return value
            last = value
        except Exception as error:
            last = error
        if patience.ended():
            raise AssertionError(f"not within {timeout:g} s; last result: {last!r}")
        now = time.monotonic()
        time.sleep(max(every, min(_SELDOM_S, (now - began) / 8), min(_SELDOM_S, now - looks_at)))
