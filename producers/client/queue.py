"""The border between the caller's threads and the sender's: bounded, in order, and never in the caller's way."""

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from tollmeter.producers.client.ids import Ids
from tollmeter.schemas.event import UsageEvent

_MAPS = ("tags", "extra_units")


class Entry(NamedTuple):
    """One recorded event before validation; its id and time never change again."""

    seq: int
    event_id: str
    occurred_at: Any
    event: UsageEvent | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of the events of this process.

    At rest `accepted = acknowledged + invalid + lost + queued + on_disk`, where `dropped = lost + those refused at a
    full queue`. `spooled` counts every event ever written to the disk spool; `adopted` those delivered on behalf of
    processes that died.
    """

    accepted: int = 0
    acknowledged: int = 0
    spooled: int = 0
    dropped: int = 0
    invalid: int = 0
    queued: int = 0
    on_disk: int = 0
    adopted: int = 0


class Outbox:
    """The bounded queue, the counters, and how far delivery has come."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.closing_at: float | None = None  # monotonic deadline, set by close()
        self.left_behind = 0  # events that wait on disk for another cluster than the present one
        self.done = False  # the sender has ended
        self.problem = ""  # why the broker cannot be reached, "" when it can
        self._ids = Ids()
        # Re-entrant: a finaliser or a signal handler may record while its own thread is recording.
        self._lock = threading.RLock()
        self._entries: deque[Entry] = deque()
        self._moved = threading.Condition(self._lock)
        self._floor = 1
        self._counts = dict.fromkeys((field.name for field in fields(Counters)), 0)
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, event: UsageEvent | None, fields: dict[str, Any]) -> str:
        """Take an event in and return its id; "" when the queue is full or closed. Never waits for anything slow."""
        for name in _MAPS:
            if name in fields and isinstance(fields[name], dict):
                fields[name] = fields[name].copy()  # the caller may change its dict before we encode
        loop = None
        with self._lock:
            if len(self._entries) >= self.size or self.closing_at is not None:
                self._counts["dropped"] += 1
                return ""
            event_id, at = self._ids.make()
            if event is not None:
                event_id, at = event.event_id, event.occurred_at  # type: ignore[assignment]
            if "event_id" in fields:
                event_id = str(fields.pop("event_id")).lower()
            self._counts["accepted"] = seq = self._counts["accepted"] + 1
            self._entries.append(Entry(seq, event_id, fields.pop("occurred_at", at), event, fields))
            if self._loop is not None:
                loop, self._loop = self._loop, None  # once per nap: waking costs a system call
        if loop is not None:
            self._rouse(loop)
        return event_id

    def take(self, count: int) -> list[Entry]:
        """Take up to `count` entries out, oldest first."""
        with self._lock:
            return [self._entries.popleft() for _ in range(min(count, len(self._entries)))]

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, **amounts: int) -> None:
        """Add to the counters."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def counters(self) -> Counters:
        """Return the counters as they stand."""
        with self._lock:
            return Counters(**self._counts)

    def progress(self, floor: int | None, queued: int, on_disk: int) -> None:
        """Say that every event before `floor` is settled (None: all taken out of the queue are); wakes `wait`."""
        with self._moved:
            behind = self._entries[0].seq if self._entries else self._counts["accepted"] + 1
            self._floor = behind if floor is None else min(floor, behind)
            self._counts["queued"] = queued + len(self._entries)
            self._counts["on_disk"] = on_disk
            self._moved.notify_all()

    def wait(self, timeout: float) -> bool:
        """Return True when all that was accepted before this call is settled, False when time runs out first."""
        deadline = time.monotonic() + timeout
        with self._moved:
            target, lost, elsewhere = self._counts["accepted"], self._counts["dropped"], self.left_behind
            while self._floor <= target:
                left = deadline - time.monotonic()
                if left <= 0 or self.done:
                    return False
                self._moved.wait(left)
            return self._counts["dropped"] == lost and self.left_behind == elsewhere

    def close(self, deadline: float) -> None:
        """Take no more; the sender ends when all is settled, or at the deadline (monotonic)."""
        with self._moved:
            self.closing_at = deadline
            loop, self._loop = self._loop, None
        if loop is not None:
            self._rouse(loop)

    def finish(self) -> None:
        """The sender has ended: nobody waits any longer."""
        with self._moved:
            self.done = True
            self._moved.notify_all()

    async def nap(self, seconds: float) -> None:
        """Sleep until something is put in, the outbox closes, or the time is up. For the sender's loop alone."""
        with self._lock:
            if self._entries or self.closing_at is not None:
                return
            self._wake, self._loop = asyncio.Event(), asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._wake = self._loop = None

    def _rouse(self, loop: asyncio.AbstractEventLoop) -> None:
        wake = self._wake
        if wake is not None:
            try:
                loop.call_soon_threadsafe(wake.set)
            except RuntimeError:  # the loop has just closed: nobody is asleep
                return
