"""Nobody without a writer's password keeps the front from a writer, reads a file by it, or confuses its requests."""

import http.client
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.fuzz.front import READER, WRITER, Writing, ask, front, hostile_requests, once, prepare
from tests.fuzz.reader import Canaries
from tollmeter.embedded.connections import MAX_CONNECTIONS
from tollmeter.embedded.slots import READERS_AT_ONCE, READERS_WAITING


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("front")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with front(folder) as chosen:
        prepare(chosen)
        yield chosen


def raw(port: int, *pieces: bytes) -> bytes:
    """Send bytes and return all that comes until the front closes or nothing more is on its way."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        answer = b""
        with suppress(BrokenPipeError, ConnectionResetError):  # answered and closed before all was sent
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # closed over what it did not read
            while piece := connection.recv(1 << 16):
                answer += piece
        return answer


def head(*lines: str, first: str = "POST / HTTP/1.1", host: str = "Host: localhost") -> bytes:
    user = ["X-ClickHouse-User: reader", f"X-ClickHouse-Key: {READER}"]
    return "\r\n".join([first, host, *user, *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("inputs", "seed"),
    [(300, 2), *(pytest.param(5_000, seed, marks=pytest.mark.nightly) for seed in range(1, 5))],
)
def test_hostile_requests_reach_no_file(port: int, folder: Path, inputs: int, seed: int) -> None:
    """At night twenty thousand, in four pieces; how long writers waited meanwhile is in the documents, not here."""
    with Writing(port) as writing:
        counts = hostile_requests(port, Canaries(folder), inputs, seed)
    assert counts["statuses"].keys() >= {200, 400, 403}
    assert writing.inserts > 0


@pytest.mark.parametrize("path", ["{folder}/users.json", "/etc/passwd", "/proc/self/environ", "/proc/{pid}/environ"])
def test_even_a_writer_reaches_nothing_outside(port: int, folder: Path, path: str) -> None:
    file = path.format(folder=folder, pid=os.getpid())
    for query in (f"SELECT file('{file}')", f"SELECT * FROM file('{file}', 'LineAsString', 'a String')"):
        status, answer = once(port, query, WRITER)
        assert status == 500, answer
        assert b"Permission denied" in answer
    made = folder / "made.csv"
    assert once(port, f"SELECT 1 INTO OUTFILE '{made}'", WRITER)[0] >= 400
    assert not made.exists()


def test_the_engine_connects_to_nothing(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        query = f"SELECT * FROM url('{address}', 'LineAsString', 'a String') SETTINGS http_max_tries = 1"
        assert once(port, query, WRITER)[0] >= 400
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_reader_cannot_ask_whether_a_file_exists(port: int, folder: Path) -> None:
    answers = {once(port, f"EXISTS TABLE `{folder / name}`", READER)[0] for name in ("users.json", "no-such-file")}
    assert answers == {403}


def test_a_view_of_a_file_is_refused_to_a_reader(port: int) -> None:
    query = "CREATE OR REPLACE VIEW probe (a String) AS SELECT a FROM file('/etc/passwd', 'LineAsString', 'a String')"
    assert once(port, query, WRITER)[0] == 200
    assert once(port, "SELECT * FROM probe", READER)[0] == 403
    assert once(port, "DROP VIEW probe", WRITER)[0] == 200
    status, answer = once(port, "SELECT * FROM probe", READER)
    assert status == 404, answer


SMUGGLED = b"GET /?query=SELECT%20777 HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "first", ["GET /ping HTTP/1.1", "POST /ping HTTP/1.1", "POST /nowhere HTTP/1.1", "GET / HTTP/1.1"]
)
def test_a_body_is_never_the_next_request(port: int, first: str) -> None:
    answer = raw(port, head(f"Content-Length: {len(SMUGGLED)}", first=first), SMUGGLED)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"777" not in answer
    chunked = raw(port, head("Transfer-Encoding: chunked", first=first), b"%x\r\n" % len(SMUGGLED), SMUGGLED)
    assert chunked.count(b"HTTP/1.1 ") <= 1


BAD_HEADS = {
    "two hosts": head("Host: localhost"),
    "no host": head(host="X-Nothing: 1"),
    "two lengths": head("Content-Length: 3", "Content-Length: 4") + b"abcd",
    "length and chunks": head("Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "length with a sign": head("Content-Length: +3") + b"abc",
    "length in other digits": head("Content-Length: \u0663") + b"abc",
    "other coding": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "blank before the colon": head("Content-Length : 3") + b"abc",
    "line without a colon": head("nonsense") + b"abc",
    "query_id in Cyrillic": head("Content-Length: 0", first="POST /?query=SELECT%201&query_id=%D0%B6 HTTP/1.1"),
    "query_id with a line end": head("Content-Length: 0", first="POST /?query=SELECT%201&query_id=a%0d%0ab HTTP/1.1"),
    "address": head("Content-Length: 0", first="POST http://[ HTTP/1.1"),
}


@pytest.mark.parametrize("case", BAD_HEADS)
def test_a_bad_head_is_the_clients_fault(port: int, folder: Path, case: str) -> None:
    answer = raw(port, BAD_HEADS[case])
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Traceback" not in answer
    assert (folder / "logs" / "front.log").read_text() == ""


@pytest.mark.parametrize("size", ["0x3", "-3", "+3", "1_0", "g", ""])
def test_a_bad_chunk_is_the_clients_fault(port: int, size: str) -> None:
    answer = raw(port, head("Transfer-Encoding: chunked"), size.encode() + b"\r\nabc\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 "), answer


@pytest.mark.parametrize("basic", ["Basic \u00e9", "Basic ZZZ", "Basic /w==", "Basic"])
def test_bad_credentials_are_no_traceback(port: int, folder: Path, basic: str) -> None:
    lines = ["POST / HTTP/1.1", "Host: localhost", f"Authorization: {basic}", "Content-Length: 0", "", ""]
    assert raw(port, "\r\n".join(lines).encode("latin-1")).startswith(b"HTTP/1.1 401 ")
    assert (folder / "logs" / "front.log").read_text() == ""


def threads(port: int) -> int:
    """Return how many threads the front has."""
    inode = next(
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    )
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(file.readlink()) == f"socket:[{inode}]" for file in (process / "fd").iterdir()):
                return len(list((process / "task").iterdir()))
        except OSError:
            continue
    raise AssertionError("no process listens there")


def open_connections(port: int, stack: ExitStack, count: int, first: bytes) -> list[socket.socket]:
    made = []
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        connection.sendall(first)
        made.append(connection)
    return made


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="counts threads in /proc")
def test_idle_connections_are_bounded_and_a_writer_keeps_its_own(port: int) -> None:
    with ExitStack() as stack:
        writer = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)))
        assert ask(writer, "SELECT 1", WRITER)[0] == 200
        before = threads(port)
        open_connections(port, stack, 2 * MAX_CONNECTIONS + 50, b"")
        assert threads(port) <= before + MAX_CONNECTIONS + 10
        kept = writer.sock
        assert ask(writer, "SELECT 2", WRITER) == (200, b"2\n")
        assert writer.sock is kept


DRIPS: dict[str, Callable[[int, ExitStack], object]] = {
    "idle": lambda port, stack: open_connections(port, stack, 200, b""),
    "heads that do not end": lambda port, stack: open_connections(port, stack, 200, b"POST / HTTP/1.1\r\nHost: loc"),
    "bodies that do not end": lambda port, stack: open_connections(port, stack, 200, _body(b"S")),
    "bodies of strangers": lambda port, stack: open_connections(
        port, stack, 200, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\nS"
    ),
    "chunks that do not end": lambda port, stack: open_connections(
        port, stack, 200, head("Transfer-Encoding: chunked") + b"5\r\nS"
    ),
    "answers that nobody reads": lambda port, stack: open_connections(port, stack, 60, _query(LONG_ANSWER)),
    "queries that take long": lambda port, stack: open_connections(port, stack, 60, _query(LONG_QUERY)),
}
LONG_ANSWER = "SELECT repeat('x', 1000) FROM numbers(50000)"
LONG_QUERY = "SELECT sum(sipHash64(number)) FROM numbers(100000000000)"


def _body(part: bytes) -> bytes:
    return head("Content-Length: 100") + part


def _query(text: str) -> bytes:
    return head(f"Content-Length: {len(text)}") + text.encode()


@pytest.mark.parametrize("case", DRIPS)
def test_no_writer_waits_for_a_hostile_reader(port: int, case: str) -> None:
    """Each of these held all places of the front until its time was over. Timings are in the documents, not here."""
    with ExitStack() as stack:
        DRIPS[case](port, stack)
        time.sleep(0.5)
        for number in range(5):
            assert once(port, f"INSERT INTO t VALUES ({number}, 'a', 'b')", WRITER)[0] == 200


def test_readers_beyond_the_queue_are_told_at_once(port: int) -> None:
    with ExitStack() as stack:
        waiting = open_connections(port, stack, READERS_AT_ONCE + READERS_WAITING + 8, _query(LONG_QUERY))
        told: dict[socket.socket, bytes] = {}
        deadline = time.monotonic() + 20
        while len(told) < 8 and time.monotonic() < deadline:
            ready, _, _ = select.select([one for one in waiting if one not in told], [], [], 0.5)
            told |= {one: one.recv(13) for one in ready}
        assert len(told) >= 8
        assert {*told.values()} == {b"HTTP/1.1 503 "}
