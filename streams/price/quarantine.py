"""A record that ends the interpreter is set aside at the third start it spoils, on whatever host that is.

Whoever takes over a partition notes in the metadata of its committed offset how many workers in a row began there and
did not live on: one commit per assignment, nothing per batch. From the third on, batches are first tried in a process
of their own. The note is a suspicion, not a verdict. Who gives a partition back in order takes its own start out again:
partitions that only move about suspect nobody.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from aiokafka.errors import KafkaError
from faust.types import TP

from tollmeter.schemas.json_values import loads
from tollmeter.schemas.record import Place, Record
from tollmeter.streams.engine.gaps import Committed

SUSPECT_STARTS = 3
LIVED_S = 15.0
"""Who lives so long behind a committed offset has passed what the one before may have died of: commits are a second
apart."""
LEAVE_S = 2.0

log = logging.getLogger("tollmeter")


class Note(NamedTuple):
    """Starts in a row that were not survived, the last by the worker `boot`."""

    starts: int
    boot: str


def read_note(metadata: str) -> Note:
    """Return the note in the metadata of a committed offset; none where somebody else wrote there."""
    try:
        found = loads(metadata)
        return Note(int(found["starts"]), str(found["boot"]))
    except (ValueError, KeyError, TypeError):
        return Note(0, "")


def taken_over(note: Note, boot: str) -> Note:
    """Return the note of the worker `boot` that takes over; it keeps its own."""
    return note if note.boot == boot else Note(note.starts + 1, boot)


class Tries(Protocol):
    """Finds the records of a batch that end a process."""

    async def killers(self, records: Sequence[Record]) -> dict[Place, str]: ...
    async def close(self) -> None: ...


class Quarantine:
    """One worker's notes about the partitions it holds."""

    def __init__(
        self,
        boot: str,
        read: Callable[[set[TP]], Awaitable[Committed]],
        write: Callable[[Committed], Awaitable[None]],
        monotonic: Callable[[], float],
        sandbox: Tries,
    ) -> None:
        """`read` returns what is committed, or would be where nothing is yet; `write` commits."""
        self._boot, self._read, self._write, self._monotonic, self._sandbox = boot, read, write, monotonic, sandbox
        self._notes: dict[TP, Note] = {}
        self._until: dict[TP, float] = {}
        """When a partition will have been survived: LIVED_S after its first batch."""
        self._tried = False

    async def begin(self, assigned: set[TP]) -> dict[TP, int]:
        """Take note of the partitions that are new here, before anything of them is read. Positions stay."""
        for gone in set(self._notes) - assigned:
            del self._notes[gone]
            self._until.pop(gone, None)  # no longer there once all partitions have lived
        fresh = assigned - set(self._notes)
        if not fresh:
            return {}
        try:
            found = await self._read(fresh)
            notes = {tp: taken_over(read_note(metadata), self._boot) for tp, (_, metadata) in found.items()}
            await self._write({tp: (offset, _text(notes[tp])) for tp, (offset, _) in found.items()})
        except KafkaError as error:  # a rebalance, or no broker: whoever begins next counts
            log.info("no note of the start: %r", error)
            return {}
        self._notes |= notes
        for tp, note in sorted(notes.items()):
            if note.starts >= SUSPECT_STARTS:
                log.warning(
                    "%s/%d: start %d in a row; batches are tried apart first", tp.topic, tp.partition, note.starts
                )
        return {}

    async def leave(self) -> None:
        """Take this worker's starts back, where it has not lived yet: whoever leaves in order has not died."""
        notes = {tp: note for tp, note in self._notes.items() if self._open(tp)}
        for tp in notes:
            del self._notes[tp]
            self._until.pop(tp, None)
        if not notes:
            return
        try:
            async with asyncio.timeout(LEAVE_S):
                found = await self._read(set(notes))
                before = {tp: Note(max(0, note.starts - 1), "") for tp, note in notes.items()}
                await self._write({tp: (offset, _text(before[tp])) for tp, (offset, _) in found.items()})
        except (KafkaError, TimeoutError) as error:  # counts as a death then: that costs some speed for some seconds
            log.info("no note of the end: %r", error)

    def metadata(self, tp: TP) -> str:
        """Return what to commit beside an offset: the note, until the worker has lived."""
        return _text(self._notes[tp]) if self._open(tp) else ""

    async def killers(self, topic: str, batches: Sequence[Sequence[Record]]) -> dict[Place, str]:
        """Return the records of a batch that must not be decoded, with what they do; mostly nothing is suspected."""
        tps = [TP(topic, batch[0].partition) for batch in batches]
        for tp in tps:  # a slow machine may take long from its start to its first batch
            if tp in self._notes and tp not in self._until:
                self._until[tp] = self._monotonic() + LIVED_S
        suspected = [
            batch
            for tp, batch in zip(tps, batches, strict=True)
            if self._open(tp) and self._notes[tp].starts >= SUSPECT_STARTS
        ]
        if not suspected:
            if self._tried and not any(map(self._open, self._until)):
                self._tried = False
                await self._sandbox.close()
            return {}
        self._tried = True
        found = await self._sandbox.killers([record for batch in suspected for record in batch])
        for (partition, offset), end in sorted(found.items()):
            log.error("%s/%d offset %d is set aside: it %s", topic, partition, offset, end)
        return found

    def _open(self, tp: TP) -> bool:
        """Tell whether the worker has not lived on behind the start of the partition yet."""
        return tp in self._notes and (tp not in self._until or self._monotonic() < self._until[tp])


def _text(note: Note) -> str:
    return json.dumps(note._asdict(), separators=(",", ":"))
