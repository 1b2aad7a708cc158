"""An INSERT counts only if the disk had room from its begin to its end; merges that met a shortage are undone.

chDB 4.4.0 acknowledges an INSERT, and keeps a merge, whose small files met a full disk (their failed writes are passed
over): the part is there, and empty. At its next start the engine puts such a part aside and takes what it was merged
from. As it deletes that eight minutes after the merge, it is started again as soon as space is short.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tollmeter.embedded.errors import FrontError

LEAST_BYTES = 64 << 20
"""Less free space than this is a shortage: more than an INSERT in work may take until it is noticed."""
LOOK_S = 0.05
SELDOM_S = 1.0
FILLED_PER_S = 4 << 30
"""Bytes a second that no disk of one machine exceeds by much: with more free than that a look may come later."""


class Space:
    """Watches the file system of a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._short_at = float("-inf")

    def look(self) -> bool:
        """Tell whether there is a shortage now, and remember it."""
        short = self._free() < LEAST_BYTES
        if short:
            self._short_at = time.monotonic()
        return short

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Raise `FrontError` 243 before the block if there is a shortage, and after it if there was one since."""
        began_at = time.monotonic()
        self._refuse(began_at)
        yield
        self._refuse(began_at)

    def _refuse(self, since: float) -> None:
        self.look()
        if self._short_at >= since:
            text = f"less than {LEAST_BYTES >> 20} MB are free on the disk of {self._folder}; nothing is stored"
            raise FrontError(243, f"{text}. (NOT_ENOUGH_SPACE)")

    def wait(self, ended: threading.Event, *, short: bool) -> bool:
        """Wait until there is a shortage, or until twice the least is free; False when it ended before that."""
        while not ended.wait(self._pause_s()):
            if self.look() if short else not self.look() and self._free() >= 2 * LEAST_BYTES:
                return True
        return False

    def _pause_s(self) -> float:
        """Return the time until the next look: no shortage can arise earlier."""
        return min(SELDOM_S, max(LOOK_S, (self._free() - LEAST_BYTES) / FILLED_PER_S / 2))

    def _free(self) -> int:
        state = os.statvfs(self._folder)
        return state.f_bavail * state.f_frsize
