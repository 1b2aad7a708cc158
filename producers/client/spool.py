"""What could not be sent waits on disk in order, one SQLite file per process.

Written rows survive kill -9 of the process (write-ahead log; not a power cut in the same second, unless the file is
`synced`). Each row carries a CRC: one that fails it is dropped and counted, and its neighbours go out. A file belongs
to a cluster and topic; one begun before any broker was reached, to the address or stack that was looked for. That of a
process that died is taken over by the next one that reaches the same. A process owns a file by a lock (`flock`) on the
`.lock` beside it.
"""

import fcntl
import hashlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import uuid4
from zlib import crc32

from tollmeter.producers.client.backlog import Waiting


class Spool:
    """One SQLite file. Every call may raise `sqlite3.Error` or OSError: the disk is full, gone or broken."""

    durable = True

    def __init__(self, path: Path, lock: int, max_bytes: int, *, own: bool, synced: bool = False) -> None:
        self.target = _target_of(path)
        self._synced = synced
        self._path, self._lock, self._max_bytes, self._own = path, lock, max_bytes, own
        self._guard = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._count = self._bytes = self._gone = 0
        with self._open() as database:
            self._count, self._bytes = self._measure(database, 0, 2**62)
        _open_spools.add(self)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction. It is opened anew after a fork, over which none may be carried."""
        with self._guard:
            if self._database is None:
                if self._lock < 0:
                    raise OSError("the spool belongs to another process")
                self._database = sqlite3.connect(self._path, check_same_thread=False, timeout=5.0)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute(f"PRAGMA synchronous={'FULL' if self._synced else 'NORMAL'}")
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL,"
                    " crc INTEGER NOT NULL, body BLOB NOT NULL)"
                )
            with self._database:
                yield self._database

    def fits(self, bodies: Iterable[bytes]) -> bool:
        """Tell whether all of them may be added."""
        return self._bytes + sum(map(len, bodies)) <= self._max_bytes

    def append(self, events: Sequence[tuple[int, bytes]]) -> tuple[int, int]:
        kept: list[tuple[int, bytes]] = []
        size = last = 0
        for seq, body in events:
            if self._bytes + size + len(body) > self._max_bytes:
                break
            size += len(body)
            kept.append((seq, body))
        with self._open() as database:
            sql = "INSERT INTO spool (seq, crc, body) VALUES (?, ?, ?)"
            for seq, body in kept:
                last = int(database.execute(sql, (seq, crc32(body), body)).lastrowid or 0)
        self._count += len(kept)
        self._bytes += size
        return last, len(events) - len(kept)

    def first(self, count: int) -> tuple[list[Waiting], int]:
        broken = 0
        found: list[Waiting] = []
        with self._open() as database:
            sql = "SELECT id, seq, crc, body FROM spool WHERE id > ? ORDER BY id LIMIT ?"
            for row, seq, crc, body in database.execute(sql, (self._gone, count)).fetchall():
                if isinstance(body, bytes) and crc32(body) == crc:
                    found.append(Waiting(row, seq if self._own else 0, body))
                else:
                    broken += 1
                    database.execute("DELETE FROM spool WHERE id = ?", (row,))
        self._count -= broken
        if len(found) + broken < count:  # this is all there is
            self._count, self._bytes = len(found), sum(len(event.body) for event in found)
        return found, broken

    def remove(self, last_row: int) -> None:
        before, self._gone = self._gone, max(self._gone, last_row)  # holds even when the disk refuses to delete
        with self._open() as database:
            count, size = self._measure(database, before, self._gone)
            database.execute("DELETE FROM spool WHERE id <= ?", (self._gone,))
        self._count -= count
        self._bytes -= size

    def oldest(self) -> int | None:
        if self._count == 0:
            return None
        with self._open() as database:
            sql = "SELECT seq FROM spool WHERE id > ? ORDER BY id LIMIT 1"
            row = database.execute(sql, (self._gone,)).fetchone()
            return None if row is None else int(row[0])

    @staticmethod
    def _measure(database: sqlite3.Connection, after: int, last: int) -> tuple[int, int]:
        sql = "SELECT count(*), coalesce(sum(length(body)), 0) FROM spool WHERE id > ? AND id <= ?"
        count, size = database.execute(sql, (after, last)).fetchone()
        return int(count), int(size)

    def __len__(self) -> int:
        return self._count

    def rest(self) -> None:
        """Close the file, keep the ownership: called before a fork, for SQLite must not be carried over one."""
        with self._guard:
            if self._database is not None:
                self._database.close()
                self._database = None

    def close(self) -> None:
        with self._guard:
            self.rest()
            if self._lock < 0:
                return
            if self._count == 0:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                self._path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def belongs_to(self, target: str) -> None:
        """Rename the file: now it is known where its events belong."""
        fresh = self._path.with_name(self._path.name.replace(f"spool-{self.target}-", f"spool-{target}-", 1))
        with self._guard:
            self.rest()
            # Under both names the lock is held before the file has the new one, and until it has lost the old one.
            fresh.with_suffix(".lock").hardlink_to(self._path.with_suffix(".lock"))
            self._path.rename(fresh)
            self._path.with_suffix(".lock").unlink(missing_ok=True)
            self._path, self.target = fresh, target

    def set_aside(self) -> None:
        """Rename a file that SQLite cannot read, so that a fresh one can take its place."""
        with self._guard:
            with suppress(sqlite3.Error):
                self.rest()
            with suppress(OSError):
                self._path.rename(self._path.with_suffix(".broken"))
                self._path.with_suffix(".lock").unlink(missing_ok=True)
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1


def cluster_name(cluster: str, topic: str) -> str:
    """Return the part of a file name that says where its events belong: nobody else's broker may get them."""
    return hashlib.sha256(f"{cluster}\n{topic}".encode()).hexdigest()[:16]


