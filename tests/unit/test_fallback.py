"""The chain with clients made of plain functions: who serves, who is left alone, what is said when nobody can."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tollmeter.producers.client import scope
from tollmeter.producers.fallback.breaker import State
from tollmeter.producers.fallback.chain import Client, ExhaustedError, FallbackChain
from tollmeter.producers.fallback.config import ConfigError, FallbackConfig
from tollmeter.producers.fallback.reasons import reason_of
from tollmeter.producers.guard.decision import CallRefused, CostLimitExceeded, Deny

CONFIG: dict[str, Any] = {
    "clients": {
        "openai": {"model": "gpt-4o", "timeout_s": 20},
        "ollama": {"model": "llama3.2"},
        "gemini": {"model": "gemini-2.5-flash"},
    },
    "operations": {"summarise": ["openai", "ollama", "gemini"], "*": ["gemini"]},
    "breaker": {"failures": 2, "open_s": 10},
}


class StatusError(Exception):
    """As the SDKs raise them."""

    def __init__(self, status: int, refused: str = "") -> None:
        super().__init__(f"HTTP {status}")
        self.status_code = status
        self.response = SimpleNamespace(headers={"x-tollmeter-refused": refused} if refused else {})


class APITimeoutError(ConnectionError):
    """An SDK's timeout is an error of its connection, too."""


class Now:
    at = 0.0

    def __call__(self) -> float:
        return self.at


def serve(name: str, errors: list[Exception | None] | None = None) -> Callable[..., Any]:
    """A client that raises these errors one after the other, then answers with what it saw."""
    todo = errors or []

    def call(**arguments: Any) -> Any:
        error = todo.pop(0) if todo else None
        if error is not None:
            raise error
        return name, arguments, dict(scope.current().fields)

    return call


def chain(now: Now | None = None, **errors: list[Exception | None]) -> FallbackChain:
    clients = {name: serve(name, errors.get(name)) for name in CONFIG["clients"]}
    return FallbackChain(CONFIG, clients, clock=now or Now())


def test_the_first_serves_and_replaces_nobody() -> None:
    name, arguments, fields = chain().run("summarise", messages=["hi"])
    assert (name, arguments) == ("openai", {"messages": ["hi"], "model": "gpt-4o", "timeout": 20})
    assert fields == {"feature": "summarise", "provider": "openai"}
    assert scope.current().fields == {}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StatusError(429), "quota"),
        (StatusError(402), "quota"),
        (StatusError(429, "CostLimitExceeded"), "budget"),
        (StatusError(402, "cost_cap"), "budget"),
        (CostLimitExceeded("llm cost limit exceeded: daily cost limit reached"), "budget"),
        (CallRefused(Deny(503, {"ok": False, "error": "budget_unknown"})), "budget"),
        (APITimeoutError("late"), "timeout"),
        (TimeoutError("late"), "timeout"),
        (StatusError(500), "failure"),
        (StatusError(503), "failure"),
        (StatusError(401), "failure"),
        (StatusError(404), "failure"),
        (ConnectionRefusedError("nobody there"), "failure"),
        (StatusError(400), None),
        (StatusError(422), None),
        (StatusError(429, "rate_limited"), None),
        (StatusError(403, "blocked"), None),
        (CallRefused(Deny(403, {"ok": False, "error": "blocked"})), None),
        (KeyError("a bug"), None),
    ],
    ids=lambda value: f"{type(value).__name__} {value}" if isinstance(value, Exception) else str(value),
)
def test_what_hands_a_call_on(error: Exception, reason: str | None) -> None:
    assert reason_of(error) == reason
    tried = chain(openai=[error])
    if reason is None:
        with pytest.raises(type(error)) as raised:
            tried.run("summarise")
        assert raised.value is error
        return
    name, arguments, fields = tried.run("summarise")
    assert (name, arguments) == ("ollama", {"model": "llama3.2"})
    assert fields == {"feature": "summarise", "provider": "ollama", "fallback_from": "gpt-4o"}


def test_the_third_in_order_replaces_the_first() -> None:
    name, _, fields = chain(openai=[StatusError(500)], ollama=[ConnectionRefusedError("off")]).run("summarise")
    assert (name, fields["provider"], fields["fallback_from"]) == ("gemini", "google", "gpt-4o")


def test_nobody_serves() -> None:
    errors: Any = {name: [StatusError(500)] for name in CONFIG["clients"]}
    with pytest.raises(
        ExhaustedError, match=r"summarise: openai: failure \(HTTP 500\); ollama: .*; gemini: "
    ) as raised:
        chain(**errors).run("summarise")
    assert isinstance(raised.value.__cause__, StatusError)
    assert [name for name, _ in raised.value.tried] == ["openai", "ollama", "gemini"]


def test_only_the_named_reasons_hand_on() -> None:
    picky = {**CONFIG, "clients": {**CONFIG["clients"], "openai": {"model": "gpt-4o", "next_on": ["budget"]}}}
    clients = {name: serve(name, [StatusError(500)]) for name in CONFIG["clients"]}
    with pytest.raises(StatusError):
        FallbackChain(picky, clients).run("summarise")


