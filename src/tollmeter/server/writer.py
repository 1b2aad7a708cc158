"""What is acknowledged here is in Kafka, or on disk with fsync. One task carries what waits, group by group.

While the broker is away groups go to the spool at once, and from there to Kafka when it is back, in their order. The
spool of a server that was killed is taken over by the next one. With neither broker nor room on disk nothing is taken.
"""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tollmeter.producers.client import spool as spools
from tollmeter.producers.client.connection import AwayError, Connection
from tollmeter.producers.client.destinations import RateLimited
from tollmeter.producers.client.spool import Spool, cluster_name, target_name
from tollmeter.schemas import topics
from tollmeter.server.door import Durable
from tollmeter.settings import Settings

log = logging.getLogger("tollmeter.server")

GROUP = 2_000
LINGER_S = 0.002
WAITING = 50_000
"""Events that may wait for their group at once; more are refused rather than kept in memory."""
SPOOL_BYTES = 256 << 20
ADOPT_EVERY_S = 30.0
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class NotDurableError(Exception):
    """Nothing can be taken now: the broker is away, and the disk is full, broken or not to be used."""


class _Waiting(NamedTuple):
    bodies: Sequence[bytes]
    done: "asyncio.Future[Durable]"


class Writer:
    """Writes encoded events. `start` and `stop` belong to the server's life; `write` is for everybody in its loop."""

    def __init__(self, settings: Settings, folder: Path | None, spool_bytes: int = SPOOL_BYTES) -> None:
        self._settings, self._folder, self._spool_bytes = settings, folder, spool_bytes
        self._topic = settings.topic(topics.EVENTS)
        self._targets = [target_name(settings.kafka, self._topic)]
        self._waiting: deque[_Waiting] = deque()
        self._count = 0
        self._wake = asyncio.Event()
        self._connection: Connection | None = None
        self._spool: Spool | None = None
        self._disk = asyncio.Lock()
        self._problem = "not connected yet"
        self._disk_problem = "" if folder else "no folder for a spool"
        self._warning = RateLimited()
        self._looked = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def problem(self) -> str:
        """Why the broker cannot be reached at present; "" when it can."""
        return "" if self._connection is not None else self._problem

    @property
    def refuses(self) -> str:
        """Why nothing can be taken; "" while something can."""
        return f"{self.problem}; {self._disk_problem}" if self.problem and self._disk_problem else ""

    @property
    def spooled(self) -> int:
        """How many events of this process wait on disk."""
        return len(self._spool) if self._spool is not None else 0

    async def start(self) -> None:
        """Connect in the background: a server that starts before its broker takes events, too."""
        self._tasks = [asyncio.create_task(self._carry()), asyncio.create_task(self._connect())]

    async def stop(self) -> None:
        """Let go: whoever waited has been answered. What is in the spool is for the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()
        if self._spool is not None:
            with suppress(sqlite3.Error, OSError):
                await asyncio.to_thread(self._spool.close)

    async def write(self, bodies: Sequence[bytes]) -> Durable:
        """Return where all of them are, once they are. Raises `NotDurableError`; then some may be in Kafka."""
        if self.refuses:
            raise NotDurableError(self.refuses)
        if self._count + len(bodies) > WAITING:
            raise NotDurableError(f"{self._count} events wait already")
        waiting = _Waiting(bodies, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._count += len(bodies)
        self._wake.set()
        try:
            return await waiting.done
        finally:
            self._count -= len(bodies)

    async def _carry(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(LINGER_S)
            group: list[_Waiting] = []
            size = 0
            while self._waiting and (not group or size + len(self._waiting[0].bodies) <= GROUP):
                group.append(self._waiting.popleft())
                size += len(group[-1].bodies)
            if not self._waiting:
                self._wake.clear()
            await self._settle(group)

    async def _settle(self, group: list[_Waiting]) -> None:
        """Write a group and tell everybody in it."""
        bodies = [body for waiting in group for body in waiting.bodies]
        try:
            durable: Durable = "kafka" if await self._send(bodies) else await self._keep(bodies)
        except Exception as error:
            if not isinstance(error, NotDurableError):
                log.exception("events could not be written")
                error = NotDurableError("an unexpected error while writing")
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
                    waiting.done.exception()  # the client may have gone
            return
        for waiting in group:
            if not waiting.done.done():
                waiting.done.set_result(durable)

    async def _send(self, bodies: Sequence[bytes]) -> bool:
        connection = self._connection
        if connection is None:
            return False
        try:
            await connection.send(bodies)
        except AwayError as away:
            await self._lose(connection, str(away))
            return False
        return True

    async def _lose(self, connection: Connection, reason: str) -> None:
        """Give a connection up; `_connect` makes another one."""
        if self._connection is connection:
            self._connection, self._problem = None, reason
            where = f"events wait on disk in {self._folder}" if self._folder else "no events are taken"
            log.warning("Kafka at %s is away (%s): %s", self._settings.kafka, reason, where)
            await connection.close()

    # -- the spool

    async def _keep(self, bodies: Sequence[bytes]) -> Durable:
        """Write to the spool with fsync. Raises `NotDurableError`."""
        async with self._disk:
            await asyncio.to_thread(self._append, bodies)
        return "spool"

    def _append(self, bodies: Sequence[bytes]) -> None:
        if self._folder is None:
            raise NotDurableError(self.refuses)
        try:
            if self._spool is None:
                self._spool = spools.create(self._folder, self._targets[0], self._spool_bytes, synced=True)
            if not self._spool.fits(bodies):
                raise OSError(f"the spool is full ({self._spool_bytes >> 20} MiB)")
            self._spool.append([(0, body) for body in bodies])
        except (sqlite3.Error, OSError) as error:
            self._disk_problem = f"the spool cannot be written: {error}"
            self._warning.warn("events are refused: %s", self._disk_problem)
            raise NotDurableError(self.refuses or self._disk_problem) from None

    # -- the broker

    async def _connect(self) -> None:
        failures = 0
        while True:
            if self._connection is None:
                try:
                    await self._open()
                    failures = 0
                except AwayError as away:
                    self._warning.warn("Kafka is away: %s", away)
                    self._problem = str(away)
                    self._disk_problem = self._disk_problem if self._folder is None else ""  # it is tried again
                    await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                    failures += 1
                    continue
            await self._drain()
            await asyncio.sleep(0.2)

    async def _open(self) -> None:
        connection = await Connection.open(self._settings)
        mine = cluster_name(connection.cluster, self._topic) if connection.cluster else self._targets[-1]
        before, self._targets = self._targets, list(dict.fromkeys([mine, self._targets[-1]]))
        await self._rename_or_leave(mine, before[-1])
        self._connection, self._problem, self._looked = connection, "", time.monotonic() - ADOPT_EVERY_S
        log.info("connected to Kafka at %s; %d events wait on disk", self._settings.kafka, self.spooled)

    async def _rename_or_leave(self, mine: str, looked_for: str) -> None:
        """Give our spool the name of the cluster that was reached; one for another cluster waits on disk for that."""
        async with self._disk:
            spool = self._spool
            if spool is None or spool.target == mine:
                return
            with suppress(sqlite3.Error, OSError):
                if spool.target == looked_for:
                    await asyncio.to_thread(spool.belongs_to, mine)
                    return
                log.warning("%d events wait on disk for the cluster of before: this is another one", len(spool))
                self._spool = None
                await asyncio.to_thread(spool.close)

    async def _drain(self) -> None:
        """Send what waits on disk: our own first, then that of processes that died."""
        if self._spool is not None and await self._empty(self._spool):
            async with self._disk:
                if not len(self._spool):
                    await asyncio.to_thread(self._spool.close)
                    self._spool, self._disk_problem = None, ""
        if self._folder is not None and time.monotonic() - self._looked >= ADOPT_EVERY_S:
            self._looked = time.monotonic()
            with suppress(sqlite3.Error, OSError):
                while (found := await asyncio.to_thread(self._adopt)) is not None:
                    emptied = await self._empty(found)
                    await asyncio.to_thread(found.close)
                    if not emptied:
                        return

    def _adopt(self) -> Spool | None:
        assert self._folder is not None
        return spools.adopt(self._folder, self._targets, self._spool_bytes)

    async def _empty(self, spool: Spool) -> bool:
        """Send all of a spool; False when the broker went away before."""
        try:
            while len(spool):
                async with self._disk:
                    waiting, broken = await asyncio.to_thread(spool.first, GROUP)
                if broken:
                    log.error("%d events on disk cannot be read and are lost", broken)
                if waiting and not await self._send([event.body for event in waiting]):
                    return False
                if waiting:
                    async with self._disk:
                        await asyncio.to_thread(spool.remove, waiting[-1].row)
        except (sqlite3.Error, OSError) as error:
            self._warning.warn("the spool cannot be read: %s", error)
            return False
        return True
