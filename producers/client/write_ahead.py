"""What a kill of this process would lose stands in a file: calls in flight as estimates, ended ones as they were.

A line is written before whoever waits for it hears of it, and survives kill -9 of the process (not a power cut in the
same second). A file goes away when every event in it is in Kafka or on the spool; the one of a process that died is
read by the next that looks. An event found twice has the same id and time, so it counts once.
"""

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from tollmeter.producers.client.destinations import RateLimited

OPEN, DONE, NOTHING = "open", "done", "nothing"
ROTATE_BYTES = 1 << 20


Document = dict[str, object]
"""The fields of an event, as JSON holds them."""


class Found(NamedTuple):
    """What a dead process left: the fields of each event, and how many of them are estimates of calls cut short."""

    events: list[Document]
    cut_short: int


class WriteAhead:
    """One process's file, and the one before it until that is settled. For any thread. Never raises."""

    def __init__(self, folder: Path, target: str) -> None:
        self._folder, self._target = folder, target
        self._lock = threading.Lock()
        self._open_calls: dict[str, str] = {}
        self._file, self._path = -1, Path()
        self._size = 0
        self._old: Path | None = None
        self._old_file = -1
        self._faults = RateLimited()

    def begun(self, event_id: str, events: Sequence[Document]) -> None:
        """A call is on its way, or has come so far: these are its events if nothing more is heard of it."""
        line = _line(OPEN, event_id, events)
        with self._lock:
            self._open_calls[event_id] = line
            self._write(line)

    def done(self, event_id: str, events: Sequence[Document]) -> None:
        """A call is over."""
        line = _line(DONE, event_id, events)
        with self._lock:
            self._open_calls.pop(event_id, None)
            self._write(line)

    def nothing(self, event_id: str) -> None:
        """A call is over and has no event."""
        with self._lock:
            if self._open_calls.pop(event_id, None) is not None:
                self._write(_line(NOTHING, event_id, ()))

    def settled(self) -> None:
        """All events so far are in Kafka or on the spool: forget what was written before them."""
        with self._lock:
            if self._old is not None:
                forget(self._old, self._old_file)
                self._old = None
            elif self._size >= ROTATE_BYTES:
                self._old, self._old_file, self._file = self._path, self._file, -1
                for line in self._open_calls.values():
                    self._write(line)

    def close(self, *, settled: bool) -> None:
        """Let go of the files; they go away when everything is settled and no call is open."""
        with self._lock:
            self._close(settled)

    def _close(self, settled: bool) -> None:
        for path, file in ((self._old, self._old_file), (self._path, self._file)):
            if path is None or file < 0:
                continue
            if settled and not self._open_calls:
                forget(path, file)
            else:
                os.close(file)
        self._old, self._file, self._old_file = None, -1, -1

    def _write(self, line: str) -> None:
        try:
            if self._file < 0:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._path = self._folder / f"ahead-{self._target}-{os.getpid()}-{uuid4().hex[:8]}.jsonl"
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._size = 0
            self._size += os.write(self._file, line.encode())
        except OSError as error:
            self._faults.warn("no write-ahead file (%s): calls in flight are lost with a kill", error.strerror)


def left_behind(folder: Path, targets: Sequence[str]) -> Iterator[tuple[Path, int, Found]]:
    """Yield the files of processes that died, locked, with what they hold; give each to `forget` when it is safe."""
    for path in sorted(path for target in targets for path in folder.glob(f"ahead-{target}-*.jsonl")):
        file = -1
        try:
            file = os.open(path, os.O_RDWR)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = read(path.read_bytes())
        except OSError:  # somebody alive has it
            if file >= 0:
                os.close(file)
            continue
        yield path, file, found


def read(data: bytes) -> Found:
    """Return what the lines of a write-ahead file come to. A line that was cut off says nothing."""
    calls: dict[str, tuple[str, list[Document]]] = {}
    for line in data.splitlines():
        try:
            kind, event_id, events = json.loads(line)
        except ValueError:
            continue
        if kind == OPEN and calls.get(event_id, (OPEN,))[0] != OPEN:
            continue
        calls[event_id] = kind, events
    kept = [(kind, event) for kind, events in calls.values() for event in events]
    return Found([event for _, event in kept], sum(kind == OPEN for kind, _ in kept))


def _line(kind: str, event_id: str, events: Sequence[Document]) -> str:
    return json.dumps([kind, event_id, list(events)], separators=(",", ":")) + "\n"


def forget(path: Path, file: int) -> None:
    """Remove a file whose events are safe."""
    try:
        path.unlink(missing_ok=True)
    finally:
        os.close(file)
