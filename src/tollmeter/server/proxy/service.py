"""The proxy's life in a server: its guard begins with the first call; what a killed server left is taken over.

A server that nobody calls providers through has no guard: each living one takes its share of every budget.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from tollmeter.producers.guard.guard import Guard
from tollmeter.server.auth import Directory
from tollmeter.server.counters import Counters
from tollmeter.server.limits import Limiter
from tollmeter.server.proxy.app import Parts, Proxy
from tollmeter.server.proxy.config import load
from tollmeter.server.proxy.counted import CountedProducer
from tollmeter.server.settings import ServerSettings
from tollmeter.settings import Settings

log = logging.getLogger("tollmeter.server")

SERVICE = "tollmeter-proxy"
SWEEP_S, LOOKS_EVERY = 1.0, 30
"""The write-ahead file is shortened so often; every so many times the files of killed servers are looked for."""
READY_S = 10.0
"""So long the first calls wait until blocks, limits and prices are known; then the guard's own setting decides."""
_KEY_IN_PATH = re.compile(r"(?<=/)key=[^/]*")


class ProxyService:
    """What the server calls: `start` and `stop` with its own life, and each request below `/proxy/`."""

    def __init__(
        self,
        line: Settings,
        settings: ServerSettings,
        directory: Directory,
        limiter: Limiter,
        environment: Mapping[str, str],
        counters: Counters,
    ) -> None:
        self._producer = CountedProducer(counters, settings=line, service=SERVICE)
        self._guard = Guard(settings=line, producer=self._producer)
        parts = Parts(directory, self._producer, self._guard, environment, settings.server_trusted_proxies, limiter)
        self._proxy = Proxy(load(line.proxy_file), parts)
        self._ready: asyncio.Task[bool] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what a killed server left, and go on looking for that."""
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Let go of the providers, then deliver what is left, or leave it on disk."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._proxy.close()
        await asyncio.to_thread(self._guard.close)
        await asyncio.to_thread(self._producer.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = _KEY_IN_PATH.sub("key=***", scope["path"])  # what is logged of a request is this
        if self._ready is None:
            self._ready = asyncio.create_task(asyncio.to_thread(self._guard.ready, READY_S))
        if not self._ready.done():
            await asyncio.shield(self._ready)
        await self._proxy(scope, receive, send)

    async def _sweep(self) -> None:
        turn = 0
        while True:
            with suppress(Exception):
                if turn % LOOKS_EVERY == 0:
                    await asyncio.to_thread(self._producer.recover)
                self._producer.sweep()
            turn += 1
            await asyncio.sleep(SWEEP_S)
