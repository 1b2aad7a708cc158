"""Whatever a body holds, a door reads calls, says what is wrong with them, or refuses it; it never fails.

Bodies are those of real senders with pieces cut, doubled, swapped and made odd, from a seed.
"""

import json
import random
import time
from typing import Any

import pytest

from tollmeter.server import doors
from tollmeter.server.auth import Caller, TrackingToken
from tollmeter.server.counters import Counters
from tollmeter.server.door import Bad, Door, Posted
from tollmeter.server.events import EventMaker, Made
from tollmeter.server.problems import Problem
from tollmeter.server.remembered import contents_of

NOW_US = 1_795_946_400_250_000
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**31, 2**53, 2**64, 10**30, 1795946400, "", "0", "-1", "1e999"),
    *("\u0000", "\ud800", "é" * 300, "sk-" + "a" * 20, "2026-11-29T10:00:00Z", "9999-99-99", "OK", [], {}, [[]], [{}]),
    *({"": ""}, {"a": None}, [None] * 20, {str(one): one for one in range(40)}, "0195d0e0-0000-7000-8000-00000000000G"),
]
USAGE = {
    "tracking_token": "abcdefghijklmnopqrstuv",
    "model": "gpt-4o",
    "prompt_tokens": 10,
    "completion_tokens": 2,
    "total_tokens": 12,
    "timestamp": "2026-11-29T10:00:00Z",
    "event_id": "one",
    "tags": {"a": "b"},
}
EVENT = {"model_sent": "gpt-4o", "input_tokens": 10, "output_tokens": 2, "extra_units": {"images": 1}, "stream": True}
CLOUD = {
    "specversion": "1.0",
    "type": "llm",
    "id": "1",
    "source": "kong",
    "subject": "ann",
    "time": "2026-11-29T10:00:00Z",
    "data": {"model": "gpt-4o", "prompt_tokens": 1_000, "completion_tokens": 200, "cost": 0.5},
}
LITELLM = {
    "id": "chatcmpl-1",
    "litellm_call_id": "1",
    "call_type": "acompletion",
    "status": "success",
    "stream": True,
    "custom_llm_provider": "openai",
    "model": "gpt-4o",
    "prompt_tokens": 10,
    "completion_tokens": 2,
    "response_cost": 0.1,
    "startTime": 1795946400.25,
    "endTime": 1795946401.25,
    "completionStartTime": 1795946400.5,
    "api_base": "https://api.openai.com/v1",
    "cost_breakdown": {"service_tier": None},
    "metadata": {"usage_object": {"prompt_tokens": 10, "completion_tokens": 2}, "user_api_key_hash": "x"},
    "error_information": {"error_code": "429"},
    "request_tags": ["a:b", "c"],
    "messages": [{"role": "user", "content": "hi"}],
}
ATTRIBUTES = [
    {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
    {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o"}},
    {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "10"}},
]
SPAN = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "name": "chat gpt-4o",
    "startTimeUnixNano": "1795946400250000000",
    "endTimeUnixNano": "1795946401250000000",
    "attributes": ATTRIBUTES,
}
RECORD = {
    "timeUnixNano": "1795946400250000000",
    "body": {"stringValue": "claude_code.api_request"},
    "attributes": [
        {"key": "event.name", "value": {"stringValue": "api_request"}},
        {"key": "model", "value": {"stringValue": "claude-sonnet-4-5-20250929"}},
        {"key": "input_tokens", "value": {"intValue": "10"}},
        {"key": "output_tokens", "value": {"intValue": 7}},
        {"key": "session.id", "value": {"stringValue": "s"}},
        {"key": "event.sequence", "value": {"intValue": "7"}},
    ],
}
SEEDS: dict[str, list[Any]] = {
    "/ingest": [USAGE, EVENT, [USAGE, EVENT]],
    "/log": [USAGE],
    "/api/v1/events": [CLOUD, [CLOUD, {**CLOUD, "data": EVENT}]],
    "/ingest/litellm": [[LITELLM], LITELLM, [LITELLM, {**LITELLM, "status": "failure"}]],
    "/v1/traces": [{"resourceSpans": [{"resource": {"attributes": ATTRIBUTES}, "scopeSpans": [{"spans": [SPAN]}]}]}],
    "/v1/logs": [
        {
            "resourceLogs": [
                {
                    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "claude-code"}}]},
                    "scopeLogs": [{"logRecords": [RECORD]}],
                }
            ]
        }
    ],
    "/v1/metrics": [{"resourceMetrics": []}],
}
KINDS = {
    "/api/v1/events": ("application/cloudevents+json", "application/cloudevents-batch+json", "application/json", "x"),
    "/v1/traces": ("application/json", "application/x-protobuf"),
    "/v1/logs": ("application/json", "application/x-protobuf"),
}


