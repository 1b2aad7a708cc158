"""A usage event means the same at every door: what is refused on the topic for its type is refused over HTTP, and back.

Every field is given every odd value, bare at `/ingest` and as a CloudEvent's data.
"""

import json
from typing import Any

import pytest

from tests.laws.test_server_doors import NOW_US, ODD, Everybody
from tollmeter.schemas import codec
from tollmeter.server.auth import Caller
from tollmeter.server.door import Bad, Posted
from tollmeter.server.doors import cloudevents, ingest
from tollmeter.server.events import EventMaker
from tollmeter.server.problems import Problem
from tollmeter.streams.rules.events.decode_json import decode_json

ID = "0195d0e0-0000-7000-8000-000000000001"
EVENT: dict[str, Any] = {
    "event_id": ID,
    "occurred_at": NOW_US,
    "service": "shop",
    "provider": "openai",
    "model_sent": "gpt-4o",
    "input_tokens": 10,
    "output_tokens": 2,
}
NAMES = sorted(set(codec.FIELDS) - {"event_id", "occurred_at"})
FILLED_IN = ("service", "provider")
"""Fields that the topic requires and the doors fill in."""
HALF = "\ud800"
"""Half of a character: the doors take a question mark in its place."""
KINDS = [
    *(value for value in ODD if value != HALF),
    5,
    5.5,
    "5",
    "true",
    {"a": 1},
    {"a": "1"},
    {"a": True},
    {"a": {}},
    {"a": None},
    ["a"],
]


def refused_on_the_topic(event: dict[str, Any]) -> bool:
    _, _, bad = decode_json([json.dumps(event).encode()])
    return bool(bad)


def read(event: dict[str, Any], door: str) -> Any:
    body = {"specversion": "1.0", "id": ID, "source": "shop", "type": "llm", "data": event}
    module, document = (ingest, event) if door == "/ingest" else (cloudevents, body)
    try:
        [entry] = module.read(Posted({"content-type": "application/json"}, {}, json.dumps(document).encode())).entries
    except Problem as problem:
        return Bad("", problem.code, problem.detail, problem.status)
    return entry


@pytest.mark.parametrize("door", ["/ingest", "/api/v1/events"])
@pytest.mark.parametrize("name", NAMES)
def test_a_type_that_the_topic_refuses_is_refused(name: str, door: str) -> None:
    for value in KINDS:
        event = {**EVENT, name: value}
        entry = read(event, door)
        if refused_on_the_topic(event) and (value is not None or name not in FILLED_IN):
            made = entry if isinstance(entry, Bad) else EventMaker(Everybody(), "").make(entry, CALLER, NOW_US)
            assert isinstance(made, Bad), (name, value, made)
        elif (value is not None or name not in FILLED_IN) and (name, value) != ("model_sent", ""):
            assert not isinstance(entry, Bad), (name, value, entry)


CALLER = Caller("k", "ingest", "acme", may_set_identity=True)
