"""The guard's time of day never steps with this machine's clock: it runs on from its start, set right by live records.

A wall clock that jumps back would reopen yesterday's budgets, one that jumps ahead would empty today's. So the wall
clock is read once; afterwards only the time stamps of records that have just been written move ours.
"""

from collections import deque
from collections.abc import Callable

TOLERANCE_MS = 2_000
"""Two clocks so close need no setting right; it is the size of the delays that we cannot tell from a difference."""
SAMPLES = 30


class GuardClock:
    """Milliseconds: `monotonic_ms` for durations, `wall_ms` for days. Both clocks are given, in nanoseconds."""

    def __init__(self, wall_ns: Callable[[], int], monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self.offset_ms = (wall_ns() - monotonic_ns()) // 1_000_000
        """Wall clock less monotonic clock."""
        self._samples: deque[int] = deque(maxlen=SAMPLES)

    def monotonic_ms(self) -> int:
        return self._monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return self._monotonic_ns() // 1_000_000 + self.offset_ms

    def witness(self, stamped_ms: int) -> None:
        """Take note of a live record's time stamp. It was made before now, so the freshest of some is the truest."""
        self._samples.append(stamped_ms - self.monotonic_ms())
        best = max(self._samples)
        ahead, enough = best - self.offset_ms, len(self._samples) == SAMPLES
        if ahead > TOLERANCE_MS or (enough and ahead < -TOLERANCE_MS):
            self.offset_ms = best
