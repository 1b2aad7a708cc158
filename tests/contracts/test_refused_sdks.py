"""Whoever is refused reads why, and what to do, in his SDK's own exception: guarded client and proxy alike."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.fake_provider import FakeServer, serving
from tests.guards import guard_with, price_record
from tests.proxied import OURS, proxied
from tollmeter.producers.http.metered import metered
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Policy

KEY = "sk-test-0123456789abcdef0123456789"
ASK: Any = [{"role": "user", "content": "x" * 400}]
FIT = 10
"""So many tokens of output no rule but a spent one minds."""
Row = Policy | Block | RateLimit | ModelRule


class Ways(NamedTuple):
    """Where an SDK asks: the base of each interface, its key, and the client that it asks with."""

    url: Callable[[str], str]
    key: str
    http: httpx2.Client
    later: Callable[[], httpx2.AsyncClient]


@contextmanager
def guarded(server: FakeServer, rows: Sequence[Row]) -> Iterator[Ways]:
    """Clients whose transport asks a guard that knows these rows."""
    guard = guard_with(*rows)
    who: Any = {"guard": guard, "org": "acme", "client_ip": "127.0.0.1"}
    with httpx2.Client() as http:
        yield Ways(lambda name: server.url, KEY, metered(http, **who), lambda: metered(httpx2.AsyncClient(), **who))


@contextmanager
def behind_a_proxy(server: FakeServer, rows: Sequence[Row]) -> Iterator[Ways]:
    """Stock clients, whose base URL is a proxy that knows these rows."""
    with proxied(server) as proxy, httpx2.Client() as http:
        assert proxy.guard.apply("prices", *price_record())
        for row in rows:
            key = f"policy:{row.policy_id}" if isinstance(row, Policy) else row.key
            assert proxy.guard.apply("policies", key.encode(), row.model_dump_json().encode())
        yield Ways(lambda name: f"{proxy.url}/proxy/{name}", OURS, http, httpx2.AsyncClient)


def by_openai(ways: Ways, stream: bool, most: int) -> None:
    client = openai.OpenAI(api_key=ways.key, base_url=ways.url("openai") + "/v1", http_client=ways.http, max_retries=2)
    client.chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=most, stream=stream)


def by_responses(ways: Ways, stream: bool, most: int) -> None:
    client = openai.OpenAI(api_key=ways.key, base_url=ways.url("openai") + "/v1", http_client=ways.http, max_retries=2)
    client.responses.create(model="gpt-4o", input="x" * 400, max_output_tokens=most, stream=stream)


def by_openai_later(ways: Ways, stream: bool, most: int) -> None:
    async def ask() -> None:
        base = ways.url("openai") + "/v1"
        async with openai.AsyncOpenAI(
            api_key=ways.key, base_url=base, http_client=ways.later(), max_retries=2
        ) as client:
            await client.chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=most, stream=stream)

    asyncio.run(ask())


def by_anthropic(ways: Ways, stream: bool, most: int) -> None:
    client = anthropic.Anthropic(api_key=ways.key, base_url=ways.url("anthropic"), http_client=ways.http, max_retries=2)
    client.messages.create(model="claude-haiku-4-5", messages=ASK, max_tokens=most, stream=stream)


def by_anthropic_later(ways: Ways, stream: bool, most: int) -> None:
    async def ask() -> None:
        base = ways.url("anthropic")
        async with anthropic.AsyncAnthropic(
            api_key=ways.key, base_url=base, http_client=ways.later(), max_retries=2
        ) as client:
            await client.messages.create(model="claude-haiku-4-5", messages=ASK, max_tokens=most, stream=stream)

    asyncio.run(ask())


def _gemini(ways: Ways, **http: Any) -> genai.Client:
    return genai.Client(api_key=ways.key, http_options=types.HttpOptions(base_url=ways.url("gemini"), **http))


def by_gemini(ways: Ways, stream: bool, most: int) -> None:
    models = _gemini(ways, httpx_client=ways.http).models
    asked: Any = {"model": "gemini-2.5-pro", "contents": "x" * 400, "config": {"max_output_tokens": most}}
    if stream:
        list(models.generate_content_stream(**asked))
    else:
        models.generate_content(**asked)


def by_gemini_later(ways: Ways, stream: bool, most: int) -> None:
    asked: Any = {"model": "gemini-2.5-pro", "contents": "x" * 400, "config": {"max_output_tokens": most}}

    async def ask() -> None:
        async with ways.later() as http:
            models = _gemini(ways, httpx_async_client=http).aio.models
            if stream:
                async for _ in await models.generate_content_stream(**asked):
                    pass
            else:
                await models.generate_content(**asked)

    asyncio.run(ask())


SDKS = (by_openai, by_responses, by_openai_later, by_anthropic, by_anthropic_later, by_gemini, by_gemini_later)
RAISED = (openai.APIStatusError, anthropic.APIStatusError, errors.APIError)
SPENT = Policy(org_id="acme", daily_limit_micro=1)
OVER = (
    "llm cost limit exceeded: daily cost limit reached: the organisation has used 0 USD of 0.000001 USD; what is left "
    "does not cover this call: ask for fewer output tokens or a cheaper model, or have policy acme/org//pool/USD raised"
)
CASES: dict[str, tuple[Row, int, int, str]] = {
    "CostLimitExceeded": (
        SPENT,
        FIT,
        402,
        OVER,
    ),
    "blocked": (
        Block(scope="client_ip", name="127.0.0.1", reason="left"),
        FIT,
        403,
        "address 127.0.0.1 is blocked until an admin ends that: left",
    ),
    "rate_limited": (
        RateLimit(scope="client_ip", requests=1, window_s=3_600, burst=1),
        FIT,
        429,
        "address 127.0.0.1 may make 1 call in 60 min, and has made it: try again in 60 min",
    ),
    "model_not_allowed": (
        ModelRule(org_id="acme", scope="org", allowed=("gpt-4o-mini",)),
        FIT,
        403,
        "is not allowed for organisation acme; allowed: gpt-4o-mini",
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("way", [guarded, behind_a_proxy])
def test_the_exception_says_why_and_what_to_do(way: Any, kind: str, server: FakeServer) -> None:
    row, most, status, said = CASES[kind]
    with way(server, [row]) as ways:
        if kind == "rate_limited":
            by_openai(ways, False, most)
        server.asked.clear()
        for ask in SDKS:
            for stream in (False, True):
                with pytest.raises(RAISED) as raised:
                    ask(ways, stream, most)
                error: Any = raised.value
                assert said in str(error), (ask.__name__, stream)
                got = error.code if isinstance(error, errors.APIError) else error.status_code
                assert got == status
                answer = error.response
                assert answer.json()["refused"] == answer.headers["x-tollmeter-refused"] == kind
                if isinstance(error, openai.APIStatusError):
                    assert (error.code, str(error)) == (kind, f"Error code: {status} - {error.body['message']}")  # type: ignore[index]
                if isinstance(error, anthropic.APIStatusError):
                    assert said in (error.api_message or "")
                if isinstance(error, errors.APIError):
                    assert error.status in ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED")
        assert server.asked == [], "a refusal is final, and no SDK tries again"


@pytest.mark.parametrize("way", [guarded, behind_a_proxy])
def test_the_cap_of_one_call_has_its_body_in_every_sdk(way: Any, server: FakeServer) -> None:
    with way(server, []) as ways:
        server.asked.clear()
        for ask in SDKS:
            for stream in (False, True):
                with pytest.raises(RAISED) as raised:
                    ask(ways, stream, 15_000)
                error: Any = raised.value
                body = error.response.json()
                exact = {"ok": False, "error": "cost_cap", "max_usd": 0.05, "est_usd": body["est_usd"]}
                assert (error.response.status_code, body) == (402, exact), (ask.__name__, stream)
                assert error.response.headers["x-tollmeter-refused"] == "cost_cap"
        assert server.asked == []


def test_what_the_proxy_itself_refuses_is_told_in_each_sdks_words(server: FakeServer) -> None:
    said = "no such key of this server; the provider was not asked"
    with behind_a_proxy(server, []) as ways:
        server.asked.clear()
        for ask in SDKS:
            with pytest.raises(RAISED, match=said) as raised:
                ask(ways._replace(key="tm-nobodys"), False, FIT)
            document = raised.value.response.json()  # type: ignore[attr-defined]
            assert (document["status"], document["code"], document["detail"]) == (401, "bad_key", said)
        assert server.asked == []
