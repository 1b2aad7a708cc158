"""Clients that misbehave on the wire: what they send slowly, half, too large or not at all costs no other client."""

import gzip
import json
import socket
import zlib
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import zstandard

from tests.patience import eventually
from tests.serving import CALL, Serving, events
from tests.workers import Workers
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack
HEAD = b"POST /ingest HTTP/1.1\r\nhost: x\r\nx-ingest-key: ingest-key\r\n"


@pytest.fixture
def serving(workers: Workers, tmp_path: Path) -> Serving:
    return Serving(workers, tmp_path / "spool")


def connect(serving: Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", httpx.URL(serving.url).port or 0), timeout=60)


def answer(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    parts = []
    while data := connection.recv(65_536):
        parts.append(data)
    return b"".join(parts)


def test_bodies_in_pieces(serving: Serving, line: Settings) -> None:
    body = json.dumps(CALL).encode()
    pieces = b"".join(b"%x;ext=1\r\n%s\r\n" % (1, body[place : place + 1]) for place in range(len(body)))
    with serving.start(), connect(serving) as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n")
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for byte in pieces + b"0\r\nx-trailer: 1\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert b" 201 Created" in connection.recv(65_536)
        pipelined = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
        connection.sendall(pipelined + pipelined + HEAD + b"connection: close\r\ncontent-length: 1\r\n\r\n{")
        whole = answer(connection)
        assert (whole.count(b" 201 Created"), whole.count(b" 400 Bad Request")) == (2, 1)
    assert len(events(line)) == 3


def test_what_is_no_request(serving: Serving) -> None:
    wrong = {
        b"GET / HTTP/9.9\r\n\r\n": b"400 ",
        b"\x16\x03\x01\x02\x00": b"400 ",
        HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": b"400 ",
        HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}": b"400 ",
        HEAD + b"content-length: -1\r\n\r\n": b"400 ",
        HEAD + b"x: " + b"y" * 40_000 + b"\r\n\r\n": b"431 ",
        HEAD + b"x: " + b"y" * 40_000: b"431 ",
        HEAD + b"".join(b"x%d: y\r\n" % one for one in range(9_000)) + b"\r\n": b"431 ",
        b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\n\r\n": b"431 ",
        HEAD + b"content-length: 99999999999\r\nconnection: close\r\n\r\n": b"413 ",
    }
    with serving.start() as client:
        for sent, status in wrong.items():
            with connect(serving) as connection:
                connection.sendall(sent)
                told = answer(connection)
                assert told.startswith(b"HTTP/1.1 " + status), (sent[:80], told[:200])
                assert b"application/problem+json" in told
        assert client.get("/ping").status_code == 200


def test_packed_bodies(serving: Serving, line: Settings) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    packed = b"".join([*(bomb.compress(bytes(1 << 20)) for _ in range(1_024)), bomb.flush()])
    good = json.dumps(CALL).encode()
    bodies = [
        ("gzip", gzip.compress(good), 201),
        ("gzip", gzip.compress(good[:5]) + gzip.compress(good[5:]), 201),
        ("zstd", zstandard.compress(good), 201),
        ("zstd", zstandard.ZstdCompressor().compressobj().compress(good), 400),
        ("gzip", packed, 413),
        ("zstd", zstandard.compress(bytes(64 << 20)), 413),
        ("gzip", gzip.compress(good)[:-9], 400),
        ("gzip", good, 400),
        ("zstd", good, 400),
        ("br", good, 415),
        ("gzip, gzip", gzip.compress(gzip.compress(good)), 415),
        ("identity", b"[" * 100_000, 400),
        ("identity", b'{"tags":' * 4_000, 400),
        ("identity", bytes(6 << 20), 413),
    ]
    with serving.start() as client:
        for encoding, body, status in bodies:
            told = client.post("/ingest", content=body, headers={"content-encoding": encoding})
            assert told.status_code == status, (encoding, body[:40], told.text)
        assert client.post("/ingest", json=[CALL] * 1_001).status_code == 413
        assert client.post("/ingest", content=b"\xff").status_code == 400
    assert len(events(line)) == 3


def test_the_slow_and_the_half_open_are_closed_and_others_work(serving: Serving, line: Settings) -> None:
    more = {"SERVER_CONNECTIONS": "60", "SERVER_CONNECTIONS_PER_ADDRESS": "50"}
    with serving.start(**more) as client, ExitStack() as stack:
        assert client.get("/ping").status_code == 200
        slow_head, slow_body = (stack.enter_context(connect(serving)) for _ in range(2))
        slow_head.sendall(HEAD)
        slow_body.sendall(HEAD + b"content-length: 50\r\n\r\n{")
        assert answer(slow_head).startswith(b"HTTP/1.1 408 ")
        assert answer(slow_body).startswith(b"HTTP/1.1 408 ")
        half_open = [stack.enter_context(connect(serving)) for _ in range(200)]
        for one in half_open[:100]:
            one.send(HEAD)
        for number in range(20):
            assert client.post("/ingest", json=CALL | {"event_id": str(number)}).status_code == 201
        closed = [one for one in half_open if is_closed(one)]
        assert closed[0] is half_open[0]
        assert 100 <= len(closed) <= 160
    assert len(events(line)) == 20


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_a_client_that_hangs_up_costs_nothing(serving: Serving) -> None:
    with serving.start() as client:
        for _ in range(50):
            with connect(serving) as connection:
                connection.sendall(HEAD + b"content-length: 50\r\n\r\n{")
        eventually(lambda: client.get("/ping").status_code == 200, 10)
        assert "Traceback" not in serving.worker.text
