"""Where events wait: a spool on disk while there is one to be had, else memory. No disk fault rises from here."""

import logging
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tollmeter.producers.client.backlog import Backlog, MemoryBacklog, Waiting
from tollmeter.producers.client.lookup import Lookup
from tollmeter.producers.client.spool import Spool, adopt, create

log = logging.getLogger("tollmeter.producer")
WARNING_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where events go and where they wait. `folder` None: no disk, they wait in memory."""

    lookup: Lookup
    folder: Path | None
    max_bytes: int


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
        settings, _ = route.lookup.now()
        self._targets: Sequence[str] = route.lookup.targets(settings)
        self.elsewhere = 0
        """Events of this process that wait on disk for a cluster that is not the present one."""
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

    def reached(self, target: str, looked_for: Sequence[str]) -> None:
        """Say which cluster was reached, and by which names it was looked for before.

        What waits for another one stays on disk for that: it comes back, or somebody has to decide.
        """
        self._targets = [target, *looked_for]
        backlog = self._backlog
        if not isinstance(backlog, Spool) or backlog.target == target:
            return
        if backlog.target in looked_for:
            with suppress(OSError, sqlite3.Error):  # under its old name it is found as well
                backlog.belongs_to(target)
            return
        self._warning.warn("%d usage events wait on disk for the cluster of before: this is another one", len(backlog))
        self.elsewhere += len(backlog)
        self.close()

    def append(self, events: list[tuple[int, bytes]]) -> tuple[int, int]:
        """Add (seq, body) pairs; return the row of the last one and how many did not fit."""
        try:
            if not len(self._backlog) and not self._backlog.durable and self._route.folder is not None:
                self._backlog = create(self._route.folder, self._targets[0], self._route.max_bytes)
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
        """Return the spool of a process that died, if there is one for the same cluster and topic."""
        if self._route.folder is None:
            return None
        try:
            return adopt(self._route.folder, self._targets, self._route.max_bytes)
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
