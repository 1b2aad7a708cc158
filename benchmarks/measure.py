"""Stopwatches: CPU time and memory of processes as the kernel counts them, and quantiles of what was measured."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class TooLateError(Exception):
    """Something that was waited for did not happen in time; the text says what."""


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, all its threads, and the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process; pages that it shares with others count in full."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def descendants(pid: int) -> list[int]:
    """Return a process and everything below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(map(int, task.read_text().split()))
    return found


@dataclass(frozen=True, slots=True)
class CpuMark:
    """CPU time of named processes at one moment."""

    at: float
    seconds: Mapping[str, float]

    @classmethod
    def now(cls, pids: Mapping[str, int]) -> "CpuMark":
        return cls(time.monotonic(), {name: cpu_seconds(pid) for name, pid in pids.items()})

    def per_event_us(self, later: "CpuMark", events: int) -> dict[str, float]:
        """Return microseconds of CPU per event between the two moments, by name."""
        return {name: round((later.seconds[name] - self.seconds[name]) / events * 1e6, 2) for name in self.seconds}

    def shares(self, later: "CpuMark") -> dict[str, float]:
        """Return the part of one core that each took between the two moments."""
        return {name: (later.seconds[name] - self.seconds[name]) / (later.at - self.at) for name in self.seconds}


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value that `share` of all values do not exceed (nearest rank)."""
    ordered: Sequence[float] = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, -(-round(share * len(ordered) * 1_000_000) // 1_000_000) - 1)]


def wait_for(what: str, look: Callable[[], T | None], seconds: float, pause: float = 0.05) -> T:
    """Return the first result that is neither None nor False. Raises `TooLateError` after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise TooLateError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(pause)
