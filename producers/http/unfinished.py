"""Answers that nobody reads to their end: they count when their client closes, their process ends, or nobody has them.

What the collector finds may be found at any place of a program, also under a lock that recording takes: it only puts
the attempt aside, and the next call of the same client, its close or the end of the process records it.
"""

import atexit
import os
import weakref
from collections import deque

from tollmeter.producers.http.attempt import Attempt


class Unfinished:
    """The attempts of one client whose answers have begun. For any thread: sets and deques are changed in one step."""

    def __init__(self) -> None:
        self._open: set[Attempt] = set()
        self._forsaken: deque[Attempt] = deque()
        _every.add(self)

    def began(self, attempt: Attempt) -> None:
        """An answer has begun."""
        self._open.add(attempt)
        attempt.when_over = self._open.discard

    def forsaken(self, attempt: Attempt) -> None:
        """Nobody has the answer any more. For the collector: nothing is done but this."""
        self._forsaken.append(attempt)

    def sweep(self) -> None:
        """Record what nobody has any more, with what had come by then."""
        while self._forsaken:
            self._forsaken.popleft().done()

    def end(self) -> None:
        """Record everything: no more of these answers will come."""
        for attempt in list(self._open):
            attempt.done()

    def forget(self) -> None:
        """In the child of a fork: what has begun is the parent's to record."""
        for attempt in list(self._open):
            attempt.abandon()
        self._open.clear()
        self._forsaken.clear()


_every: "weakref.WeakSet[Unfinished]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for one in list(_every):
        one.forget()


def _at_exit() -> None:
    for one in list(_every):
        one.end()


os.register_at_fork(after_in_child=_after_fork_in_child)
# Registered behind the estimates that wait and the producers: it runs before them, while both still take events.
atexit.register(_at_exit)
