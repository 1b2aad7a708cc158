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
        self._random = random.Random(os.urandom(32))

    def next(self) -> tuple[str, int]:
        """Return a new id and the present time in microseconds since 1970 UTC."""
        now = time.time_ns()
        stamp = now * _STEPS_PER_MS // 1_000_000
        with self._lock:
            # A clock that stands still or steps back must not repeat or reorder ids.
            self._last = stamp = stamp if stamp > self._last else self._last + 1
            tail = self._random.getrandbits(62)
        millis, step = divmod(stamp, _STEPS_PER_MS)
        text = f"{millis << 80 | 7 << 76 | step << 64 | 2 << 62 | tail:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}", now // 1_000
