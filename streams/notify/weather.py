"""How much reaches people one by one: caps for each scope and hour, and a storm, in which everything comes as a digest.

Pure: time is an argument.
"""

from collections import deque

from tollmeter.streams.notify.notice import Notice, Scope
from tollmeter.streams.notify.routes import Limits

MINUTE_S, HOUR_S = 60.0, 3_600.0
STORM = "storm"


class Weather:
    """The alerts of the last minute and hour. `storm` begins above so many a minute and ends at half of them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.storm = False
        self._opens: deque[float] = deque()
        self._single: deque[tuple[float, Scope]] = deque()

    def count(self, notice: Notice) -> None:
        """Count an alert that people hear of."""
        self._opens.append(notice.opened_s)
        if not notice.held:
            self._single.append((notice.opened_s, notice.scope))

    def look(self, now_s: float) -> None:
        """See whether a storm begins or ends."""
        while self._opens and self._opens[0] <= now_s - MINUTE_S:
            self._opens.popleft()
        limit = self._limits.storm_per_minute
        self.storm = len(self._opens) > (limit // 2 if self.storm else limit)

    def holds(self, notice: Notice, now_s: float) -> str:
        """Return why an alert comes with a digest: storm or cap; empty where it comes at once."""
        if self.storm:
            return STORM
        while self._single and self._single[0][0] <= now_s - HOUR_S:
            self._single.popleft()
        of_scope = sum(scope == notice.scope for _, scope in self._single)
        full = of_scope >= self._limits.per_scope_per_hour or len(self._single) >= self._limits.per_hour
        return "cap" if full else ""
