"""From the queue to the broker, in order: while the broker is away or behind, by way of the backlog.

One thread, one loop, two tasks. *Deliver* sends one chunk at a time, oldest first, and settles it when every event in
it is acknowledged. *Keep* watches it: when a chunk is not acknowledged soon, it writes that chunk and then all that is
behind it to the backlog, from where deliver goes on. So order holds, and what is on disk survives a kill.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tollmeter.producers.client.connection import AwayError, Connection, SenderLoop, quiet
from tollmeter.producers.client.destinations import RateLimited, Route, Store, shut
from tollmeter.producers.client.encoding import RefusedError
from tollmeter.producers.client.queue import Entry, Outbox
from tollmeter.producers.client.spool import Spool, cluster_name
from tollmeter.schemas import topics

log = logging.getLogger("tollmeter.producer")

CHUNK = 2_000
SLICE = 20  # events encoded before other threads get a turn at the interpreter
LINGER_S = 0.02
AWAKE_S = 1.0  # after an event we look for more every LINGER_S: waking a sleeper costs the caller a system call
SPILL_S = 1.0  # a chunk unacknowledged for so long is written to disk
KEEP_S = 0.05
ADOPT_EVERY_S = 30.0
STILL_AWAY_S = 60.0  # so often it is said again that events wait
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class Chunk:
    """Events on their way. `last_row` is the place of the last one in the backlog, once they are there."""

    events: list[tuple[int, bytes]]
    last_row: int = 0
    stored: bool = False
    lost: int = 0
    since: float = field(default_factory=time.monotonic)


class Sender:
    """Carries one outbox. `run` is the whole life of its thread."""

    def __init__(self, outbox: Outbox, encode: Callable[[Entry], bytes], route: Route) -> None:
        self._outbox, self._encode, self._route = outbox, encode, route
        self._store = Store(route, outbox.size)
        self._chunk: Chunk | None = None
        self._settings, _ = route.lookup.now()
        self._away, self._said_at, self._lineless = "", 0.0, False
        self._down_since: float | None = time.monotonic()
        self._busy = asyncio.Event()
        self._busy.set()
        self._invalid = RateLimited()

    def run(self) -> None:
        """Deliver until the outbox closes. Never raises: a metering fault must not show in the service."""
        try:
            with asyncio.Runner(loop_factory=SenderLoop) as runner:
                runner.get_loop().set_exception_handler(quiet)
                runner.run(self._main())
        except Exception:
            log.exception("the usage producer has stopped; events are dropped and counted from now on")
            self._outbox.close(0.0)
        finally:
            self._outbox.finish()

    async def _main(self) -> None:
        tasks = (asyncio.create_task(self._keep()), asyncio.create_task(self._deliver()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._put_away()
        for result in results:
            if isinstance(result, Exception):
                raise result

    # -- deliver: one chunk at a time, oldest first

    async def _deliver(self) -> None:
        failures = 0
        while True:
            try:
                connection = await self._open()
            except AwayError as away:
                self._say_away(str(away))
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
                continue
            try:
                failures = 0
                self._say_back()
                await self._send_all(connection)
            except AwayError as away:
                self._say_away(str(away))
            finally:
                self._down_since = time.monotonic()
                self._spill()
                await connection.close()

    async def _open(self) -> Connection:
        """Connect to the line that there is now. Raises `AwayError`."""
        settings, why = self._route.lookup.now()
        self._lineless = bool(why)
        if why:
            raise AwayError(why)
        self._settings = settings
        connection = await Connection.open(settings)
        looked_for = self._route.lookup.targets(settings)
        mine = cluster_name(connection.cluster, settings.topic(topics.EVENTS)) if connection.cluster else looked_for[0]
        self._store.reached(mine, looked_for)
        self._outbox.left_behind = self._store.elsewhere
        return connection

    async def _send_all(self, connection: Connection) -> None:
        looked, active = -ADOPT_EVERY_S, time.monotonic()
        foreign: Spool | None = None
        try:
            while True:
                if await self._send_waiting(connection) or await self._send_fresh(connection):
                    active = time.monotonic()
                if foreign is None and time.monotonic() - looked >= ADOPT_EVERY_S:
                    looked, foreign = time.monotonic(), self._store.adopt()
                if foreign is not None:
                    foreign = await self._send_foreign(connection, foreign)
                elif time.monotonic() - active > AWAKE_S:
                    self._busy.clear()
                    await self._outbox.nap(ADOPT_EVERY_S)
                    self._busy.set()
                if len(self._outbox) < CHUNK // 4 and not len(self._store):
                    await asyncio.sleep(LINGER_S)
        finally:
            self._busy.set()
            if foreign is not None:
                shut(foreign)

    async def _send_waiting(self, connection: Connection) -> bool:
        if not len(self._store):
            return False
        waiting = self._store.first(CHUNK)
        if waiting:
            chunk = Chunk([(event.seq, event.body) for event in waiting], waiting[-1].row, stored=True)
            await self._send_chunk(connection, chunk)
        self._report()
        return True

    async def _send_fresh(self, connection: Connection) -> bool:
        events = self._encode_waiting(CHUNK)
        if events:
            await self._send_chunk(connection, Chunk(events))
        self._report()
        return bool(events)

    async def _send_chunk(self, connection: Connection, chunk: Chunk) -> None:
        self._chunk = chunk
        await connection.send([body for _, body in chunk.events])
        self._outbox.add(acknowledged=len(chunk.events) - chunk.lost)
        self._chunk = None
        if chunk.last_row:
            self._store.remove(chunk.last_row)

    async def _send_foreign(self, connection: Connection, spool: Spool) -> Spool | None:
        """Send a chunk of a dead process's spool; return it while there is more in it."""
        try:
            waiting, broken = spool.first(CHUNK)
            self._outbox.add(dropped=broken)
            if waiting:
                await connection.send([event.body for event in waiting])
                self._outbox.add(adopted=len(waiting))
                spool.remove(waiting[-1].row)
                return spool
        except (sqlite3.Error, OSError) as error:
            self._store.set_aside(spool, error)
            return None
        shut(spool)
        return None

    # -- keep: what does not get away in time is stored, in order

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            await self._busy.wait()
            now, closing_at = time.monotonic(), self._outbox.closing_at
            empty = self._chunk is None and not len(self._store) and not len(self._outbox)
            if closing_at is not None and (empty or now >= closing_at or (self._away and self._route.folder)):
                return
            down = self._down_since is not None and (bool(self._away) or now - self._down_since > SPILL_S)
            late = self._chunk is not None and now - self._chunk.since > SPILL_S
            if down or late or len(self._outbox) > self._outbox.size // 2:
                self._spill()
            self._report()

    def _spill(self) -> None:
        """Write the chunk on its way, then all behind it, to the backlog."""
        chunk = self._chunk
        if chunk is not None and not chunk.stored:
            chunk.last_row, chunk.lost = self._put_behind(chunk.events)
            chunk.stored = True
        if self._down_since is not None:
            self._chunk = None  # nobody sends it any more; it is in the backlog
        self._put_behind(self._encode_waiting(self._outbox.size))

    def _put_behind(self, events: list[tuple[int, bytes]]) -> tuple[int, int]:
        """Append to the backlog; return the last row and how many were lost for want of room."""
        if not events:
            return 0, 0
        last, lost = self._store.append(events)
        self._outbox.add(dropped=lost, spooled=(len(events) - lost) if self._store.durable else 0)
        return last, lost

    def _put_away(self) -> None:
        """At the end: what was not acknowledged goes to disk for the next process, or is counted as dropped."""
        self._down_since = time.monotonic()
        self._spill()
        left = len(self._store)
        if left and not self._store.durable:
            self._outbox.add(dropped=left)
            log.warning("%d usage events were not delivered before the end and are lost", left)
            self._store.close()
        self._report()
        self._store.close()

    # -- encode, count, tell

    def _encode_waiting(self, count: int) -> list[tuple[int, bytes]]:
        entries = self._outbox.take(count)
        events: list[tuple[int, bytes]] = []
        for start in range(0, len(entries), SLICE):
            for entry in entries[start : start + SLICE]:
                try:
                    events.append((entry.seq, self._encode(entry)))
                except RefusedError as refused:
                    self._outbox.add(invalid=1)
                    self._invalid.warn("usage event refused: %s", refused)
                except Exception as error:
                    self._outbox.add(invalid=1)
                    self._invalid.warn("usage event refused: %s", type(error).__name__)
            time.sleep(0)  # lets go of the interpreter lock: the service's threads come first
        return events

    def _report(self) -> None:
        floor = self._chunk.events[0][0] if self._chunk is not None else self._store.oldest()
        lost, self._store.lost = self._store.lost, 0
        self._outbox.add(dropped=lost)
        waiting = len(self._store)
        on_disk = self._store.elsewhere + (waiting if self._store.durable else 0)
        flying = len(self._chunk.events) if self._chunk is not None and not self._chunk.stored else 0
        self._outbox.progress(floor, flying + (0 if self._store.durable else waiting), on_disk)

    def _say_away(self, reason: str) -> None:
        """Say so at once, and then now and then: the reason may have changed."""
        now = time.monotonic()
        if not self._away or now >= self._said_at + STILL_AWAY_S:
            where = "on disk" if self._route.folder is not None else "in memory"
            text = reason if self._lineless else f"Kafka at {self._settings.kafka} is away ({reason})"
            log.warning("%s: %susage events wait %s", text, f"{len(self._store)} " if self._away else "", where)
            self._said_at = now
        self._away = self._outbox.problem = reason

    def _say_back(self) -> None:
        self._down_since = None
        if self._away:
            log.warning("Kafka at %s is back; %d usage events were waiting", self._settings.kafka, len(self._store))
        self._away = self._outbox.problem = ""
