"""The ASGI application: ingest paths and the proxy are met before the router, everything else goes through it.

A door's path is looked up in a table; the proxy takes all that is below its own. Every answer carries a
request id, and every refusal is a problem document, whoever refused.
"""

import logging
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message, Receive, Scope, Send

from tollmeter.server import answers, doors, pages
from tollmeter.server.asking import TOLD, address_of
from tollmeter.server.auth import ADMIN, INGEST
from tollmeter.server.body import GoneError
from tollmeter.server.door import Door, Posted
from tollmeter.server.pages.along import Along
from tollmeter.server.pages.line import Line
from tollmeter.server.pages.lives import Lives
from tollmeter.server.parts import Parts
from tollmeter.server.problems import Headers, Problem

log = logging.getLogger("tollmeter.server")

PROXY = "/proxy/"
"""What is below goes to the proxy as it came. A `Problem` that it raises is answered here."""
REQUEST_ID = "tollmeter.request_id"
_GIVEN_ID = re.compile(r"[\w.:-]{1,128}")
_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
_ONE_VALUE = frozenset(
    (
        *("authorization", ADMIN, INGEST, "idempotency-key", "x-confirm-reset"),
        *("content-type", "content-encoding", "x-request-id", "origin"),
    )
)
"""Headers of which two would be read in two ways: whose key, which call, what kind of body."""
_EXPOSED = ["RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "X-Tollmeter-*"]


class Server:
    """One server as ASGI has it. `lifespan` connects and lets go."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._doors = {door.path: door for door in doors.ALL}
        self._router = Starlette(
            routes=[*answers.routes(), *pages.routes()],
            exception_handlers={HTTPException: _http_exception, Problem: _raise, Exception: _raise},
        )
        self._router.state.parts = parts
        self._router.state.along = self._along = Along(parts.line)
        self._router.state.lives = Lives()
        self._router.state.line = self._line = Line(parts.line)
        self._browsers = CORSMiddleware(
            self._plain,
            allow_origins=list(parts.settings.allowed_origins),
            allow_methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._parts.writer.start()
                await self._parts.registry.start()
                await self._parts.proxy.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._parts.proxy.stop()
                await self._along.close()
                await self._line.close()
                await self._parts.writer.stop()
                await self._parts.registry.stop()
                self._parts.ledger.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the request its id, and turn what is raised into an answer."""
        headers, twice = _headers_of(scope)
        scope["tollmeter.headers"] = headers
        given = headers.get("x-request-id", "")
        scope[REQUEST_ID] = request_id = given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(12)
        answer = _Answering(send, request_id, scope)
        browser = "origin" in headers
        try:
            if twice:
                raise Problem(400, "several_values", f"the header {twice} is there twice, with different values")
            if browser:
                self._check_origin(scope, headers)
            await (self._browsers if browser else self._plain)(scope, receive, answer)
        except GoneError:
            self._parts.counters.answers[499] += 1
            return
        except Problem as problem:
            self._parts.counters.problems[problem.status, problem.code] += 1
            await answer.problem(problem)
        except Exception:
            log.exception("request %s failed", request_id)
            await answer.problem(Problem(500, "internal", f"an internal error; the log has it under {request_id}"))
        self._parts.counters.answers[answer.status] += 1
        self._say(scope, answer.status)

    async def _plain(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        door = self._doors.get(path)
        if door is not None:
            await self._take(door, scope, receive, send)
            return
        if path.startswith(PROXY):
            await self._parts.proxy(scope, receive, send)
            return
        await self._router(scope, receive, send)

    async def _take(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a door take a request."""
        if scope["method"] != "POST":
            raise Problem(405, "method", f"{door.path} takes POST", headers={"allow": "POST"})
        parts, headers = self._parts, scope["tollmeter.headers"]
        try:
            caller = parts.doorman.identify(headers, ("ingest",))
        except Problem:
            parts.counters.bad_auth += 1
            raise
        limiter = parts.limits.machine if door.machine else parts.limits.ingest
        scope[TOLD] = limiter.take(caller.key_id or address_of(scope, parts), door.busy_status)
        settings = parts.settings
        most = settings.machine_max_bytes if door.machine else settings.ingest_max_bytes
        query: Mapping[str, str] = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        posted = Posted(headers, query, b"")
        answer = await parts.ingest.answer(door, receive, posted, caller, most, scope[REQUEST_ID])
        await _send(send, answer.status, answer.headers, answer.body)

    def _check_origin(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """A page of another origin may neither read nor do anything, also where no preflight asks."""
        origin, allowed = headers["origin"].lower(), self._parts.settings.allowed_origins
        own = f"{scope['scheme']}://{headers.get('host', '')}".lower()
        if scope["method"] != "OPTIONS" and origin != own and "*" not in allowed and origin not in allowed:
            raise Problem(403, "origin", "pages of this origin may not ask here; ALLOWED_ORIGINS names those that may")

    def _say(self, scope: Scope, status: int) -> None:
        """Log what failed, and one of a hundred others; never a query, which may hold a key."""
        if status >= 500 or self._parts.counters.answers[status] % 100 == 1:
            log.info("%s %s %d %s", scope["method"], scope["path"][:200], status, scope[REQUEST_ID])


def _headers_of(scope: Scope) -> tuple[dict[str, str], str]:
    """Return the headers, the first of each name, and the name of one that should say one thing and says two, or ""."""
    headers: dict[str, str] = {}
    twice = ""
    for name, value in scope["headers"]:
        known, text = name.decode("latin-1"), value.decode("latin-1")
        if headers.setdefault(known, text) != text and (known in _ONE_VALUE or known.startswith("ce-")):
            twice = known
    return headers, twice


class _Answering:
    """Sends an answer's messages on with the headers that all have, and knows whether it has begun."""

    __slots__ = ("_request_id", "_scope", "_send", "status")

    def __init__(self, send: Send, request_id: str, scope: Scope) -> None:
        self._send, self._request_id, self._scope, self.status = send, request_id, scope, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"] = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            own = (b"x-request-id", self._request_id.encode("latin-1"))  # a provider's answer has the provider's
            headers += [one for one in (own, *_ALWAYS, *self._scope.get(TOLD, ())) if one[0] not in present]
        await self._send(message)

    async def problem(self, problem: Problem) -> None:
        """Answer with a problem document; too late when another answer has begun."""
        if self.status:
            return
        with suppress(GoneError):
            await _send(self, problem.status, problem.head(), problem.body(self._request_id))


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


async def _http_exception(request: object, error: Exception) -> NoReturn:
    assert isinstance(error, HTTPException)
    names = {404: "not_found", 405: "method"}
    raise Problem(error.status_code, names.get(error.status_code, "http"), str(error.detail), headers=error.headers)


async def _raise(request: object, error: Exception) -> NoReturn:
    raise error
