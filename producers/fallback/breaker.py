"""A provider that failed several times in a row is left alone for a while; then one single call finds out.

Pure: the time is given, in seconds of any clock that never goes back. Closed: all pass. Open: none does. Half open:
one passes, and its outcome decides. A result of a call that began before the last change of state decides nothing.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

PROBE_LEASE_S = 300.0
"""A probe that has not told its outcome by then is taken for lost, and the next one may go."""


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


@dataclass(frozen=True, slots=True)
class Rule:
    """`failures` in a row open the breaker for `open_s` seconds."""

    failures: int = 5
    open_s: float = 30.0


class Ticket(NamedTuple):
    """What a call that was let through hands back with its outcome."""

    epoch: int
    probe: bool


class Breaker:
    """Not thread-safe: whoever shares it holds a lock."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._failures = 0
        self._opened_at: float | None = None
        self._probing_since: float | None = None
        self._epoch = 0

    def state(self, now: float) -> State:
        """Return the state at this time."""
        if self._opened_at is None:
            return State.CLOSED
        return State.OPEN if now < self._opened_at + self._rule.open_s else State.HALF_OPEN

    def enter(self, now: float) -> Ticket | None:
        """Let a call through, or not (None). The caller must `leave` with the ticket."""
        state = self.state(now)
        if state is State.CLOSED:
            return Ticket(self._epoch, probe=False)
        probing = self._probing_since is not None and now < self._probing_since + PROBE_LEASE_S
        if state is State.OPEN or probing:
            return None
        self._probing_since = now
        self._epoch += 1  # the outcome of a probe that was given up comes too late
        return Ticket(self._epoch, probe=True)

    def leave(self, ticket: Ticket, ok: bool | None, now: float) -> None:
        """Tell the outcome of a call; None when it says nothing about the provider."""
        if ticket.epoch != self._epoch:
            return
        if ticket.probe:
            self._probing_since = None
        if ok:
            self._failures = 0
            if self._opened_at is not None:
                self._opened_at = None
                self._epoch += 1
        elif ok is False:
            self._failures += 1
            if ticket.probe or self._failures >= self._rule.failures:
                self._opened_at, self._failures = now, 0
                self._epoch += 1
