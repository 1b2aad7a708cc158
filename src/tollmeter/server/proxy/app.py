"""`/proxy/<upstream>/…`: who asks, may he, what for; then the exchange with the provider. Raw ASGI, one request a call.

A path, key or caller that is not good enough is refused before a body is read; the guard refuses in its own words.
Query strings and bodies are in no log, and keys of ours neither in a log nor in what goes on.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.types import Receive, Scope, Send

from tollmeter.producers.client import scope as calls
from tollmeter.producers.client.durable import DurableProducer
from tollmeter.producers.guard.guard import Deny, Guard
from tollmeter.producers.http.answer import PREFIX, REFUSED
from tollmeter.producers.http.refused import content, shaped
from tollmeter.producers.middleware.forwarded import Proxies, caller_address
from tollmeter.server.auth import Caller, Directory
from tollmeter.server.body import GoneError
from tollmeter.server.limits import Limiter
from tollmeter.server.problems import Problem, encoded
from tollmeter.server.proxy.aim import Aim, aim
from tollmeter.server.proxy.config import ProxyConfig
from tollmeter.server.proxy.exchange import CutShortError, Exchange
from tollmeter.server.proxy.fall_back import Fallback
from tollmeter.server.proxy.headers import Pairs, to_provider
from tollmeter.server.proxy.identity import scope_of
from tollmeter.server.proxy.keys import our_key, query_without_key, without_keys
from tollmeter.server.proxy.operations import check_body, check_operation, operation_of
from tollmeter.server.proxy.upstream import Asked, Provider

ROLES = ("ingest", "admin")
REQUEST_ID = "tollmeter.request_id"
"""Where the server has put the id of a request."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the proxy works with. `trusted` proxies in front of it say who calls (`producers/middleware/forwarded`)."""

    directory: Directory
    producer: DurableProducer
    guard: Guard
    environment: Mapping[str, str]
    trusted: Proxies = ()
    limiter: Limiter | None = None
    """Of requests by key, as all doors for machines have it."""


