"""The middleware in front of real servers (uvicorn with Starlette, wsgiref), with real calls to models behind them."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx2
import openai
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from tests.fake_provider import FakeServer, serving
from tests.guards import guard_with
from tollmeter.producers.client import scope
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard.guard import Guard
from tollmeter.producers.http.metered import metered
from tollmeter.producers.middleware.admission import Admission
from tollmeter.producers.middleware.asgi import MeterASGI
from tollmeter.producers.middleware.wsgi import MeterWSGI
from tollmeter.schemas.access import Block, RateLimit

ASK: Any = [{"role": "user", "content": "hello"}]
VIA_PROXY = {"X-Forwarded-For": "9.9.9.9,203.0.113.7"}


@pytest.fixture
def provider() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture
def producer() -> Iterator[UsageProducer]:
    with UsageProducer(mode="memory", service="shop", org_id="acme") as memory:
        yield memory


def client_of(provider: FakeServer, http: Any, producer: UsageProducer, guard: Guard | None = None) -> Any:
    sdk = openai.OpenAI if isinstance(http, httpx2.Client) else openai.AsyncOpenAI
    http_client: Any = metered(http, producer=producer, guard=guard)
    return sdk(api_key="none", base_url=f"{provider.url}/v1", http_client=http_client, max_retries=0)


def by_asgi(request: Any) -> dict[str, Any]:
    user = dict(request["headers"]).get(b"x-user", b"").decode()
    return {"user_id": user, "groups": ["staff"]}


def by_wsgi(environ: Any) -> dict[str, Any]:
    return {"user_id": environ.get("HTTP_X_USER", ""), "groups": ["staff"]}


@contextmanager
def asgi(provider: FakeServer, producer: UsageProducer, guard: Guard | None = None, **options: Any) -> Iterator[str]:
    """Serve an application that calls a model in async code, in a worker thread, and while it streams its answer."""
    http, sync_http = httpx2.AsyncClient(), httpx2.Client()
    model, threaded = client_of(provider, http, producer, guard), client_of(provider, sync_http, producer, guard)

    async def awaited(_: Request) -> JSONResponse:
        reply = await model.chat.completions.create(model="gpt-4o", messages=ASK)
        return JSONResponse({"said": reply.choices[0].message.content}, headers={"X-Request-ID": "the app's own"})

    async def in_thread(_: Request) -> JSONResponse:
        await run_in_threadpool(threaded.chat.completions.create, model="gpt-4o", messages=ASK)
        return JSONResponse({"groups": scope.current().groups})

    async def streamed(_: Request) -> StreamingResponse:
        async def parts() -> Any:
            yield "a"
            await model.chat.completions.create(model="gpt-4o", messages=ASK)
            yield "b"

        return StreamingResponse(parts())

    routes = [Route(f"/{view.__name__}", view, methods=["POST"]) for view in (awaited, in_thread, streamed)]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with http:
            yield

    app = MeterASGI(Starlette(routes=routes, lifespan=lifespan), guard=guard, identify=by_asgi, **options)
    config = uvicorn.Config(app, port=0, ws="none", log_level="error", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        sync_http.close()


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@contextmanager
def wsgi(provider: FakeServer, producer: UsageProducer, guard: Guard | None = None, **options: Any) -> Iterator[str]:
    """Serve an application that calls a model before and within its answer."""
    http = httpx2.Client()
    model = client_of(provider, http, producer, guard)

    def app(environ: Any, start_response: Any) -> Any:
        model.chat.completions.create(model="gpt-4o", messages=ASK)
        start_response("200 OK", [("Content-Type", "text/plain"), ("x-request-id", "the app's own")])

        def parts() -> Iterator[bytes]:
            yield b"a"
            if environ["PATH_INFO"] == "/streamed":
                model.chat.completions.create(model="gpt-4o", messages=ASK)
            yield b"b"

        return parts()

    server = make_server("127.0.0.1", 0, MeterWSGI(app, guard=guard, identify=by_wsgi, **options), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        http.close()


@pytest.mark.parametrize("path", ["awaited", "in_thread", "streamed"])
def test_asgi_says_who_calls(path: str, provider: FakeServer, producer: UsageProducer) -> None:
    with asgi(provider, producer, trusted_proxies=["127.0.0.1"]) as url:
        answer = httpx2.post(f"{url}/{path}", headers={"X-User": "ann", **VIA_PROXY})
    assert answer.status_code == 200
    (event,) = producer.events
    assert (event.user_id, event.client_ip, event.status) == ("ann", "203.0.113.7", "OK")
    assert answer.headers.get_list("x-request-id") == [event.request_id]
    assert answer.text in ('{"said":"' + "hi" * 20 + '"}', '{"groups":["staff"]}', "ab")


def test_wsgi_says_who_calls(provider: FakeServer, producer: UsageProducer) -> None:
    with wsgi(provider, producer, trusted_proxies=["127.0.0.1"]) as url:
        answer = httpx2.post(f"{url}/streamed", headers={"X-User": "ann", **VIA_PROXY})
    assert (answer.status_code, answer.text) == (200, "ab")
    assert [(event.user_id, event.client_ip) for event in producer.events] == [("ann", "203.0.113.7")] * 2
    assert {event.request_id for event in producer.events} == {answer.headers["x-request-id"]}
    assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]
    assert scope.current().fields == {}


@pytest.mark.parametrize("serve", [asgi, wsgi])
def test_a_blocked_address_is_refused_at_the_door(serve: Any, provider: FakeServer, producer: UsageProducer) -> None:
    guard = guard_with(Block(scope="client_ip", name="203.0.113.7", reason="scraping"), producer=producer)
    with serve(provider, producer, guard, trusted_proxies=["127.0.0.1"], ip_mode="truncated") as url:
        refused = httpx2.post(f"{url}/awaited", headers=VIA_PROXY)
        served = httpx2.post(f"{url}/awaited", headers={"X-Forwarded-For": "203.0.113.8"})
    assert (refused.status_code, refused.json()["error"]) == (403, "blocked")
    assert served.status_code == 200
    blocked, made = producer.events
    assert (blocked.status, blocked.http_status, blocked.error_type) == ("BLOCKED", 403, "blocked")
    assert (blocked.request_id, blocked.client_ip) == (refused.headers["x-request-id"], "203.0.113.0")
    assert (made.status, made.client_ip) == ("OK", "203.0.113.0")
    assert len(provider.asked) == 1


@pytest.mark.parametrize("serve", [asgi, wsgi])
def test_a_rate_limit_counts_each_request_once(serve: Any, provider: FakeServer, producer: UsageProducer) -> None:
    """Two requests are allowed at once, each with calls to the model of its own: the third request is one too many."""
    guard = guard_with(RateLimit(scope="client_ip", requests=1, window_s=600, burst=2), producer=producer)
    with serve(provider, producer, guard) as url:
        answers = [httpx2.post(f"{url}/streamed") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 600
    assert answers[2].json()["error"] == "rate_limited"
    assert [event.status for event in producer.events].count("BLOCKED") == 1


def test_the_limit_of_a_provider_key_is_counted_at_the_call(provider: FakeServer, producer: UsageProducer) -> None:
    guard = guard_with(RateLimit(scope="api_key", requests=1, window_s=600, burst=1), producer=producer)
    admission = Admission(guard=guard, identify=lambda request: request)
    with httpx2.Client() as http:
        model = client_of(provider, http, producer, guard)
        statuses = []
        for caller in ({}, {}, {"api_key_id": "counted-at-the-door"}):
            entry = admission.enter([], "192.0.2.1", caller)
            token = scope.enter(entry.scope)
            try:
                model.chat.completions.create(model="gpt-4o", messages=ASK)
                statuses.append(200)
            except openai.APIStatusError as refused:
                statuses.append(refused.status_code)
            finally:
                scope.leave(token)
    assert statuses == [200, 429, 200]


def test_a_websocket_of_a_blocked_user_is_closed(producer: UsageProducer) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "headers": []})

    async def call(user: bytes) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asked = {"type": "websocket", "headers": [(b"x-user", user)], "client": ("127.0.0.1", 5)}
        await guarded(asked, send, send)
        return sent

    guard = guard_with(Block(scope="user", name="eve", reason="left"), producer=producer)
    guarded = MeterASGI(app, guard=guard, identify=by_asgi)
    assert asyncio.run(call(b"eve")) == [{"type": "websocket.close", "code": 1008}]
    (accepted,) = asyncio.run(call(b"ann"))
    assert [name for name, _ in accepted["headers"]] == [b"x-request-id"]


def broken(_: Any) -> Any:
    raise LookupError("no such session")


@pytest.mark.parametrize("identify", [broken, lambda _: {"colour": "red"}, lambda _: 5, None])
def test_who_cannot_be_identified_is_served(identify: Any) -> None:
    entry = Admission(identify=identify).enter([], "192.0.2.1", {})
    assert entry.deny is None
    assert entry.scope.fields == {"request_id": entry.request_id, "client_ip": "192.0.2.1"}


def test_a_blocked_caller_is_refused_on_a_listener_of_both_families() -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    blocked = guard_with(Block(scope="client_ip", name="127.0.0.0/8", reason="scan"))
    for guard, status in ((guard_with(), 200), (blocked, 403)):
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        server = uvicorn.Server(uvicorn.Config(MeterASGI(app, guard=guard), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            while not server.started:
                thread.join(0.01)
            assert httpx2.get(f"http://127.0.0.1:{listener.getsockname()[1]}/").status_code == status
        finally:
            server.should_exit = True
            thread.join()


def test_ids_fit_into_events() -> None:
    number = Admission(identify=lambda _: {"user_id": 42, "org_id": None, "groups": [7], "tags": {"a": "b"}})
    scope_ = number.enter([], None, {}).scope
    assert (scope_.fields["user_id"], scope_.groups, scope_.fields["tags"]) == ("42", ("7",), {"a": "b"})
    assert "org_id" not in scope_.fields
    long = Admission(identify=lambda _: {"user_id": "u" * 5000}).enter([], None, {}).scope
    assert long.fields["user_id"] == "u" * 256
    with pytest.raises(ValueError, match="colour"):
        scope.calling(colour="red").__enter__()


def test_wrong_settings_are_said_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        Admission(trusted_proxies=("10.0.0.0/99",))
    with pytest.raises(ValueError, match="salt"):
        Admission(ip_mode="hashed")


def test_a_refusal_is_the_guards_own_body() -> None:
    guard = guard_with(Block(scope="user", name="eve", reason="left"))
    entry = Admission(guard=guard, identify=lambda _: {"user_id": "eve"}).enter([], None, {})
    status, headers, body = entry.refusal
    assert (status, headers["content-type"]) == (403, "application/json")
    assert json.loads(body) == {
        "ok": False,
        "error": "blocked",
        "scope": "user",
        "name": "eve",
        "reason": "left",
        "until": None,
    }


class Flushed:
    """Tells when it is flushed, among the parts of an answer."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def flush(self, timeout: float = 0.0) -> bool:
        self.seen.append("flush")
        return True


