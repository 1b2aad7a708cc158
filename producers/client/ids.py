"""Event ids are UUIDv7 that only grow within a process, so that the events of one service sort by time."""

import os
import random
import threading
import time

_STEPS_PER_MS = 4096


class Ids:
    """Makes ids of 48 bits of milliseconds, 12 bits of a fraction of a millisecond and 62 random bits (RFC 9562)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._bits = random.Random(os.urandom(32)).getrandbits

    def next(self) -> tuple[str, int]:
        """Return a new id and the present time in microseconds since 1970 UTC. For any thread."""
        with self._lock:
            return self.make()

    def make(self) -> tuple[str, int]:
        """`next` for a caller that holds a lock of its own."""
        now = time.time_ns()
        stamp = now * _STEPS_PER_MS // 1_000_000
        if stamp <= self._last:  # a clock that stands still or steps back must not repeat or reorder ids
            stamp = self._last + 1
        self._last = stamp
        millis, tail = stamp >> 12, self._bits(62)
        head = f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7{stamp & 0xFFF:03x}"
        return f"{head}-{0x8000 | tail >> 48:04x}-{tail & 0xFFFF_FFFF_FFFF:012x}", now // 1_000