class Proxy:
    """The ASGI application below `/proxy/`."""

    def __init__(self, config: ProxyConfig, parts: Parts) -> None:
        self._parts = parts
        self.providers = {
            name: Provider(name, entry, parts.environment, parts.producer, parts.guard)
            for name, entry in config.upstreams.items()
        }
        self._fallback = Fallback(config.fallback, self.providers, self._begin) if config.fallback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises `Problem` for one that is refused here, `GoneError` when its caller hung up."""
        try:
            with suppress(CutShortError):  # the server ends the connection: what was sent of the answer is not whole
                await self._serve(scope, receive, send)
        except Problem as problem:  # an SDK reads no problem document: it gets the same in its own words, too
            path = scope["raw_path"].decode("latin-1").partition("?")[0]
            raise problem.with_more(shaped(path, problem.status, problem.code, problem.detail)) from None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = aim(scope["raw_path"])
        provider = self._provider(target)
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        query = scope["query_string"].decode("latin-1")
        _no_sockets(headers)
        caller = self._caller(our_key(headers, query, target.key, provider.entry.key))
        if self._parts.limiter is not None:
            self._parts.limiter.take(caller.key_id)
        known = scope_of(caller, headers).with_fields({"billing_scope": provider.entry.billing_scope})
        known = known.with_fields({"request_id": scope[REQUEST_ID], **known.fields})
        asked = _asked(scope["method"], target, query, headers, provider)
        provider.require()
        operation = operation_of(asked.method, unquote(asked.path))
        check_operation(operation, provider.entry.operations, provider.name)
        check_body(operation, asked.header("content-type"))
        peer = scope.get("client")
        known = known.with_fields(
            {"client_ip": caller_address(headers, peer[0] if peer else None, self._parts.trusted)}
        )
        known, deny = self._admit(known)
        if deny is not None:
            await _refuse(send, deny, str(known.fields["request_id"]), asked.path)
            return
        asked = asked._replace(content=await _body(receive, asked, provider.entry.max_body_bytes))
        token = calls.enter(known)
        try:
            await self._pass(provider, asked, scope, receive, send)
        finally:
            calls.leave(token)

    def _provider(self, target: Aim) -> Provider:
        provider = self.providers.get(target.upstream)
        if provider is None:
            known = ", ".join(sorted(self.providers))
            raise Problem(404, "no_upstream", f"no upstream {target.upstream}: there are {known}")
        return provider

    def _caller(self, key: str) -> Caller:
        caller = self._parts.directory.caller(key)
        if caller is None and not self._parts.directory.loaded:
            raise Problem(503, "keys_unknown", "the keys are not known yet: ask again", headers={"retry-after": "1"})
        if caller is None:
            raise Problem(401, "bad_key", "no such key of this server; the provider was not asked")
        if caller.role not in ROLES:
            raise Problem(403, "wrong_role", f"this key is for {caller.role}; calls need one for ingest")
        return caller

    def _admit(self, known: calls.Scope) -> tuple[calls.Scope, Deny | None]:
        """Ask the guard about the caller alone, before his body is read; what it counts is not counted again."""
        fields = dict(known.fields)
        org, user, address = (str(fields.pop(name, "")) for name in ("org_id", "user_id", "client_ip"))
        deny = self._parts.guard.admit(org=org, user=user, client_ip=address, **fields)
        return known._replace(counted=frozenset(("client_ip",) if address else ())), deny

    def _begin(self, provider: Provider, asked: Asked) -> Exchange:
        return Exchange(provider, asked, self._parts.producer)

    async def _pass(self, provider: Provider, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the call made and passed on; given up as soon as its caller hangs up."""
        task = asyncio.current_task()
        assert task is not None
        watching = asyncio.ensure_future(_hung_up(receive, task))
        exchange: Exchange | None = None
        try:
            exchange = await self._open(provider, asked)
            await exchange.pass_on(send, trailers="http.response.trailers" in scope.get("extensions", {}))
        except asyncio.CancelledError:
            if not watching.done() or watching.cancelled():
                raise
            task.uncancel()
        finally:
            watching.cancel()
            if exchange is not None:
                await exchange.close()

    async def _open(self, provider: Provider, asked: Asked) -> Exchange:
        if self._fallback is not None and self._fallback.serves(provider, asked):
            return await self._fallback.open(asked)
        exchange = self._begin(provider, asked)
        await exchange.open()
        return exchange

    async def close(self) -> None:
        """Close the connections to providers; calls under way end."""
        for provider in self.providers.values():
            with suppress(Exception):
                await provider.close()


def _asked(method: str, target: Aim, query: str, headers: Pairs, provider: Provider) -> Asked:
    whose = provider.entry.key
    passed = to_provider(without_keys(headers, whose))
    return Asked(method, target.path, query_without_key(query, whose), passed, b"")


def _no_sockets(headers: Pairs) -> None:
    """Raise `Problem` 501 for what wants to be a WebSocket: as a plain request the provider would answer oddly."""
    if any(name == "upgrade" and "websocket" in value.lower() for name, value in headers):
        text = (
            "WebSockets, as realtime APIs use them, do not go through this proxy, and the provider was not asked: "
            "connect to it directly, and send what the session used to /ingest"
        )
        raise Problem(501, "no_websockets", text, headers={"connection": "close"})


async def _hung_up(receive: Receive, task: "asyncio.Task[None]") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


async def _body(receive: Receive, asked: Asked, most: int) -> bytes:
    """Return the body as it came, packed or not. Raises `Problem` 413, and `GoneError`."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise GoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Problem(413, "too_large", f"the body is larger than {most} bytes, which this upstream takes")
        if not message.get("more_body"):
            return b"".join(parts)


async def _refuse(send: Send, deny: Deny, request_id: str, path: str) -> None:
    """Answer as the guard words it, in the shape of the interface that was asked."""
    told = {
        "content-type": "application/json",
        "x-should-retry": "false",
        REFUSED: deny.error,
        PREFIX + "request-id": request_id,
        PREFIX + "event-id": deny.event_id,
        **deny.headers,
    }
    await _answer(send, deny.http_status, encoded(told.items()), content(deny, path))


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
