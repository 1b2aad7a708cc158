"""Event ids are UUIDv7 that only grow within a process, so that the events of one service sort by time."""

import os
import random
import threading
import time

_STEPS_PER_MS = 4096
_FRACTIONS = [f"{step:03x}" for step in range(_STEPS_PER_MS)]


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

    def many(self, count: int) -> list[str]:
        """Return so many new ids, in order, for a caller that holds a lock of its own."""
        first = max(time.time_ns() * _STEPS_PER_MS // 1_000_000, self._last + 1)
        self._last = first + count - 1
        heads = {}
        for millis in range(first >> 12, (self._last >> 12) + 1):
            heads[millis] = f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7"
        tails = f"{self._bits(60 * count):0{15 * count}x}"
        return [
            f"{heads[stamp >> 12]}{_FRACTIONS[stamp & 0xFFF]}-9{tails[at : at + 3]}-{tails[at + 3 : at + 15]}"
            for at, stamp in zip(range(0, 15 * count, 15), range(first, first + count), strict=True)
        ]

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
