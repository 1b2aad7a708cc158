"""The ClickHouse HTTP interface in front of a chDB folder: same clients, same statements as with a server.

Run as `python -m tollmeter.embedded.front --data DIR --port N --users FILE`. Loopback only. Not offered: the native
protocol, sessions and temporary tables across requests, progress, external data, native framing (`compress=1`).
The process is confined to its folder where the system can do that; elsewhere a writer's SQL reads every file of this
operating-system user.
"""

import argparse
import hmac
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from tollmeter.embedded import clickhouse_go_hello as hello
from tollmeter.embedded import http_answer
from tollmeter.embedded.confine import confine
from tollmeter.embedded.connections import Connections, TimedStream
from tollmeter.embedded.engine import Engine, User
from tollmeter.embedded.errors import FrontError
from tollmeter.embedded.http_request import body_size, check_head, credentials, malformed, query_id, read_body
from tollmeter.embedded.slots import Budget, Share, Slots
from tollmeter.embedded.statement import Statement, parse
from tollmeter.schemas.escapes import one_line

MAX_BODY = 64 << 20
READER_BODY = 1 << 20
IDLE_S, HEAD_S, BODY_S, DISCARD_S, ANSWER_S = 120.0, 15.0, 60.0, 10.0, 60.0
"""How long a connection waits for a request; how long its head, its body, a body that is of no use, and the way of the
answer to the client may take."""
_GRACE_S = 10.0
_AGAIN = 75
"""Exit code: start me again (EX_TEMPFAIL of sysexits.h)."""


