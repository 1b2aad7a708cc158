"""The proxy of the server in a thread of the test: real sockets and protocol, events in memory, a guard that is fed."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from tests.fake_provider import FakeServer
from tests.patience import eventually
from tollmeter.producers.client.durable import DurableProducer
from tollmeter.producers.guard.guard import Guard
from tollmeter.schemas.event import UsageEvent
from tollmeter.server.auth import Caller, TrackingToken
from tollmeter.server.counters import Counters
from tollmeter.server.http import protocol
from tollmeter.server.problems import Problem
from tollmeter.server.proxy.app import Parts, Proxy
from tollmeter.server.proxy.config import ProxyConfig, Upstream, load
from tollmeter.server.proxy.counted import CountedProducer
from tollmeter.server.settings import ServerSettings
from tollmeter.settings import Settings

OURS, OTHERS, TRUSTED, READER = "tm-acme-key", "tm-other-key", "tm-trusted-key", "tm-read-key"
KEYS = {
    OURS: Caller("k-acme", "ingest", "acme"),
    OTHERS: Caller("k-other", "ingest", "other"),
    TRUSTED: Caller("k-trusted", "ingest", "acme", may_set_identity=True),
    READER: Caller("k-read", "read", "acme"),
}
REAL = {"OPENAI_API_KEY": "sk-real-of-the-environment", "ANTHROPIC_API_KEY": "ant-real", "GEMINI_API_KEY": "goog-real"}


class Keys:
    """A directory of keys that the test knows."""

    active_tokens: int | None = 0
    loaded: bool = True

    def caller(self, secret: str) -> Caller | None:
        return KEYS.get(secret)

    def token(self, value: str) -> TrackingToken | None:
        return None


@dataclass
class Proxied:
    """A proxy in front of a provider."""

    url: str
    provider: FakeServer
    producer: DurableProducer
    guard: Guard
    proxy: Proxy
    counters: Counters

    @property
    def events(self) -> list[UsageEvent]:
        return self.producer.events

    def recorded(self, count: int) -> list[UsageEvent]:
        """Wait for so many events in all; return them."""
        eventually(lambda: len(self.events) >= count, 20)
        assert len(self.events) == count, [(event.status, event.error_type) for event in self.events]
        return self.events


def entries(provider: FakeServer) -> dict[str, Upstream]:
    """Return the known upstreams, all at one provider on 127.0.0.1, and one whose callers' keys are passed on."""
    shipped = load().upstreams
    known = {name: shipped[name].model_copy(update={"url": provider.url}) for name in ("openai", "anthropic", "gemini")}
    known["own"] = known["openai"].model_copy(update={"key": "caller"})
    known["ollama"] = shipped["ollama"].model_copy(update={"url": provider.url})
    return known


@contextmanager
def proxied(
    provider: FakeServer,
    more: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = REAL,
    **config: Any,
) -> Iterator[Proxied]:
    """Run a proxy for the length of a test; `more` entries beside those of `entries`."""
    settings = Settings.from_environment({"TOLLMETER_PEPPER": "salt"})
    counters = Counters()
    upstreams = {**entries(provider), **{name: Upstream(**entry) for name, entry in (more or {}).items()}}
    with (
        CountedProducer(counters, mode="memory", service="tollmeter-proxy", settings=settings) as producer,
        Guard(mode="memory", producer=producer, settings=settings) as guard,
    ):
        proxy = Proxy(ProxyConfig(upstreams=upstreams, **config), Parts(Keys(), producer, guard, environment))
        with _listening(proxy) as url:
            yield Proxied(url, provider, producer, guard, proxy, counters)


@contextmanager
def _listening(proxy: Proxy) -> Iterator[str]:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        """What the server does around its proxy."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await proxy.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        scope["tollmeter.request_id"] = "request-of-the-server"
        try:
            await proxy(scope, receive, send)
        except Problem as problem:
            body = problem.body("request-of-the-server")
            await send({"type": "http.response.start", "status": problem.status, "headers": problem.head()})
            await send({"type": "http.response.body", "body": body})

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, http=protocol(ServerSettings()), ws="none", log_config=None, access_log=False, proxy_headers=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, 20)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
