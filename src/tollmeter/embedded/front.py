"""The ClickHouse HTTP interface in front of a chDB folder: same clients, same statements as with a server.

Run as `python -m tollmeter.embedded.front --data DIR --port N --users FILE`. Loopback only. Not offered: the native
protocol, sessions and temporary tables across requests, progress, external data, native framing (`compress=1`).
A writer can read every file of this operating-system user through SQL, hence the passwords and the Origin check.
"""

import argparse
import base64
import binascii
import gzip
import hmac
import json
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tollmeter.embedded import clickhouse_go_hello as hello
from tollmeter.embedded.engine import Answer, Engine, User
from tollmeter.embedded.errors import FrontError
from tollmeter.embedded.statement import Statement, parse

MAX_BODY = 64 << 20
MAX_AT_ONCE = 16
_IDLE_S = 600
_GRACE_S = 10.0
_AGAIN = 75
"""Exit code: start me again (EX_TEMPFAIL of sysexits.h)."""
_CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8; header=present",
}
_LOOPBACK_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)


class Front(ThreadingHTTPServer):
    """The listening server; `at_once` bounds the requests in work, and so the memory."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, users: Mapping[str, User], port: int) -> None:
        self.engine = engine
        self.users = users
        self.again = False
        self.at_once = threading.BoundedSemaphore(MAX_AT_ONCE)
        super().__init__(("127.0.0.1", port), _Request)

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
        deadline = time.monotonic() + _GRACE_S
        if not all(self.at_once.acquire(timeout=max(0.0, deadline - time.monotonic())) for _ in range(MAX_AT_ONCE)):
            return False
        self.engine.close()
        return True


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "tollmeter"
    sys_version = ""
    timeout = _IDLE_S
    wbufsize = -1  # buffered writes and no Nagle: `SELECT 1` took 69 ms without, 18 ms with, on a busy machine
    disable_nagle_algorithm = True
    server: Front
    _unread = False
    """Whether a body may still be on its way."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name is the base class's
        """Log nothing: statements may hold data."""

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
        query_id = ""
        self._unread = True
        try:
            url = urlsplit(self.path)
            params = dict(parse_qsl(url.query, keep_blank_values=True))
            query_id = re.sub(r"[^\w.:-]", "", params.get("query_id", ""))[:80] or str(uuid.uuid4())
            self._refuse_browsers()
            if url.path in ("/ping", "/replicas_status") or (self.command != "POST" and url.path == "/" and not params):
                return self._reply(200, b"Ok.\n")
            if url.path not in ("", "/"):
                return self._reply(404, b"There is no such path here.\n")
            user = self._user(params)
            with self.server.at_once:
                return self._run(user, parse(params, self.headers, self._body()), params, query_id)
        except FrontError as error:
            self._fail(error, query_id)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # a bug here must not take the connection's thread down silently
            sys.stderr.write(f"front: {type(error).__name__}: {error}\n")
            self._fail(FrontError(1001, f"{type(error).__name__}. (STD_EXCEPTION)", 500), query_id)

    def _refuse_browsers(self) -> None:
        """A page in the user's browser can reach loopback; programs send no Origin and name loopback as host."""
        if "Origin" in self.headers or not _LOOPBACK_HOST.fullmatch(self.headers.get("Host", "localhost")):
            raise FrontError(516, "requests from web pages are not accepted. (AUTHENTICATION_FAILED)", 403)

    def _user(self, params: Mapping[str, str]) -> User:
        name, password = params.get("user"), params.get("password", "")
        if self.headers.get("X-ClickHouse-User"):
            name, password = self.headers["X-ClickHouse-User"], self.headers.get("X-ClickHouse-Key", "")
        basic = self.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            try:
                name, _, password = base64.b64decode(basic[6:]).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                name = ""
        user = self.server.users.get(name if name is not None else "default")
        if user is None or not hmac.compare_digest(user.password.encode(), password.encode()):
            text = "Authentication failed: password is incorrect, or there is no user with such name."
            raise FrontError(516, f"{text} (AUTHENTICATION_FAILED)")
        return user

    def _body(self) -> bytes:
        try:
            if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
                return self._chunks()
            size = int(self.headers.get("Content-Length") or 0)
            if not 0 <= size <= MAX_BODY:
                raise ValueError(size)
        except ValueError:
            raise FrontError(36, f"body malformed or larger than {MAX_BODY} bytes. (BAD_ARGUMENTS)", 413) from None
        body = self.rfile.read(size)
        if len(body) != size:
            raise ConnectionError
        self._unread = False
        return body

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := int(self.rfile.readline(100).split(b";")[0], 16):
            if size < 0 or len(body) + size > MAX_BODY:
                raise ValueError(size)
            body += self.rfile.read(size)
            self.rfile.readline(100)
        while self.rfile.readline(1000).strip():
            pass  # trailers
        self._unread = False
        return bytes(body)

    def _run(self, user: User, statement: Statement, params: Mapping[str, str], query_id: str) -> None:
        engine = self.server.engine
        headers = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Timezone": engine.timezone}
        if "client_protocol_version" in params and hello.QUERY.match(statement.query):
            headers |= {"X-ClickHouse-Format": "Native", "Content-Type": "application/octet-stream"}
            return self._reply(200, hello.block(engine.version, engine.timezone), headers)
        answer = engine.run(user, statement, may_write=self.command == "POST")
        headers |= _describe(answer)
        body = answer.body
        if len(body) > 512 and self._wants_gzip(params):
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        return self._reply(200, body, headers)

    def _wants_gzip(self, params: Mapping[str, str]) -> bool:
        """Compress only when asked by setting; clickhouse-go never asks but expects it."""
        agent = self.headers.get("User-Agent", "")
        asked = params.get("enable_http_compression") == "1" or "Go-http" in agent or "clickhouse-go" in agent
        return asked and "gzip" in self.headers.get("Accept-Encoding", "")

    def _fail(self, error: FrontError, query_id: str) -> None:
        code = {"X-ClickHouse-Exception-Code": str(error.code), "X-ClickHouse-Query-Id": query_id}
        try:
            self._discard()
            self._reply(error.status, f"{error}\n".encode(), code)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _discard(self) -> None:
        """Read the body of a refused request: closing over unread data would take the answer from the client."""
        size = self.headers.get("Content-Length", "0")
        if not self._unread:
            return
        if not size.isdecimal() or int(size) > MAX_BODY or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return
        left = int(size)
        while left > 0 and (piece := self.rfile.read(min(left, 1 << 16))):
            left -= len(piece)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
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