def test_a_failing_provider_is_left_alone_and_tried_again() -> None:
    now = Now()
    tried = chain(now, openai=[StatusError(500), APITimeoutError("late"), StatusError(500)])
    for _ in range(2):
        assert tried.run("summarise")[0] == "ollama"
    assert tried.states()["openai"] is State.OPEN
    assert tried.run("summarise")[0] == "ollama", "its third error is still to come: it was not called"
    now.at = 10.0
    assert tried.run("summarise")[0] == "ollama", "one call found out that it still fails"
    now.at = 19.0
    assert tried.states()["openai"] is State.OPEN
    now.at = 20.0
    assert tried.run("summarise")[0] == "openai"
    assert tried.states()["openai"] is State.CLOSED


def test_a_spent_budget_says_nothing_about_the_provider() -> None:
    spent = CostLimitExceeded("llm cost limit exceeded: daily cost limit reached")
    tried = chain(openai=[spent, spent, spent, spent])
    for _ in range(4):
        assert tried.run("summarise")[0] == "ollama"
    assert tried.states()["openai"] is State.CLOSED


def test_a_wrong_request_shows_that_the_provider_is_there() -> None:
    tried = chain(openai=[StatusError(500), StatusError(400), StatusError(500)])
    tried.run("summarise")
    with pytest.raises(StatusError):
        tried.run("summarise")
    tried.run("summarise")
    assert tried.states()["openai"] is State.CLOSED


def test_a_probe_goes_before_a_users_call() -> None:
    now, probes = Now(), []
    down: list[Exception | None] = [StatusError(500), StatusError(500)]

    def probe(**arguments: Any) -> None:
        assert (arguments, scope.current().fields["feature"]) == ({"model": "gpt-4o", "timeout": 20}, "probe")
        probes.append(now.at)
        if now.at < 20:
            raise StatusError(503)

    clients: dict[str, Any] = {name: serve(name) for name in CONFIG["clients"]}
    tried = FallbackChain(CONFIG, {**clients, "openai": Client(serve("openai", down), probe)}, clock=now)
    for at, served in ((0, "ollama"), (1, "ollama"), (2, "ollama"), (11, "ollama"), (12, "ollama"), (25, "openai")):
        now.at = float(at)
        assert tried.run("summarise")[0] == served
    assert probes == [11.0, 25.0], "none while it is closed or open"


def test_other_operations() -> None:
    assert chain().run("anything")[0] == "gemini"
    only = {**CONFIG, "operations": {"summarise": ["openai"]}}
    with pytest.raises(KeyError, match="no operation search: configured are summarise"):
        FallbackChain(only, {name: serve(name) for name in CONFIG["clients"]}).run("search")


def test_async_clients() -> None:
    async def slow(**arguments: Any) -> Any:
        raise TimeoutError("late")

    async def quick(**arguments: Any) -> Any:
        await asyncio.sleep(0)
        return arguments["model"], scope.current().fields["fallback_from"]

    clients = {"openai": slow, "ollama": quick, "gemini": quick}
    assert asyncio.run(FallbackChain(CONFIG, clients).arun("summarise")) == ("llama3.2", "gpt-4o")


def test_a_cancelled_probe_frees_its_place() -> None:
    now = Now()

    async def fail(**_: Any) -> Any:
        raise StatusError(500)

    async def hang(**_: Any) -> Any:
        await asyncio.Event().wait()

    async def cancelled(tried: FallbackChain) -> None:
        task = asyncio.create_task(tried.arun("*"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    tried = FallbackChain(CONFIG, dict.fromkeys(CONFIG["clients"], fail), clock=now)
    for _ in range(2):
        with pytest.raises(ExhaustedError):
            asyncio.run(tried.arun("*"))
    now.at = 10.0
    tried._clients["gemini"] = Client(hang)
    asyncio.run(cancelled(tried))
    assert tried.states()["gemini"] is State.HALF_OPEN
    tried._clients["gemini"] = Client(serve("gemini"))
    assert tried.run("*")[0] == "gemini"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"operations": {"x": ["open_ai"]}}, "operation x: no client open_ai .there are: gemini, ollama, openai."),
        ({"operations": {"x": []}}, "operation x: name at least one"),
        ({"operations": {"x": ["openai", "openai"]}}, "named twice"),
        ({"breaker": {"failures": 0}}, "breaker.failures: .*greater than 0"),
        ({"clients": {"openai": {}}}, "clients.openai.model: Field required"),
        ({"clients": {"openai": {"model": "m", "next_on": ["rain"]}}}, "clients.openai.next_on.0: .*'budget', 'quota'"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
    ids=["no such client", "nobody", "twice", "no failures", "no model", "no such reason", "no such key"],
)
def test_a_wrong_configuration_is_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        FallbackConfig.from_dict({**CONFIG, **change})
    assert "\n" not in str(raised.value)


def test_a_client_that_is_not_given() -> None:
    with pytest.raises(ConfigError, match="no client given for gemini, ollama"):
        FallbackChain(CONFIG, {"openai": serve("openai")})


def test_yaml(tmp_path: Path) -> None:
    file = tmp_path / "fallback.yaml"
    file.write_text("clients: {openai: {model: gpt-4o}}\noperations: {summarise: [openai]}\n")
    assert FallbackConfig.from_file(file).operations == {"summarise": ("openai",)}
    for text, said in (
        ("[1, 2]", "a mapping with"),
        ("a: [", "not YAML"),
        ("clients: {}", "operations: Field required"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=f"{file}: .*{said}"):
            FallbackConfig.from_file(file)
    with pytest.raises(ConfigError, match="No such file"):
        FallbackConfig.from_file(tmp_path / "absent.yaml")
