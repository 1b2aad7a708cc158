"""One way for every door: key, limit, body, read, ids, write and wait, remember, answer.

A repeat is counted, not stored; the same id with other content is a conflict. What a door could not read, and what is
no possible event, is told entry by entry, and the others of the same body are taken.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import TypeVar

import msgspec
from starlette.types import Receive

from tollmeter.server.auth import Caller
from tollmeter.server.body import Held, Room, read_body
from tollmeter.server.counters import Counters
from tollmeter.server.door import Answer, Bad, Door, Durable, Events, Fate, Outcome, Posted, Reading, Result
from tollmeter.server.events import EventMaker, Made
from tollmeter.server.problems import Problem
from tollmeter.server.remembered import Key, Remembered, contents_of
from tollmeter.server.writer import NotDurableError, Writer

_T = TypeVar("_T")
_UNBELIEVED = b"x-tollmeter-identity-ignored"
"""Header that says of how many calls organisation, user or group did not count, since the key may not set them."""
_CODE, _FATE = attrgetter("code"), attrgetter("fate")
_REPEAT = "the same event id with other content was taken already: the first one counts"


@dataclass(slots=True)
class _Batch:
    """The entries of one body on their way. `results` by place in the body, None where the fate is open."""

    results: list[Result | None]
    fresh: list[tuple[int, Made, Key | None, int]] = field(default_factory=list)
    mine: dict[Key, int] = field(default_factory=dict)
    later: list[tuple[int, Made, Key, int]] = field(default_factory=list)
    """Those that another request is writing, or an earlier entry of this one."""


class Ingest:
    """What all doors share. `take` has the part behind the door: from what was read to what became of it."""

    def __init__(self, maker: EventMaker, remembered: Remembered, writer: Writer, counters: Counters) -> None:
        self._maker, self._remembered, self._writer, self.counters = maker, remembered, writer, counters
        self._room = Room()

    async def answer(
        self, door: Door, receive: Receive, posted: Posted, caller: Caller, most: int, request_id: str
    ) -> Answer:
        """Return the answer to a request whose key and limits are settled. Raises `Problem` and `GoneError`."""
        with Held(self._room) as held:
            body = await read_body(receive, posted.headers, most, held)
            posted = Posted(posted.headers, posted.query, body)
            events = _parsed(door.columns, posted) if door.columns is not None else None
            taken = await self._take_all(events, caller) if events is not None else None
            reading = Reading([]) if taken is not None else _parsed(door.read, posted)
            results, durable, unbelieved = taken or await self.take(reading, caller)
        outcome = Outcome(results, durable, reading.single, reading.ignored, request_id)
        self._count(door, outcome)
        answer = door.answer(posted, outcome)
        return answer._replace(headers=[*answer.headers, (_UNBELIEVED, b"%d" % unbelieved)]) if unbelieved else answer

    async def _take_all(self, events: Events, caller: Caller) -> tuple[list[Result], Durable, int] | None:
        """Write the events of a body at once; None where they must be looked at one by one. Raises `Problem` 503."""
        made = self._maker.make_all(events, caller, time.time_ns() // 1_000)
        if made is None:
            return None
        contents: dict[Key, int] = {}
        if made.stable:
            contents = dict(zip(zip(made.orgs, made.ids, strict=True), contents_of(made.bodies), strict=True))
            if len(contents) < len(made.ids) or not self._remembered.knows_none(contents):
                return None
        durable = await self._store(contents, made.bodies)
        self.counters.used_all(made.used)
        return _accepted(made.ids), durable, 0

    async def take(self, reading: Reading, caller: Caller) -> tuple[list[Result], Durable, int]:
        """Write the calls of a body. Raises `Problem` 503.

        Return what became of each entry, where they are, and of how many the identity was not believed.
        """
        now_us = time.time_ns() // 1_000
        batch = _Batch([None] * len(reading.entries))
        before = self._maker.identity_ignored
        for place, entry in enumerate(reading.entries):
            made = entry if isinstance(entry, Bad) else self._maker.make(entry, caller, now_us)
            if isinstance(made, Bad):
                batch.results[place] = Result(made.place, "rejected", "", made.code, made.detail, made.status)
            else:
                self._sort(batch, place, entry.place, made)
        unbelieved = self._maker.identity_ignored - before
        durable: Durable = ""
        while batch.fresh or batch.later:
            if batch.fresh:
                durable = await self._write(batch)
            await self._await_others(batch, reading)
        return [result for result in batch.results if result is not None], durable, unbelieved

    def _sort(self, batch: _Batch, place: int, name: str, made: Made) -> None:
        """Decide whether an event is fresh, a repeat, or waits for the fate of another one."""
        if not made.stable:
            batch.fresh.append((place, made, None, 0))
            return
        key, [content] = (made.org_id, made.event_id), contents_of([made.body])
        before = self._remembered.content_of(key)
        if before is not None:
            batch.results[place] = _repeat(name, made.event_id, before == content)
        elif key in batch.mine or self._remembered.flying(key):
            batch.later.append((place, made, key, content))
        else:
            batch.mine[key] = content
            batch.fresh.append((place, made, key, content))

    async def _store(self, contents: Mapping[Key, int], bodies: list[bytes]) -> Durable:
        """Write events, and remember those that have an identity once they are written. Raises `Problem` 503."""
        self._remembered.begin(contents)
        written = False
        try:
            durable = await self._writer.write(bodies)
            written = True
        except NotDurableError as error:
            raise unavailable(str(error)) from None
        finally:
            self._remembered.end(contents, written=written)
        self.counters.durable[durable] += len(bodies)
        return durable

    async def _write(self, batch: _Batch) -> Durable:
        contents = {key: content for _, _, key, content in batch.fresh if key is not None}
        durable = await self._store(contents, [made.body for _, made, _, _ in batch.fresh])
        for place, made, _, _ in batch.fresh:
            batch.results[place] = Result("", "accepted", made.event_id)
            self.counters.used(made.fields)
        batch.fresh = []
        return durable

    async def _await_others(self, batch: _Batch, reading: Reading) -> None:
        """Wait for those that others are writing; what they could not write is ours to write then."""
        waiting, batch.later, batch.mine = batch.later, [], {}
        for _, _, key, _ in waiting:
            if flying := self._remembered.flying(key):
                await flying[1]
        for place, made, _, _ in waiting:  # at once: whoever waits in between may find the same id unwritten, too
            self._sort(batch, place, reading.entries[place].place, made)

    def _count(self, door: Door, outcome: Outcome) -> None:
        counters = self.counters
        fates = list(map(_FATE, outcome.results))
        for fate in set(fates):
            counters.events[door.path, fate] += fates.count(fate)
        if fates.count("accepted") < len(fates):
            for result in filter(_CODE, outcome.results):
                counters.rejected[door.path, result.code] += 1
        for reason, count in outcome.ignored.items():
            counters.ignored[door.path, reason] += count
        counters.identity_ignored = self._maker.identity_ignored


def _parsed(read: Callable[[Posted], _T], posted: Posted) -> _T:
    try:
        return read(posted)
    except RecursionError:
        raise Problem(400, "too_deep", "the body is nested too deeply") from None


def _accepted(ids: Sequence[str]) -> list[Result]:
    """Return the result of each, without a call of Python's for each."""
    fates = zip(repeat(""), repeat("accepted"), ids, repeat(""), repeat(""), repeat(0))
    return list(map(partial(tuple.__new__, Result), fates))