def _describe(answer: Answer) -> dict[str, str]:
    summary = json.dumps({name: str(value) for name, value in answer.summary.items()})  # strings, as upstream
    headers = {"X-ClickHouse-Summary": summary}
    if answer.format:
        headers["X-ClickHouse-Format"] = answer.format
        headers["Content-Type"] = _CONTENT_TYPES.get(answer.format, "application/octet-stream")
    return headers


def read_users(file: Path) -> dict[str, User]:
    """Return the users of a JSON file: name -> {password, readonly, settings}."""
    return {name: User(**fields) for name, fields in json.loads(file.read_text()).items()}


def main() -> None:
    """Serve until SIGTERM or SIGINT; requests in work are answered first."""
    parser = argparse.ArgumentParser(prog="python -m tollmeter.embedded.front", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--users", type=Path, required=True)
    arguments = parser.parse_args()
    front = Front(Engine(arguments.data), read_users(arguments.users), arguments.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the serving loop, which runs in the thread that gets the signal
        signal.signal(number, lambda *_: threading.Thread(target=front.shutdown).start())
    ended = threading.Event()
    threading.Thread(target=front.watch_space, args=(ended,), daemon=True).start()
    front.serve_forever(poll_interval=0.1)
    ended.set()
    if not front.close() or front.again:
        os._exit(_AGAIN if front.again else 0)  # a query may go on; the folder stands a kill at any moment


if __name__ == "__main__":
    main()