class Everybody:
    """Knows each token."""

    active_tokens = 1

    def caller(self, secret: str) -> Caller | None:
        return None

    def token(self, value: str) -> TrackingToken | None:
        return TrackingToken("1", "any", value, "acme")


def bent(value: Any, draw: random.Random) -> Any:
    """Return a document with one place of it changed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        act = draw.random()
        if act < 0.1:
            return {key: item for key, item in value.items() if key != name}
        if act < 0.15:
            return {**value, draw.choice(["x", "specversion", "model", "model_sent", name.upper()]): draw.choice(ODD)}
        return {**value, name: bent(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        return [*value[:place], bent(value[place], draw), *value[place + draw.choice((0, 1, 1, 1)) :]]
    return draw.choice(ODD)


def body_of(seed: Any, draw: random.Random) -> bytes:
    """Return a body: a bent document, at times with bytes cut or changed, at times as lines."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        seed = bent(seed, draw)
    if isinstance(seed, list) and draw.random() < 0.2:
        text = b"\n".join(json.dumps(one).encode() for one in seed)
    else:
        text = json.dumps(seed).encode()
    if draw.random() < 0.2 and text:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice((b"", b"\xff", b"\x00", b"[", b'"')) + text[place + draw.randrange(3) :]
    return text


def outcome(door: Door, posted: Posted, maker: EventMaker) -> str:
    """Return what became of a body, in a word."""
    try:
        reading = door.read(posted)
    except Problem as problem:
        return "refused" if 400 <= problem.status < 500 and problem.detail else "failed"
    except RecursionError:
        return "deep"  # the doors' frame answers it with 400
    caller = Caller("k", "ingest", "acme", may_set_identity=True)
    made = [one if isinstance(one, Bad) else maker.make(one, caller, NOW_US) for one in reading.entries]
    for one in made:
        assert isinstance(one, Made) or (one.code and one.detail and 400 <= one.status < 500)
        if isinstance(one, Made):
            other = one.body.replace(one.event_id.encode(), b"0195d0e0-0000-7000-8000-000000000001")
            assert contents_of([one.body]) == contents_of([other])
            Counters().used(one.fields)
    return "taken" if any(isinstance(one, Made) for one in made) else "rejected"


@pytest.mark.parametrize("door", doors.ALL, ids=lambda door: door.path)
@pytest.mark.parametrize("count", [1_500, pytest.param(150_000, marks=pytest.mark.nightly)])
def test_no_body_makes_a_door_fail(door: Door, count: int) -> None:
    number = time.time_ns() % 2**32
    draw = random.Random(number)
    maker, seen = EventMaker(Everybody(), ""), dict[str, int]()
    for place in range(count):
        body = body_of(draw.choice(SEEDS[door.path]), draw)
        headers = {"content-type": draw.choice(KINDS.get(door.path, ("application/json",)))}
        try:
            what = outcome(door, Posted(headers, {}, body), maker)
        except Exception as error:
            raise AssertionError(f"seed {number}, body {place}: {body!r}") from error
        seen[what] = seen.get(what, 0) + 1
    print(f"{door.path}: {count} bodies from seed {number}: {seen}")
    assert "failed" not in seen
    assert door.path == "/v1/metrics" or {"taken", "refused"} <= seen.keys(), seen