def _repeat(name: str, event_id: str, same: bool) -> Result:
    if same:
        return Result(name, "duplicate", event_id)
    return Result(name, "rejected", event_id, "conflict", _REPEAT, 409)


def unavailable(why: str) -> Problem:
    """Return the answer while nothing can be made durable."""
    wait_s = random.randint(1, 5)
    text = f"nothing can be stored at present ({why}): nothing of this was acknowledged, send it again"
    return Problem(503, "not_durable", text, headers={"retry-after": str(wait_s)})


class Entry(msgspec.Struct, kw_only=True):
    """What an answer says of one entry of a body: its place in the order and, where that has a name, in the body."""

    i: int
    status: Fate
    place: str | msgspec.UnsetType = msgspec.UNSET
    event_id: str | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    detail: str | msgspec.UnsetType = msgspec.UNSET


def listed(results: Sequence[Result], query: Mapping[str, str]) -> list[Entry]:
    """Return what an answer says entry by entry: all with `?results=all`, else those that were not accepted."""
    if query.get("results") != "all" and list(map(_FATE, results)).count("accepted") == len(results):
        return []
    return [
        Entry(
            i=number,
            status=result.fate,
            place=result.place or msgspec.UNSET,
            event_id=result.event_id or msgspec.UNSET,
            code=result.code or msgspec.UNSET,
            detail=result.detail if result.code else msgspec.UNSET,
        )
        for number, result in enumerate(results)
        if result.fate != "accepted" or query.get("results") == "all"
    ]
