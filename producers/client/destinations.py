"""Where events wait: a spool on disk while there is one to be had, else memory. No disk fault rises from here."""

import logging
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollmeter.producers.client.spool import Backlog, MemoryBacklog, Spool, Waiting, adopt, create, target_name

log = logging.getLogger("tollmeter.producer")
WARNING_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where events go and where they wait. `folder` None: no disk, they wait in memory."""

    options: Mapping[str, Any]
    topic: str
    folder: Path | None
    max_bytes: int

    @property
    def brokers(self) -> str:
        return str(self.options["bootstrap_servers"])


class RateLimited:
    """Warns at once, then at most once in `seconds`, saying how many it kept to itself."""

    def __init__(self, seconds: float = WARNING_EVERY_S) -> None:
        self._seconds, self._next, self._unsaid = seconds, -seconds, 0

    def warn(self, text: str, detail: object) -> None:
        now = time.monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more since the last such warning)" if self._unsaid else ""
        log.warning(text + more, detail)
        self._next, self._unsaid = now + self._seconds, 0


class Store:
    """The backlog of one sender. A spool file exists only while something waits in it."""

    def __init__(self, route: Route, memory_limit: int) -> None:
        self._route, self._memory_limit = route, memory_limit
        self._target = target_name(route.brokers, route.topic)
        self._backlog: Backlog = MemoryBacklog(memory_limit)
        self._warning = RateLimited()
        self.lost = 0
        """Events that a fault of the disk, or want of room in it, has cost since the caller last took note."""

    def __len__(self) -> int:
        return len(self._backlog)

    @property
    def durable(self) -> bool:
        """Whether what waits is on disk."""
        return self._backlog.durable

    def append(self, events: list[tuple[int, bytes]]) -> tuple[int, int]:
        """Add (seq, body) pairs; return the row of the last one and how many did not fit."""
        try:
            if not len(self._backlog) and not self._backlog.durable and self._route.folder is not None:
                self._backlog = create(self._route.folder, self._target, self._route.max_bytes)
            return self._backlog.append(events)
        except (sqlite3.Error, OSError) as error:
            text = "no spool on disk (%s): events wait in memory, and are dropped when that is full"
            self._warning.warn(text, error)
        if len(self._backlog):
            return 0, len(events)  # what is on disk already comes first; memory must not overtake it
        self.close()
        return self._backlog.append(events)

    def first(self, count: int) -> list[Waiting]:
        """Return up to `count` of the oldest."""
        try:
            waiting, broken = self._backlog.first(count)
        except (sqlite3.Error, OSError) as error:
            self._abandon(error)
            return []
        self.lost += broken
        return waiting

    def oldest(self) -> int | None:
        """Return the number of the oldest event, None when nothing waits."""
        try:
            return self._backlog.oldest()
        except (sqlite3.Error, OSError) as error:
            self._abandon(error)
            return None

    def remove(self, last_row: int) -> None:
        """Forget all up to this row: they are acknowledged."""
        try:
            self._backlog.remove(last_row)
        except (sqlite3.Error, OSError) as error:
            # The spool remembers in memory that these are gone; only the next process would send them again.
            self._warning.warn("cannot delete what was sent from the spool: %s", error)
        if not len(self._backlog) and self._backlog.durable:
            self.close()

    def close(self) -> None:
        """Let go of the file, which goes away when it is empty; memory is empty from now on."""
        shut(self._backlog)
        self._backlog = MemoryBacklog(self._memory_limit)

    def adopt(self) -> Spool | None:
        """Return the spool of a process that died, if there is one for the same brokers and topic."""
        if self._route.folder is None:
            return None
        try:
            return adopt(self._route.folder, self._target, self._route.max_bytes)
        except (sqlite3.Error, OSError) as error:
            self._warning.warn("cannot look for spool files of earlier processes: %s", error)
            return None

    def set_aside(self, spool: Spool, error: Exception) -> None:
        """Give up a file that cannot be read."""
        self._warning.warn("a spool file cannot be read and is set aside: %s", error)
        spool.set_aside()

    def _abandon(self, error: Exception) -> None:
        self.lost += len(self._backlog)
        if isinstance(self._backlog, Spool):
            self.set_aside(self._backlog, error)
        self._backlog = MemoryBacklog(self._memory_limit)


def shut(backlog: Backlog) -> None:
    """Close a backlog whatever the disk says."""
    with suppress(sqlite3.Error, OSError):
        backlog.close()
