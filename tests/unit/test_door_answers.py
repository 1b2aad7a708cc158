"""What a door answers is what the description says of it: no member more, none missing, and the bytes clients know."""

from itertools import product

import pytest

from tests.described import hold
from tollmeter.server import doors
from tollmeter.server.door import Door, Outcome, Posted, Result
from tollmeter.server.problems import Problem

RESULTS = (
    Result("", "accepted", "0195d0e0-0000-7000-8000-000000000001"),
    Result("[1]", "duplicate", "0195d0e0-0000-7000-8000-000000000002"),
    Result("[2]", "rejected", "one\ud800", "conflict", "model: \ud800", 409),
    Result("[3]", "rejected", "", "bad_field", "input_tokens: -1", 400),
)


@pytest.mark.parametrize("door", doors.ALL, ids=lambda door: door.path)
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
                answer = door.answer(Posted({"content-type": "application/json"}, query, b""), outcome)
            except Problem:
                continue
            seen.add(answer.status)
            hold(door.path, "POST", answer.status, "application/json", answer.body)
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
