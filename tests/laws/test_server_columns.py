"""A body of many events read at once gives what its events give one by one: ids, bytes, fates and figures."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.laws.test_server_doors import NOW_US, Everybody
from tests.laws.test_server_encode import FITTING, TEXTS
from tollmeter.schemas.event import UsageEvent
from tollmeter.server.auth import Caller
from tollmeter.server.counters import Counters
from tollmeter.server.door import Bad, Door, Durable, Posted
from tollmeter.server.doors import ingest
from tollmeter.server.events import Columns, EventMaker, Made
from tollmeter.server.ingest import Ingest
from tollmeter.server.problems import Problem
from tollmeter.server.remembered import Remembered
from tollmeter.server.writer import NotDurableError

IDS = st.sampled_from([None, "", "one", "two", "0195D0E0-0000-7000-8000-000000000009", "x" * 257, 7]) | st.uuids().map(
    str
)
TIMES = st.sampled_from([None, NOW_US, "2026-11-29T10:00:00Z", NOW_US / 1e6, NOW_US - 10**15, 0, True, "soon"])
ODD = st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
USUAL = {"model_sent": "gpt-4o", "input_tokens": 1_000, "output_tokens": 200, "user_id": "ann"}


PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "tags": st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "é", ""]), max_size=3),
    "extra_units": st.dictionaries(st.sampled_from(["images", "pages"]), st.sampled_from([0, 1, 2.5]), max_size=2),
    "stream": st.booleans(),
    "backfill": st.booleans(),
    "billing_scope": st.sampled_from(["ORG", "USER"]),
    "processing": st.sampled_from(["REALTIME", "BATCH"]),
    "status": st.sampled_from(["OK", "ERROR"]),
    "usage_source": st.sampled_from(["PROVIDER", "ESTIMATED"]),
    "total_tokens": st.sampled_from([1_200, 2_000_000]),
    "input_tokens": st.sampled_from([1_000, 3_000, 10_000_000]),
    "output_tokens": st.sampled_from([200, 2_047, 2_048]),
    "model_sent": st.sampled_from(["gpt-4o", "o3"]),
}
NUMBERS = tuple(
    name for name in UsageEvent.model_fields if name.endswith(("_tokens", "_ms", "_nano", "_chars", "_status"))
)
FITS = {**dict.fromkeys(NUMBERS, st.integers(0, 100)), **PLAIN}
WORDS = st.sampled_from(["", "ann", "é", "a" * 256])


@st.composite
def event(draw: st.DrawFn, names: Sequence[str]) -> dict[str, Any]:
    return USUAL | {name: draw(FITS.get(name, WORDS)) for name in names}


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bodies that are mostly plain; of some one value is odd, and of some not all events name the same members."""
    pool = sorted(set(UsageEvent.model_fields) - {"event_id", "occurred_at"})
    names = draw(st.lists(st.sampled_from(pool), unique=True, max_size=8))
    events = draw(st.lists(event(names), min_size=2, max_size=5))
    ids = draw(st.sampled_from(["none", "uuid", "named", "any"]))
    for place, one in enumerate(events):
        if ids != "none":
            one["event_id"] = {"uuid": str(uuid4()), "named": f"call-{place}"}.get(ids) or draw(IDS)
        if draw(st.integers(0, 9)) == 0:
            one.pop(draw(st.sampled_from(sorted(one))))
        if draw(st.integers(0, 9)) == 0:
            one[draw(st.sampled_from([*names, "user_id", "event_id"]))] = None
        if draw(st.integers(0, 19)) == 0:
            name = draw(st.sampled_from(pool))
            one[name] = draw(ODD | FITTING.get(name, TEXTS))
    if draw(st.booleans()):
        at = draw(TIMES)
        events = [{**one, "occurred_at": at} for one in events]
    return json.dumps(events).encode()


def one_by_one(posted: Posted, caller: Caller) -> list[Made | Bad]:
    maker = EventMaker(Everybody(), "pepper")
    entries = ingest.read(posted).entries
    return [one if isinstance(one, Bad) else maker.make(one, caller, NOW_US) for one in entries]


def at_once(posted: Posted, caller: Caller) -> Columns | None:
    events = ingest.columns(posted)
    return None if events is None else EventMaker(Everybody(), "pepper").make_all(events, caller, NOW_US)


@settings(max_examples=examples(400), deadline=None)
@given(bodies(), st.sampled_from(["", "batch-7"]), st.booleans())
def test_at_once_is_one_by_one(body: bytes, key: str, believed: bool) -> None:
    posted = Posted({"content-type": "application/json", "idempotency-key": key}, {}, body)
    caller = Caller("k", "ingest", "acme", may_set_identity=believed)
    try:
        made = at_once(posted, caller)
    except Problem:
        with pytest.raises(Problem):
            ingest.read(posted)
        return
    if made is None:
        return
    counters = Counters()
    for place, one in enumerate(one_by_one(posted, caller)):
        assert isinstance(one, Made), one
        assert (made.orgs[place], made.stable) == (one.org_id, one.stable)
        if made.stable:
            assert (made.ids[place], made.bodies[place]) == (one.event_id, one.body)
        else:
            assert made.bodies[place].replace(made.ids[place].encode(), one.event_id.encode()) == one.body
        counters.used(one.fields)
    assert made.used == (
        counters.metered, counters.tokens["input"], counters.tokens["output"], counters.timed, counters.took_ms
    )  # fmt: skip


