"""What waits to be sent, oldest first; in memory where there is no disk."""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, Protocol


class Waiting(NamedTuple):
    """One encoded event in a backlog. `row` is its place there; `seq` its number in this process, 0 if not its own."""

    row: int
    seq: int
    body: bytes


class Backlog(Protocol):
    """Events that wait, oldest first."""

    durable: bool

    def append(self, events: Sequence[tuple[int, bytes]]) -> tuple[int, int]:
        """Add (seq, body) pairs; return the row of the last one and how many did not fit."""

    def first(self, count: int) -> tuple[list[Waiting], int]:
        """Return up to `count` of the oldest, and how many broken rows were dropped on the way."""

    def remove(self, last_row: int) -> None:
        """Forget all up to this row: they are acknowledged, and it is never given out again."""

    def oldest(self) -> int | None:
        """Return the number (`seq`) of the oldest event, None when there is none."""

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Let go; what is on disk stays there for the next process."""


class MemoryBacklog:
    """The backlog without a disk: bounded by a number of events, gone with the process."""

    durable = False

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last = 0
        self._events: deque[Waiting] = deque()

    def append(self, events: Sequence[tuple[int, bytes]]) -> tuple[int, int]:
        kept = events[: max(0, self._limit - len(self._events))]
        for seq, body in kept:
            self._last += 1
            self._events.append(Waiting(self._last, seq, body))
        return (self._last if kept else 0), len(events) - len(kept)

    def first(self, count: int) -> tuple[list[Waiting], int]:
        return list(islice(self._events, count)), 0

    def remove(self, last_row: int) -> None:
        while self._events and self._events[0].row <= last_row:
            self._events.popleft()

    def oldest(self) -> int | None:
        return self._events[0].seq if self._events else None

    def __len__(self) -> int:
        return len(self._events)

    def close(self) -> None:
        return
