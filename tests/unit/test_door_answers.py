"""What a door answers is what the description says of it: no member more, none missing, and the bytes clients know."""

import json
from functools import cache
from itertools import product
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tollmeter.server import answers, doors, openapi
from tollmeter.server.door import Door, Outcome, Posted, Result
from tollmeter.server.problems import Problem

DOCUMENT = openapi.document(doors.ALL, answers.routes())
RESULTS = (
    Result("", "accepted", "0195d0e0-0000-7000-8000-000000000001"),
    Result("[1]", "duplicate", "0195d0e0-0000-7000-8000-000000000002"),
    Result("[2]", "rejected", "one\ud800", "conflict", "model: \ud800", 409),
    Result("[3]", "rejected", "", "bad_field", "input_tokens: -1", 400),
)
DESCRIBED = [door for door in doors.ALL if door.answers]


def closed(schema: Any) -> Any:
    """Return a schema whose objects have no member that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(one) for name, one in schema.items()}
    return made | ({"additionalProperties": False} if "properties" in made else {})


def check(door: Door, status: int, body: bytes) -> None:
    """Hold an answer to the description."""
    validator = described(door.path, status)
    if validator is None:
        assert body == b""
    else:
        validator.validate(json.loads(body))


@cache
def described(path: str, status: int) -> Draft202012Validator | None:
    """Return what the description says of an answer's body; None for an answer without one."""
    said = DOCUMENT["paths"][path]["post"]["responses"][str(status)]
    if "content" not in said:
        return None
    schema = said["content"]["application/json"]["schema"]
    return Draft202012Validator(
        {**closed(schema), "components": {"schemas": closed(DOCUMENT["components"]["schemas"])}}
    )


@pytest.mark.parametrize("door", DESCRIBED, ids=lambda door: door.path)
def test_every_answer_is_as_described(door: Door) -> None:
    seen = set()
    for results in (RESULTS[:1], RESULTS[1:2], RESULTS[:2], RESULTS, ()):
        for single, durable, ignored, query in product(
            (True, False), ("kafka", "spool", ""), ({}, {"failed": 2}), ({}, {"results": "all"})
        ):
            if single and len(results) != 1:
                continue
            outcome = Outcome(results, durable, single, ignored, "r-1")
            try:
                answer = door.answer(Posted({}, query, b""), outcome)
            except Problem:
                continue
            seen.add(answer.status)
            check(door, answer.status, answer.body)
    assert seen == set(door.answers), "each status that is described comes"


def test_the_bytes_are_those_that_clients_know() -> None:
    (door,) = (door for door in doors.ALL if door.path == "/ingest")
    one = door.answer(Posted({}, {}, b""), Outcome(RESULTS[:1], "kafka", True, {}, "r"))
    assert one.body == (
        b'{"status":"stored","event_id":"0195d0e0-0000-7000-8000-000000000001","request_id":"r","durable":"kafka"}'
    )
    many = door.answer(Posted({}, {}, b""), Outcome(RESULTS[:1] + RESULTS[3:], "spool", False, {"failed": 1}, "r"))
    assert many.body == (
        b'{"accepted":1,"duplicates":0,"rejected":1,"ignored":{"failed":1},"durable":"spool","results":'
        b'[{"i":1,"status":"rejected","place":"[3]","code":"bad_field","detail":"input_tokens: -1"}],"request_id":"r"}'
    )