PLATFORMS = pytest.mark.parametrize(
    ("variable", "flush", "wanted"),
    [
        ("AWS_LAMBDA_FUNCTION_NAME", None, True),
        ("K_SERVICE", None, True),
        ("HOME", None, False),
        ("HOME", True, True),
        ("K_SERVICE", False, False),
    ],
)


@PLATFORMS
def test_asgi_flushes_where_the_platform_freezes(
    variable: str, flush: bool | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "shop")
    producer = Flushed()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def sent(message: Any) -> None:
        producer.seen.append(message.get("body", b"").decode())

    asyncio.run(MeterASGI(app, producer=producer, flush=flush)({"type": "http"}, None, sent))  # type: ignore[arg-type]
    assert producer.seen == (["", "a", "flush", "b", "flush"] if wanted else ["", "a", "b"])


@PLATFORMS
@pytest.mark.parametrize("streamed", [False, True])
def test_wsgi_flushes_where_the_platform_freezes(
    streamed: bool, variable: str, flush: bool | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "shop")
    producer = Flushed()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return iter([b"a", b"b"]) if streamed else [b"a", b"b"]

    body: Any = MeterWSGI(app, producer=producer, flush=flush)({"REQUEST_METHOD": "GET"}, lambda *_: None)
    producer.seen.extend(part.decode() for part in body)
    body.close()
    first_flush = producer.seen.index("flush") if wanted else -1
    assert [part for part in producer.seen if part != "flush"] == ["a", "b"]
    assert ("flush" in producer.seen) == wanted
    assert first_flush == ((2 if streamed else 1) if wanted else -1)  # before the last part, where that is known


def test_without_a_producer_all_of_the_process_are_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SERVICE", "shop")
    seen: list[str] = []

    class Told(UsageProducer):
        def flush(self, timeout: float = 10.0) -> bool:
            seen.append("flush")
            raise RuntimeError("not a request's problem")

    with Told(mode="memory"):
        body: Any = MeterWSGI(lambda *_: [b""])({"REQUEST_METHOD": "GET"}, lambda *_: None)
        list(body)
    assert seen == ["flush", "flush"]
