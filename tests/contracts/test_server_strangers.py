"""Requests as other clients write them: each is taken as it is meant, or refused with a word, and none fails."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.test_server_sockets import HEAD, answer, connect
from tests.serving import CALL, KEYS, Serving, events
from tests.workers import Workers
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack
BODY = json.dumps(CALL).encode()
LENGTH = b"content-length: %d\r\n" % len(BODY)


@pytest.fixture
def serving(workers: Workers, tmp_path: Path) -> Serving:
    return Serving(workers, tmp_path / "spool")


def test_other_versions_methods_and_kinds(serving: Serving, line: Settings) -> None:
    close = b"connection: close\r\n"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    sent: dict[bytes, bytes] = {
        HEAD.replace(b"1.1", b"1.0") + LENGTH + b"\r\n" + BODY: b"201 ",
        HEAD + close + b"content-type: text/plain\r\n" + LENGTH + b"\r\n" + BODY: b"201 ",
        HEAD + close + b"content-type: application/x-www-form-urlencoded\r\n" + LENGTH + b"\r\n" + BODY: b"201 ",
        HEAD + close + b"transfer-encoding: chunked\r\n\r\n" + chunks: b"201 ",
        HEAD + close + LENGTH + LENGTH + b"\r\n" + BODY: b"400 ",
        HEAD.replace(b"POST", b"HEAD") + close + b"\r\n": b"405 ",
        HEAD.replace(b"POST", b"OPTIONS") + close + b"\r\n": b"405 ",
        HEAD.replace(b"POST", b"BREW") + close + b"\r\n": b"400 ",
        b"HEAD /ping HTTP/1.1\r\nhost: x\r\n" + close + b"\r\n": b"200 ",
        HEAD + close + b"\r\n": b"400 ",
    }
    with serving.start():
        told = {}
        for request in sent:
            with connect(serving) as connection:
                connection.sendall(request)
                told[request] = answer(connection).partition(b" ")[2][:4]
    assert {request[:90]: status for request, status in told.items() if status != sent[request]} == {}
    assert len(events(line)) == list(sent.values()).count(b"201 ")


def test_what_says_two_things_is_asked_again(serving: Serving, line: Settings) -> None:
    twice = [
        ("idempotency-key", "a", "b"),
        ("x-ingest-key", KEYS["INGEST_KEY"], "other"),
        ("content-type", "application/json", "application/x-ndjson"),
        ("content-encoding", "identity", "gzip"),
    ]
    with serving.start() as client:
        for name, first, second in twice:
            told = client.post("/ingest", content=BODY, headers=[(name, first), (name, second)])
            assert (told.status_code, told.json()["code"]) == (400, "several_values"), name
        same = client.post("/ingest", content=BODY, headers=[("idempotency-key", "a"), ("idempotency-key", "a")])
        assert same.status_code == 201
    assert len(events(line)) == 1


def test_bodies_that_no_json_is(serving: Serving, line: Settings) -> None:
    one: Any = CALL
    bodies = {
        json.dumps(one).encode("utf-8-sig"): (201, None),
        json.dumps([one]).encode("utf-8-sig"): (202, None),
        json.dumps(one).encode("utf-16"): (400, "not_utf8"),
        json.dumps(one | {"user_id": "é"}, ensure_ascii=False).encode("latin-1"): (400, "not_json"),
        b'{"model_sent": "gpt-4o", "input_tokens": NaN}': (400, "not_json"),
        b'{"model_sent": "gpt-4o", "input_tokens": 1e3}': (400, "bad_field"),
        b'{"model_sent": "gpt-4o", "input_tokens": "1000"}': (400, "bad_field"),
        b'{"model_sent": "gpt-4o", "input_tokens": 1%s}' % (b"0" * 400): (400, "bad_field"),
        b'{"model_sent": "gpt-4o", "input_tokens": 1%s}' % (b"0" * 9_000): (400, None),
        b'{"model_sent": "gpt-4o", "org_id": {"a": 1}}': (400, "bad_field"),
        b'{"model_sent": "gpt-4o", "user_id": 17}': (400, "bad_field"),
        b'{"model_sent": "gpt-4o", "occurred_at": "1970-01-01T00:00:00Z"}': (400, "time_out_of_range"),
        b'{"model_sent": "gpt-4o", "occurred_at": "9999-12-31T23:59:59-23:59"}': (400, None),
        b'{"model_sent": "gpt-4o", "occurred_at": 4102444800}': (400, "bad_time"),
        b"model=gpt-4o&input_tokens=1": (400, "not_json"),
    }
    with serving.start() as client:
        for body, (status, code) in bodies.items():
            told = client.post("/ingest", content=body)
            found = (told.status_code, told.json().get("code") if code else None)
            assert found == (status, code), (body[:80], told.text)
        assert "Traceback" not in serving.worker.text
    assert len(events(line)) == 2


def test_who_may_not_say_who_is_told(serving: Serving, line: Settings) -> None:
    claims = {"org_id": "other", "user_id": "eve", "group_id": "g"}
    with serving.start(INGEST_MAY_SET_IDENTITY="false") as client:
        told = client.post("/ingest", json=[CALL | claims, CALL | {"user_id": "eve"}, CALL])
        assert (told.status_code, told.headers["x-tollmeter-identity-ignored"]) == (202, "2")
        assert "x-tollmeter-identity-ignored" not in client.post("/ingest", json=CALL).headers
    assert {(one["org_id"], one["user_id"], one["group_id"]) for one in events(line)} == {("default", "", "")}