MORE: dict[str, dict[str, Any]] = {
    "bare": {},
    "named": {"event_id": "call-{}"},
    "told": {"event_id": "0195d0e0-0000-7000-8000-{:012x}", "occurred_at": NOW_US, "org_id": "acme", "status": "OK"},
    "cached": {"cache_read_tokens": 400, "tags": {"team": "search"}, "stream": True, "latency_ms": 840},
    "timed": {"occurred_at": "2026-11-29T10:00:00+01:00", "usage_source": "PROVIDER", "extra_units": {"images": 1}},
}


@pytest.mark.parametrize("more", MORE.values(), ids=list(MORE))
def test_usual_bodies_are_read_at_once(more: dict[str, Any]) -> None:
    events = [USUAL | {name: _numbered(value, at) for name, value in more.items()} for at in range(3)]
    lines = b"\n".join(json.dumps(one).encode() for one in events)
    for kind, body in (("application/json", json.dumps(events).encode()), ("application/x-ndjson", lines)):
        made = at_once(Posted({"content-type": kind}, {}, body), Caller("k", "ingest", "acme", may_set_identity=True))
        assert made is not None
        assert len(set(made.ids)) == len(made.bodies) == 3


def _numbered(value: Any, at: int) -> Any:
    return value.format(at) if isinstance(value, str) else value


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def write(self, bodies: Sequence[bytes]) -> Durable:
        self.bodies += bodies
        return "kafka"


def test_a_repeat_is_known_whichever_way_either_went() -> None:
    [door] = (one for one in ingest.DOORS if one.path == "/ingest")
    now = time.time_ns() // 1_000
    events = [USUAL | {"event_id": f"call-{at}", "occurred_at": now} for at in range(3)]

    async def fates(kept: Kept, *sent: object) -> list[tuple[int, int, int]]:
        writer: Any = kept
        whole = Ingest(EventMaker(Everybody(), ""), Remembered(), writer, Counters())
        return [await _asked(whole, door, body) for body in sent]

    kept = Kept()
    again = [one | {"occurred_at": now + 1} for one in events]
    other = [one | {"input_tokens": 7} for one in events]
    single = [*events[:1], USUAL | {"event_id": "new", "tracking_token": "t" * 22}]  # a token: one by one
    told = asyncio.run(fates(kept, events, again, other, single, events[:2]))
    assert told == [(3, 0, 0), (0, 3, 0), (0, 0, 3), (1, 1, 0), (0, 2, 0)]
    assert len(kept.bodies) == 4


class Gate:
    """A writer whose writes wait for their turn, and fail if it says so."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.turns: list[asyncio.Future[bool]] = []

    async def write(self, bodies: Sequence[bytes]) -> Durable:
        turn = asyncio.get_running_loop().create_future()
        self.turns.append(turn)
        if not await turn:
            raise NotDurableError("away")
        self.bodies += bodies
        return "kafka"


def test_of_two_that_waited_for_what_failed_one_writes() -> None:
    [door] = (one for one in ingest.DOORS if one.path == "/ingest")
    now = time.time_ns() // 1_000
    one, other = (USUAL | {"event_id": f"call-{at}", "occurred_at": now} for at in range(2))

    async def fates(gate: Gate) -> list[Any]:
        writer: Any = gate
        whole = Ingest(EventMaker(Everybody(), ""), Remembered(), writer, Counters())
        asked = [
            asyncio.create_task(_asked(whole, door, body)) for body in ([one], [other], [one, other], [one, other])
        ]
        for fails in (0, 1):
            await _all_wait()
            gate.turns[fails].set_result(False)
        for _ in asked:
            await _all_wait()
            for turn in gate.turns:
                if not turn.done():
                    turn.set_result(True)
        return await asyncio.gather(*asked, return_exceptions=True)

    gate = Gate()
    told = asyncio.run(fates(gate))
    assert sorted(told[2:]) == [(0, 2, 0), (2, 0, 0)], told
    assert len(gate.bodies) == 2


async def _all_wait() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def _asked(whole: Ingest, door: Door, body: object) -> tuple[int, int, int]:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    caller = Caller("k", "ingest", "acme", may_set_identity=True)
    posted = Posted({"content-type": "application/json"}, {}, b"")
    try:
        answer = await whole.answer(door, receive, posted, caller, 1 << 20, "r")
        told = json.loads(answer.body)
    except Problem as problem:
        told = problem.more
    return told["accepted"], told["duplicates"], told["rejected"]
