"""A start is given up when nothing moves any more, or at its limit: a busy machine is no reason.

What moves is told by the kernel: processes that run, or wait for a processor, work; one that waits for something else
does not.
"""

from collections.abc import Hashable, Iterable
from contextlib import suppress
from pathlib import Path

STILL_S = 60.0
SAY_EVERY_S = 10.0
_WINDOW_S = 5.0
_WORKING_SHARE = 0.1
"""Of one processor, used or waited for: idle, all processes of a stack together want less."""


class Patience:
    """How long to go on waiting. Times are monotonic seconds, given by the caller."""

    def __init__(self, limit_s: float, now: float) -> None:
        self._limit_s, self._began_at = limit_s, now
        self._moved_at, self._said_at = now, now
        self._marks: Hashable = None
        self._window = (now, 0.0)

    def waited_s(self, now: float) -> float:
        """Return the seconds since the start."""
        return now - self._began_at

    def look(self, now: float, demand_s: float | None, marks: Hashable) -> str:
        """Return why to give up, "" to go on.

        `demand_s` is the processor time used and waited for so far, None where nobody knows; `marks` is anything
        whose change means that the start came a step further.
        """
        since, before = self._window
        if marks != self._marks or demand_s is None or demand_s < before:  # less: a process has ended
            self._marks, self._moved_at, self._window = marks, now, (now, demand_s or 0.0)
        elif now >= since + _WINDOW_S:
            if demand_s - before >= _WORKING_SHARE * (now - since):
                self._moved_at = now
            self._window = (now, demand_s)
        if now > self._began_at + self._limit_s:
            return f"within {self._limit_s:g} s (TOLLMETER_START_LIMIT_S)"
        if now > self._moved_at + STILL_S:
            return f"and nothing has moved for {STILL_S:g} s"
        return ""

    def should_say(self, now: float) -> bool:
        """Tell whether it is time to say what is waited for, at most every `SAY_EVERY_S`."""
        if now < self._said_at + SAY_EVERY_S:
            return False
        self._said_at = now
        return True


def demand_s(pids: Iterable[int]) -> float | None:
    """Return the seconds that these processes ran or waited for a processor; None where the system does not say."""
    if not Path("/proc/self/schedstat").exists():
        return None
    total = 0
    for pid in pids:
        for file in Path("/proc", str(pid), "task").glob("*/schedstat"):
            with suppress(OSError):  # the thread has ended
                ran, waited, _ = map(int, file.read_text().split())
                total += ran + waited
    return total / 1e9