class Front(ThreadingHTTPServer):
    """The listening server; connections, statements at once and bytes of bodies are bounded."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, users: Mapping[str, User], port: int) -> None:
        self.engine = engine
        self.users = users
        self.again = False
        self.connections = Connections()
        self.slots = Slots()
        self.budget = Budget()
        super().__init__(("127.0.0.1", port), _Request)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin the thread of a connection, if there is room for it."""
        if self.connections.add(request):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say in one line what ended a connection; its client being gone is nothing."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            sys.stderr.write(f"front: {type(error).__name__} ended a connection\n")

    def watch_space(self, ended: threading.Event) -> None:
        """Stop serving when the disk becomes short of space, to be started again; merge nothing while it is."""
        engine = self.engine
        if engine.space.look():
            sys.stderr.write("front: the disk is almost full: nothing is stored or merged until there is room\n")
            engine.merge(False)
            if not engine.space.wait(ended, short=False):
                return
            engine.merge(True)
            sys.stderr.write("front: there is room again\n")
        if engine.space.wait(ended, short=True):
            sys.stderr.write("front: the disk is almost full: starting again, so that what met its end is put aside\n")
            self.again = True
            self.shutdown()

    def close(self) -> bool:
        """Stop accepting, wait for the requests in work, close the folder; False when some of them would not end."""
        self.server_close()
        if not self.slots.close(_GRACE_S):
            return False
        self.engine.close()
        return True


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "tollmeter"
    sys_version = ""
    disable_nagle_algorithm = True
    server: Front
    _unread = False
    """Whether a body may still be on its way."""

    def setup(self) -> None:
        """Buffer writes (`SELECT 1` took 69 ms without, 18 ms with, on a busy machine); every wait has its end."""
        super().setup()
        self._stream = TimedStream(self.connection)
        self.rfile = io.BufferedReader(self._stream, 1 << 16)
        self.wfile = io.BufferedWriter(cast("io.RawIOBase", self._stream))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name is the base class's
        """Log nothing: statements may hold data."""

    def handle_one_request(self) -> None:
        """Wait for a request, and no longer than a request may take."""
        self._stream.idle(IDLE_S, HEAD_S)
        super().handle_one_request()
        self.server.connections.wait(self.connection)

    def do_GET(self) -> None:
        """Answer a read."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer a read without its body."""
        self._answer()

    def do_POST(self) -> None:
        """Answer any statement."""
        self._answer()

    def _answer(self) -> None:
        self._query_id = ""
        self._unread = True
        self._stream.within(ANSWER_S)
        try:
            check_head(self.headers, self.request_version)
            url, params = self._url()
            self._query_id = query_id(params)
            if url in ("/ping", "/replicas_status") or (self.command != "POST" and url == "/" and not params):
                return self._short(200, b"Ok.\n")
            if url not in ("", "/"):
                return self._short(404, b"There is no such path here.\n")
            self._run(self._user(params), params)
        except FrontError as error:
            self._fail(error)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # a bug here must not take the connection's thread down silently
            sys.stderr.write(one_line(f"front: {type(error).__name__}: {error}") + "\n")
            self._fail(FrontError(1001, f"{type(error).__name__}. (STD_EXCEPTION)", 500))

    def _url(self) -> tuple[str, dict[str, str]]:
        try:
            url = urlsplit(self.path)
            return url.path, dict(parse_qsl(url.query, keep_blank_values=True))
        except ValueError:
            raise FrontError(36, "the address cannot be read. (BAD_ARGUMENTS)", 400) from None

    def _user(self, params: Mapping[str, str]) -> User:
        name, password = credentials(params, self.headers)
        user = self.server.users.get(name)
        if user is None or not hmac.compare_digest(user.password.encode(), password.encode("utf-8", "replace")):
            text = "Authentication failed: password is incorrect, or there is no user with such name."
            raise FrontError(516, f"{text} (AUTHENTICATION_FAILED)")
        return user

    def _run(self, user: User, params: Mapping[str, str]) -> None:
        """Read the body whole, then take a place among the statements in work: nobody holds one by dripping bytes."""
        front = self.server
        if not user.readonly:
            front.connections.work(self.connection, trusted=True)
        with front.budget.share() as share:
            statement = self._statement(user, params, share)
            front.connections.work(self.connection, trusted=not user.readonly)
            with front.slots.taken(reader=user.readonly):
                self._answer_statement(user, statement, params)

    def _statement(self, user: User, params: Mapping[str, str], share: Share) -> Statement:
        size = body_size(self.headers)
        limit = READER_BODY if user.readonly else MAX_BODY
        if not user.readonly and size != 0:
            share.await_bytes(min(MAX_BODY, MAX_BODY if size is None else size))
        self._stream.within(BODY_S)
        body = read_body(self.rfile, size, limit)
        self._unread = False
        if user.readonly:
            return parse(params, self.headers, body, limit=READER_BODY)
        return parse(params, self.headers, body, reserve=share.add)

    def _answer_statement(self, user: User, statement: Statement, params: Mapping[str, str]) -> None:
        engine = self.server.engine
        headers = {"X-ClickHouse-Query-Id": self._query_id, "X-ClickHouse-Timezone": engine.timezone}
        if "client_protocol_version" in params and hello.QUERY.match(statement.query):
            headers |= {"X-ClickHouse-Format": "Native", "Content-Type": "application/octet-stream"}
            return self._reply(200, hello.block(engine.version, engine.timezone), headers)
        answer = engine.run(user, statement, may_write=self.command == "POST")
        body, described = http_answer.packed(answer, params, self.headers)
        return self._reply(200, body, headers | described)

    def _fail(self, error: FrontError) -> None:
        code = {"X-ClickHouse-Exception-Code": str(error.code), "X-ClickHouse-Query-Id": self._query_id}
        self._short(error.status, f"{error}\n".encode("utf-8", "replace"), code)

    def _short(self, status: int, text: bytes, headers: Mapping[str, str] | None = None) -> None:
        try:
            self._discard()
            self._reply(status, text, headers)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _discard(self) -> None:
        """Read the body of a refused request: closing over unread data would take the answer from the client.

        What cannot be read to its end would be taken for the next request: then the connection is closed.
        """
        if not self._unread:
            return
        try:
            left = body_size(self.headers)
        except FrontError:
            left = None
        if left is None or left > MAX_BODY or malformed(self.headers):
            self.close_connection = True
            return
        self._stream.within(DISCARD_S)
        while left > 0:
            piece = self.rfile.read(min(left, 1 << 16))
            if not piece:
                raise ConnectionResetError
            left -= len(piece)
        self._unread = False

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._stream.within(ANSWER_S)
        defaults = {"Content-Type": "text/plain; charset=UTF-8", "X-ClickHouse-Server-Display-Name": hello.NAME}
        self.send_response(status)
        for name, value in {**defaults, **(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


def read_users(file: Path) -> dict[str, User]:
    """Return the users of a JSON file: name -> {password, readonly, settings}."""
    return {name: User(**fields) for name, fields in json.loads(file.read_text()).items()}


def _confined_engine(folder: Path) -> Engine:
    """Open the folder in a process that can reach nothing else any more; the passwords have been read before."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "tmp"
    scratch.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = str(scratch)  # the engine begins with a folder there
    os.chdir(scratch)
    if not confine(folder):
        sys.stderr.write("front: this system has no Landlock: writers' SQL can read the files of this user\n")
    return Engine(folder)


def main() -> None:
    """Serve until SIGTERM or SIGINT; requests in work are answered first."""
    parser = argparse.ArgumentParser(prog="python -m tollmeter.embedded.front", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--users", type=Path, required=True)
    arguments = parser.parse_args()
    users = read_users(arguments.users)
    front = Front(_confined_engine(arguments.data), users, arguments.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the serving loop, which runs in the thread that gets the signal
        signal.signal(number, lambda *_: threading.Thread(target=front.shutdown).start())
    ended = threading.Event()
    threading.Thread(target=front.watch_space, args=(ended,), daemon=True).start()
    front.serve_forever(poll_interval=0.5)
    ended.set()
    if not front.close() or front.again:
        os._exit(_AGAIN if front.again else 0)  # a query may go on; the folder stands a kill at any moment


if __name__ == "__main__":
    main()
