"""How often one may ask: a token bucket for each key, or for each address without one, and what the answer says of it.

Counts requests. Of several servers behind a balancer each takes its part of the rate. The headers are those of
draft-ietf-httpapi-ratelimit-headers (RateLimit-Policy, RateLimit).
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tollmeter.server.problems import Headers, Problem

BUCKETS = 50_000
"""So many buckets are kept; of further ones the longest unused goes, and is full when it comes back."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a minute, and so many at once. No requests a minute: no limit."""

    name: str
    rpm: int
    burst: int

    def shared(self, processes: int) -> "Rate":
        """Return the part of one of so many servers."""
        return Rate(self.name, math.ceil(self.rpm / processes), max(1, self.burst // processes))


class Limiter:
    """The buckets of one rate. `clock` gives seconds that only grow."""

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self.rate, self._clock = rate, clock
        self._per_s = rate.rpm / 60
        self._burst = float(max(1, rate.burst))
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._policy = f'"{rate.name}";q={rate.burst};w={max(1, math.ceil(self._burst / (self._per_s or 1)))}'.encode()

    def take(self, who: str, busy_status: int = 429) -> Headers:
        """Count a request; return the headers that tell what is left. Raises `Problem` when there is nothing left."""
        if not self.rate.rpm:
            return []
        now = self._clock()
        left, at = self._buckets.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        allowed = left >= 1.0
        self._buckets[who] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
        if allowed:
            return self._headers(left - 1.0)
        wait_s = max(1, math.ceil((1.0 - left) / self._per_s))
        told = {name.decode(): value.decode() for name, value in self._headers(left)}
        raise Problem(
            busy_status,
            "rate_limited",
            f"more than {self.rate.rpm} requests a minute ({self.rate.name}): ask again in {wait_s} s, or send "
            "several calls in one request",
            headers={"retry-after": str(wait_s), **told},
        )

    def _headers(self, left: float) -> Headers:
        reset = math.ceil((self._burst - left) / self._per_s)
        now = f'"{self.rate.name}";r={int(left)};t={reset}'.encode()
        return [(b"ratelimit-policy", self._policy), (b"ratelimit", now)]
