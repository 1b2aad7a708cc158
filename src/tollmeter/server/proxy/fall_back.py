"""When a provider cannot or may not serve a chat, the next one of its operation does, in the same words.

The order, the reasons and the breaker are the library's (`producers/fallback`). Only OpenAI's chat falls back: it is
what the others speak, too. The first provider gets the request as it came, the others with their own model in it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, cast

from tollmeter.producers.client.scope import calling, current
from tollmeter.producers.fallback.chain import ExhaustedError, FallbackChain
from tollmeter.producers.fallback.config import ANY_OPERATION, FallbackConfig
from tollmeter.server.problems import Problem
from tollmeter.server.proxy.exchange import HTTP_ERROR, Exchange
from tollmeter.server.proxy.upstream import Asked, Provider


class Begin(Protocol):
    def __call__(self, provider: Provider, asked: Asked) -> Exchange: ...


class AnsweredError(Exception):
    """A provider, or the guard, answered with an error; the chain reads status and headers."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(f"HTTP {exchange.status}")
        self.exchange, self.status_code = exchange, exchange.status
        self.response = self
        self.headers: Mapping[str, str] = exchange.refusal.headers if exchange.refusal else {}


class Fallback:
    """The chain of a configuration over the providers of the proxy."""

    def __init__(self, config: FallbackConfig, providers: Mapping[str, Provider], begin: Begin) -> None:
        self._config, self._providers, self._begin = config, providers, begin
        self._chain = FallbackChain(config, {name: self._client(name) for name in config.clients})

    def serves(self, provider: Provider, asked: Asked) -> bool:
        """Say whether a request falls back: a chat to the first provider of its operation."""
        order = self._order()
        if asked.method != "POST" or not order or order[0] != provider.name or len(order) < 2:
            return False
        return asked.path.rstrip("/") == provider.entry.chat.rstrip("/")

    async def open(self, asked: Asked) -> Exchange:
        """Return the exchange that serves, opened; else the last one that answered. Raises `Problem` when none did."""
        failed: list[Exchange] = []
        kept: Exchange | None = None
        try:
            kept = await self._serving(asked, failed)
            return kept
        finally:
            for one in failed:
                if one is not kept:
                    await one.close()

    async def _serving(self, asked: Asked, failed: list[Exchange]) -> Exchange:
        operation = str(current().fields.get("feature") or ANY_OPERATION)
        try:
            return cast(
                "Exchange", await self._chain.arun(operation, asked=asked, failed=failed, first=self._order()[0])
            )
        except AnsweredError as error:
            return error.exchange
        except ExhaustedError as error:
            if isinstance(error.__cause__, AnsweredError):
                return error.__cause__.exchange
            if isinstance(error.__cause__, Problem):
                raise error.__cause__ from None
            raise Problem(503, "no_provider_serves", str(error), headers={"retry-after": "5"}) from None

    def _order(self) -> tuple[str, ...]:
        operation = str(current().fields.get("feature") or ANY_OPERATION)
        return self._config.operations.get(operation) or self._config.operations.get(ANY_OPERATION) or ()

    def _client(self, name: str) -> Callable[..., Awaitable[Exchange]]:
        provider = self._providers[name]

        async def call(
            *,
            model: str,
            asked: Asked,
            failed: list[Exchange],
            first: str,
            timeout: float | None = None,  # noqa: ASYNC109
        ) -> Exchange:
            provider.require()
            before = _model_of(asked)
            wanted = asked if name == first else _for(provider, asked, model)
            with calling(**({} if name == first or not before else {"fallback_from": before})):
                exchange = self._begin(provider, wanted)
            async with asyncio.timeout(timeout):
                await exchange.open()
            if exchange.status >= HTTP_ERROR:
                failed.append(exchange)
                raise AnsweredError(exchange)
            return exchange

        return call


def _for(provider: Provider, asked: Asked, model: str) -> Asked:
    """Return the request in which another provider is asked for its own model."""
    body = json.loads(asked.content)
    content = json.dumps({**body, "model": model}, separators=(",", ":")).encode()
    headers = [(name, value) for name, value in asked.headers if name != "content-encoding"]
    return asked._replace(path=provider.entry.chat, query="", headers=headers, content=content)


def _model_of(asked: Asked) -> str:
    try:
        return str(json.loads(asked.content).get("model") or "")
    except (ValueError, AttributeError):
        return ""
