"""How much is in work at once: statements, of which readers have fewer than all, and bytes of rows on their way in."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tollmeter.embedded.errors import FrontError

MAX_AT_ONCE = 16
READERS_AT_ONCE = max(2, min(4, os.cpu_count() or 1))
"""Each of a reader's statements may take half of the cores (`LIMITS`): writers find some at any time."""
READERS_WAITING = 32
WAIT_S = 30.0
MAX_BYTES = 512 << 20


class Slots:
    """Places for statements. However many readers come, `MAX_AT_ONCE - READERS_AT_ONCE` are left to writers."""

    def __init__(self) -> None:
        self._all = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._readers = threading.BoundedSemaphore(READERS_AT_ONCE)
        self._queue = threading.BoundedSemaphore(READERS_AT_ONCE + READERS_WAITING)

    @contextmanager
    def taken(self, *, reader: bool) -> Iterator[None]:
        """Hold a place. Raises `FrontError` 202 when there is none for a reader in time."""
        if not reader:
            with self._all:
                yield
            return
        if not self._queue.acquire(blocking=False):
            raise _busy(f"{READERS_AT_ONCE + READERS_WAITING} requests of read-only users are in work or wait")
        try:
            if not self._readers.acquire(timeout=WAIT_S):
                raise _busy(f"no place for a read-only user became free in {WAIT_S:g} s")
            try:
                with self._all:
                    yield
            finally:
                self._readers.release()
        finally:
            self._queue.release()

    def close(self, grace_s: float) -> bool:
        """Take all places for good; False when some are still taken after so many seconds."""
        deadline = time.monotonic() + grace_s
        return all(self._all.acquire(timeout=max(0.0, deadline - time.monotonic())) for _ in range(MAX_AT_ONCE))


class Share:
    """The bytes that one request holds of a `Budget`."""

    def __init__(self, budget: "Budget") -> None:
        self._budget = budget
        self._held = 0

    def await_bytes(self, size: int) -> None:
        """Hold so many bytes, waiting for them: only as the first thing. Raises `FrontError` 202."""
        self._budget.take(size, WAIT_S)
        self._held += size

    def add(self, size: int) -> None:
        """Hold so many bytes more, or raise `FrontError` 202 at once: two that wait for each other wait for ever."""
        self._budget.take(size, 0)
        self._held += size

    def release(self) -> None:
        """Give everything back."""
        self._budget.give(self._held)
        self._held = 0


class Budget:
    """Bytes of request bodies in memory, as they came and unpacked."""

    def __init__(self, size: int = MAX_BYTES) -> None:
        self._free = size
        self._change = threading.Condition()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Hold bytes until the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            share.release()

    def take(self, size: int, wait_s: float) -> None:
        """Take bytes. Raises `FrontError` 202."""
        with self._change:
            if not self._change.wait_for(lambda: self._free >= size, wait_s):
                raise _busy("too many bytes of other requests are in work")
            self._free -= size

    def give(self, size: int) -> None:
        """Give bytes back."""
        with self._change:
            self._free += size
            self._change.notify_all()


def _busy(text: str) -> FrontError:
    return FrontError(202, f"{text}. (TOO_MANY_SIMULTANEOUS_QUERIES)")
