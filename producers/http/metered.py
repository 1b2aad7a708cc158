"""One line guards and meters an application: the HTTP client of its SDK, wrapped; bytes pass through untouched.

`httpx` and `httpx2` are the same shape under two names. Neither is imported here: the client given says which it is.
"""

import sys
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any, TypeVar, cast

from tollmeter.producers.client.scope import Scope
from tollmeter.producers.http import library
from tollmeter.producers.http.answer import EXTENSION
from tollmeter.producers.http.attempt import Attempt, begin
from tollmeter.producers.http.interfaces import Guarding, Producing, Refusal, Request
from tollmeter.producers.http.library import AsyncBody, Body, Exit, HttpRequest, HttpResponse, Library, Transport
from tollmeter.producers.http.meter import Meter
from tollmeter.producers.http.models import with_model
from tollmeter.producers.http.poll import Fetch, fetch
from tollmeter.producers.http.request import worth_reading
from tollmeter.producers.http.response import readable
from tollmeter.producers.http.tee import AsyncTee, SyncTee
from tollmeter.producers.http.unfinished import Unfinished

Client = TypeVar("Client")
LIBRARIES = ("httpx2", "httpx")


def metered(
    client: Client,
    *,
    producer: Producing | None = None,
    guard: Guarding | None = None,
    provider: str | None = None,
    tokenizer: Callable[[str, bytes], int] | None = None,
    org: str | None = None,
    hold_s: float = 0.0,
    surely: bool = False,
    **fields: object,
) -> Client:
    """Return the same HTTP client, `Client` or `AsyncClient` of httpx or httpx2, now checking and recording its calls.

    `OpenAI(http_client=metered(httpx2.Client(), producer=producer, guard=guard, org="acme"))`

    Each HTTP attempt is asked of `guard` first (none: nothing is refused) and recorded with `producer` after (none:
    nothing is recorded). A refusal is answered here, with the guard's status and body, and never reaches the network;
    the SDK raises it as its own error. `org` and further keywords are event fields of every call; who calls is said per
    request by the middleware or `calling(...)`. `provider` names the provider where the host does not tell.
    `tokenizer(model, request body)` counts the prompt's tokens exactly, instead of four characters each.

    Usage that an answer leaves out is estimated. With `hold_s` such an event waits so long for `replace_estimate`
    before it is recorded; an answer in the background (OpenAI's `background=True`) waits anyway until it is fetched
    through the same client, at most 15 minutes. What is recorded is never changed. `surely` is for a client that is
    used for other things, too: a request counts if its host is a provider's, or its path and a model say what it is.

    Raises ValueError for what is no such client, is metered already, or has no such field.
    """
    http, asynchronous = _library(client)
    known = {**fields, "org_id": org} if org is not None else fields
    meter = Meter(producer, guard, provider, tokenizer, Scope().with_fields(known).fields, hold_s, surely=surely)
    inside: Any = client
    wrap = _classes(http)[asynchronous]
    if isinstance(inside._transport, Wrapper):
        if not inside._transport._meter.surely:
            raise ValueError("this client is metered already: its calls would count twice")
        _unwrap(inside)  # as every client is, by `instrument`: what is said of this one wins
    inside._transport = wrap(inside._transport, meter)
    inside._mounts = {
        pattern: None if inner is None else wrap(inner, meter) for pattern, inner in inside._mounts.items()
    }
    return client


def _unwrap(inside: Any) -> None:
    inside._transport = inside._transport._inner
    inside._mounts = {pattern: inner and inner._inner for pattern, inner in inside._mounts.items()}


def replace_estimate(client: object, response: object) -> bool:
    """Give the usage of an earlier answer of a metered client: a whole response, with its id, as `extract` reads it.

    False when it is too late, because the estimate has been recorded, or nothing was estimated.
    """
    transport = getattr(client, "_transport", None)
    if not isinstance(transport, Wrapper):
        raise ValueError("this client is not metered")
    return transport._meter.holding.replace(response)


def _library(client: object) -> tuple[object, bool]:
    """Return the module that a client comes from, and whether it is the asynchronous one."""
    for name in LIBRARIES:
        http: Any = sys.modules.get(name)
        if http is not None and isinstance(client, http.Client | http.AsyncClient):
            return http, isinstance(client, http.AsyncClient)
    raise ValueError(f"{type(client).__name__} is no Client or AsyncClient of httpx or httpx2")


