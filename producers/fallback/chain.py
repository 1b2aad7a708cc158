"""The first provider that can and may serve a call serves it; what it replaced stands on its event.

A call is handed on when its provider's budget is spent, its quota is used up, it is late or it fails; a wrong request
is nobody's to repair and rises at once. A stream that breaks off after its beginning rises too: it cannot be unsaid.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tollmeter.producers.client.scope import calling
from tollmeter.producers.fallback.breaker import Breaker, Rule, State, Ticket
from tollmeter.producers.fallback.config import ANY_OPERATION, ConfigError, FallbackConfig
from tollmeter.producers.fallback.reasons import Reason, reason_of

_PROVIDER_IS_THERE: Mapping[Reason | None, bool | None] = {
    "budget": None,  # refused here: nothing was heard of the provider
    "quota": False,
    "timeout": False,
    "failure": False,
    None: True,  # it answered, if only that the request is wrong
}


PROBE_OPERATION = "probe"


class ExhaustedError(RuntimeError):
    """No provider served the call. `tried` says why each did not; the cause is the last one's own error."""

    def __init__(self, operation: str, tried: list[tuple[str, str]]) -> None:
        super().__init__(f"{operation}: " + "; ".join(f"{name}: {why}" for name, why in tried))
        self.tried = tried


@dataclass(frozen=True, slots=True)
class Client:
    """How a provider is called: `call(model=..., **arguments)`, a coroutine function for `arun`.

    `probe(model=...)`, if given, is a tiny call: after a pause it goes first, so that no user's call is risked.
    """

    call: Callable[..., Any]
    probe: Callable[..., Any] | None = None


class _Do(NamedTuple):
    """One thing to carry out: by `run` at once, by `arun` awaited."""

    call: Callable[..., Any]
    arguments: dict[str, Any]
    scope: dict[str, Any]


_Outcome = tuple[Any, Exception | None]
_Plan = Generator[_Do, _Outcome, Any]


class FallbackChain:
    """Serves operations by the first client in order that can. One for the process; for any thread and async code.

    `clients` are callables under the names of the configuration (or `Client`, with a probe): the method of an SDK's
    client whose HTTP client is `metered` is one, `openai.chat.completions.create`. Raises `ConfigError` when one is
    missing.
    """

    def __init__(
        self,
        config: FallbackConfig | Mapping[str, object],
        clients: Mapping[str, Callable[..., object] | Client],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config if isinstance(config, FallbackConfig) else FallbackConfig.from_dict(config)
        missing = sorted(set(self.config.clients) - set(clients))
        if missing:
            raise ConfigError(f"no client given for {', '.join(missing)}")
        self._clients = {
            name: client if isinstance(client, Client) else Client(client) for name, client in clients.items()
        }
        rule = Rule(self.config.breaker.failures, self.config.breaker.open_s)
        self._breakers = {name: Breaker(rule) for name in self.config.clients}
        self._lock = threading.Lock()
        self._clock = clock

    def run(self, operation: str, /, **arguments: object) -> object:
        """Return the first reply. Raises `ExhaustedError` when nobody serves, `KeyError` for an unknown operation."""
        plan = self._plan(operation, arguments)
        try:
            do = next(plan)
            while True:
                do = plan.send(_carry_out(do))
        except StopIteration as served:
            return served.value

    async def arun(self, operation: str, /, **arguments: object) -> object:
        """`run` for clients whose calls are awaited."""
        plan = self._plan(operation, arguments)
        try:
            do = next(plan)
            while True:
                do = plan.send(await _await(do))
        except StopIteration as served:
            return served.value

    def states(self) -> dict[str, State]:
        """Return how each client's breaker stands."""
        with self._lock:
            return {name: breaker.state(self._clock()) for name, breaker in self._breakers.items()}

    def _order(self, operation: str) -> tuple[str, ...]:
        operations = self.config.operations
        order = operations.get(operation) or operations.get(ANY_OPERATION)
        if order is None:
            raise KeyError(f"no operation {operation}: configured are {', '.join(sorted(operations))}")
        return order

    def _plan(self, operation: str, arguments: dict[str, Any]) -> _Plan:
        order = self._order(operation)
        tried: list[tuple[str, str]] = []
        last: Exception | None = None
        for name in order:
            scope = self._scope(operation, name, order[0])
            ticket, error = yield from self._admission(name, scope)
            if ticket is not None:
                reply, error = yield from self._watched(name, ticket, self._call(name, arguments, scope))
                if error is None:
                    return reply
                if reason_of(error) not in self.config.clients[name].next_on:
                    raise error
            tried.append((name, f"{reason_of(error)} ({error})" if error else "left alone after failures"))
            last = error or last
        raise ExhaustedError(operation, tried) from last

    def _admission(
        self, name: str, scope: dict[str, Any]
    ) -> Generator[_Do, _Outcome, tuple[Ticket | None, Exception | None]]:
        """Return a ticket when the client may be called, else what its probe came to, if one went."""
        ticket, probe = self._enter(name), self._clients[name].probe
        if ticket is None or not ticket.probe or probe is None:
            return ticket, None
        tiny = self._call(name, {}, {**scope, "feature": PROBE_OPERATION})
        _, error = yield from self._watched(name, ticket, tiny._replace(call=probe))
        return (None, error) if error else (self._enter(name), None)

    def _watched(self, name: str, ticket: Ticket, do: _Do) -> Generator[_Do, _Outcome, _Outcome]:
        """Have it carried out and tell the breaker, also when the caller gives up: a probe must free its place."""
        ok: bool | None = None
        try:
            reply, error = yield do
            ok = True if error is None else _PROVIDER_IS_THERE[reason_of(error)]
        finally:
            with self._lock:
                self._breakers[name].leave(ticket, ok, self._clock())
        return reply, error

    def _enter(self, name: str) -> Ticket | None:
        with self._lock:
            return self._breakers[name].enter(self._clock())

    def _call(self, name: str, arguments: dict[str, Any], scope: dict[str, Any]) -> _Do:
        served = self.config.clients[name]
        timeout = {} if served.timeout_s is None else {"timeout": served.timeout_s}
        return _Do(self._clients[name].call, {**timeout, **arguments, "model": served.model}, scope)

    def _scope(self, operation: str, name: str, first: str) -> dict[str, Any]:
        provider = self.config.provider_of(name)
        scope = {"feature": operation, **({"provider": provider} if provider else {})}
        return scope if name == first else {**scope, "fallback_from": self.config.clients[first].model}


def _carry_out(do: _Do) -> _Outcome:
    with calling(**do.scope):
        try:
            return do.call(**do.arguments), None
        except Exception as error:
            return None, error


async def _await(do: _Do) -> _Outcome:
    with calling(**do.scope):
        try:
            made: Awaitable[Any] = do.call(**do.arguments)
            return await made, None
        except Exception as error:
            return None, error