def target_name(brokers: str, topic: str) -> str:
    """Return that part for events of a process that has not reached its broker yet, by where it looks for it."""
    together = ",".join(sorted(part.strip() for part in brokers.split(","))) + "\n" + topic
    return f"{crc32(together.encode()):08x}"


def create(folder: Path, target: str, max_bytes: int, *, synced: bool = False) -> Spool:
    """Make a spool file of this process's own, in a folder that only its user can read.

    `synced`: what was appended is on disk (fsync) when `append` returns, and survives a power cut, too.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"spool-{target}-{os.getpid()}-{uuid4().hex[:8]}.db"
    lock = _try_lock(path.with_suffix(".lock"))
    if lock is None:
        raise OSError(f"{path.with_suffix('.lock')} is locked")
    return Spool(path, lock, max_bytes, own=True, synced=synced)


def adopt(folder: Path, targets: Iterable[str], max_bytes: int) -> Spool | None:
    """Take over the file of a process that died, if there is one for these targets."""
    for path in sorted(path for target in targets for path in folder.glob(f"spool-{target}-*.db")):
        lock = _try_lock(path.with_suffix(".lock"))
        if lock is None:
            continue
        try:
            return Spool(path, lock, max_bytes, own=False)
        except sqlite3.Error:
            os.close(lock)
            path.rename(path.with_suffix(".broken"))
    return None


def waiting(folder: Path) -> dict[str, int]:
    """Return how many events wait in a folder, by target, whoever has the files. Files that cannot be read count 0."""
    found: dict[str, int] = {}
    for path in folder.glob("spool-*.db"):
        with (
            suppress(sqlite3.Error, OSError),
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database,
        ):
            [count] = database.execute("SELECT count(*) FROM spool").fetchone()
            found[_target_of(path)] = found.get(_target_of(path), 0) + int(count)
    return found


def _target_of(path: Path) -> str:
    return path.name.split("-")[1]


def _try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None when someone alive has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last owner may have removed the file between our open and our lock: then we hold the lock of nothing.
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


_open_spools: "weakref.WeakSet[Spool]" = weakref.WeakSet()
_forking: list[Spool] = []


def _before_fork() -> None:
    _forking[:] = list(_open_spools)
    for spool in _forking:
        spool._guard.acquire()
        with suppress(sqlite3.Error):
            spool.rest()


def _after_fork_in_parent() -> None:
    for spool in reversed(_forking):
        spool._guard.release()
    _forking.clear()


def _after_fork_in_child() -> None:
    for spool in reversed(_forking):
        if spool._lock >= 0:
            os.close(spool._lock)  # the lock is the parent's; our copy would hold it beyond the parent's death
            spool._lock = -1
        spool._guard.release()
    _forking.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