class Wrapper:
    """What both transports share."""

    _http: Library
    _stream: type
    _meter: Meter
    _unfinished: Unfinished
    _inner: object

    def __init__(self, inner: object, meter: Meter) -> None:
        self._inner, self._meter, self._unfinished = inner, meter, Unfinished()

    def _end(self) -> None:
        """Record what waits and what nobody will read: the client is closed."""
        self._unfinished.end()
        self._meter.holding.expire(everything=True)

    def _begin(self, request: HttpRequest, content: bytes) -> Attempt | None:
        self._unfinished.sweep()
        url = request.url
        default = {"http": 80, "https": 443}.get(url.scheme)
        host = url.host if url.port in (None, default) else f"{url.host}:{url.port}"
        headers = {name.lower(): value for name, value in request.headers.items()}
        return begin(self._meter, Request(host, url.path, url.query.decode("ascii"), headers, content))

    def _as_allowed(self, request: HttpRequest, attempt: Attempt) -> HttpRequest:
        """Return the request that goes out: for another model where a rule wants that."""
        request.headers["accept-encoding"] = readable(request.headers.get("accept-encoding"))
        if not attempt.instead:
            return request
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, mark, query = request.url.raw_path.decode("ascii").partition("?")
        path, content = with_model(path, request.content, headers, attempt.instead)
        kept = {name: value for name, value in headers.items() if name not in ("content-length", "content-encoding")}
        url = request.url.copy_with(raw_path=f"{path}{mark}{query}".encode("ascii"))
        return self._http.Request(request.method, url, headers=kept, content=content, extensions=request.extensions)

    def _refused(self, request: HttpRequest, refusal: Refusal, attempt: Attempt) -> HttpResponse:
        return self._http.Response(
            refusal.http_status,
            headers=refusal.headers,
            content=refusal.content,
            request=request,
            extensions={EXTENSION: attempt.answer},
        )

    def _fetched(self, response: HttpResponse, look: Fetch | None) -> HttpResponse:
        if look is not None:
            look.opened(response.status_code, response.headers)
            response.stream = self._stream(response.stream, look, None)
        return response

    def _watched(self, response: HttpResponse, attempt: Attempt) -> HttpResponse:
        response.extensions[EXTENSION] = attempt.answer
        if response.is_stream_consumed:  # by a cache, or whatever stands below: nothing will pass here, it is unpacked
            packed = ("content-encoding", "content-length")
            attempt.opened(response.status_code, {k: v for k, v in response.headers.items() if k.lower() not in packed})
            attempt.feed(response.content)
            attempt.done(to_its_end=True)
            return response
        attempt.opened(response.status_code, response.headers)
        self._unfinished.began(attempt)
        response.stream = self._stream(response.stream, attempt, self._unfinished)
        return response

    def _with_body(self, response: HttpResponse, attempt: Attempt, parts: list[bytes]) -> HttpResponse:
        """Put back an answer that was read, with what is now known of it among its headers."""
        response.stream = self._http.ByteStream(b"".join(parts))
        response.headers.update(attempt.answer.headers())
        return response


class SyncTransport(Wrapper):
    """In place of an `HTTPTransport`."""

    _inner: Transport

    def handle_request(self, request: HttpRequest) -> HttpResponse:
        attempt = self._begin(request, request.read()) if _worth_reading(request) else None
        if attempt is None:
            look = fetch(self._meter, request.method, request.url.path)
            return self._fetched(self._inner.handle_request(request), look)
        refusal = attempt.refusal()
        if refusal is not None:
            return self._refused(request, refusal, attempt)
        try:
            request = self._as_allowed(request, attempt)
            response = self._inner.handle_request(request)
        except BaseException as error:
            attempt.done(error)
            raise
        response = self._watched(response, attempt)
        if attempt.over or not attempt.whole:
            response.headers.update(attempt.answer.headers())
            return response
        body = cast("Body", response.stream)
        try:
            parts = list(body)
        finally:
            body.close()
        return self._with_body(response, attempt, parts)

    def close(self) -> None:
        self._end()
        self._inner.close()

    def __enter__(self) -> "SyncTransport":
        self._inner.__enter__()
        return self

    def __exit__(self, kind: Exit, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        self._inner.__exit__(kind, error, at)


class AsyncTransport(Wrapper):
    """In place of an `AsyncHTTPTransport`."""

    _inner: library.AsyncTransport

    async def handle_async_request(self, request: HttpRequest) -> HttpResponse:
        attempt = self._begin(request, await request.aread()) if _worth_reading(request) else None
        if attempt is None:
            look = fetch(self._meter, request.method, request.url.path)
            return self._fetched(await self._inner.handle_async_request(request), look)
        refusal = attempt.refusal()
        if refusal is not None:
            return self._refused(request, refusal, attempt)
        try:
            request = self._as_allowed(request, attempt)
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            attempt.done(error)
            raise
        response = self._watched(response, attempt)
        if attempt.over or not attempt.whole:
            response.headers.update(attempt.answer.headers())
            return response
        body = cast("AsyncBody", response.stream)
        try:
            parts = [part async for part in body]
        finally:
            await body.aclose()
        return self._with_body(response, attempt, parts)

    async def aclose(self) -> None:
        self._end()
        await self._inner.aclose()

    async def __aenter__(self) -> "AsyncTransport":
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, kind: Exit, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        await self._inner.__aexit__(kind, error, at)


def _worth_reading(request: HttpRequest) -> bool:
    return worth_reading(request.method, request.url.path, request.headers.get("content-type", ""))


@cache
def _classes(http: Library) -> tuple[type, type]:
    """Return the transports for one library: it wants bodies to be streams of its own kind."""
    tee = type("Tee", (SyncTee, http.SyncByteStream), {})
    async_tee = type("AsyncTee", (AsyncTee, http.AsyncByteStream), {})
    return (
        type("MeteredTransport", (SyncTransport, http.BaseTransport), {"_http": http, "_stream": tee}),
        type("MeteredAsyncTransport", (AsyncTransport, http.AsyncBaseTransport), {"_http": http, "_stream": async_tee}),
    )
