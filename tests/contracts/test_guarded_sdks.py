"""The real SDKs behind a real guard: refused calls never leave, served ones are settled and priced as in the ledger."""

import asyncio
from collections.abc import Iterator
from functools import cache
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.fake_provider import FakeServer, serving
from tests.guards import guard_with, shipped_book
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.client.scope import calling
from tollmeter.producers.fallback.chain import FallbackChain
from tollmeter.producers.guard.guard import Guard
from tollmeter.producers.http.answer import answer_of
from tollmeter.producers.http.metered import metered
from tollmeter.producers.http.quote import price_of
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.event import UsageEvent, micros
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.secrets import key_id
from tollmeter.streams.rules.pricing.model_names import Names
from tollmeter.streams.rules.pricing.price_one import Call, price_one

KEY = "sk-test-0123456789abcdef0123456789"
ASK: Any = [{"role": "user", "content": "x" * 400}]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture
def producer() -> Iterator[UsageProducer]:
    with UsageProducer(mode="memory", service="shop") as memory:
        yield memory


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client() as client:
        yield client


def chat(server: FakeServer, http_client: Any) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", http_client=http_client)


def test_a_call_above_the_cap_never_leaves(server: FakeServer, producer: UsageProducer, http: httpx2.Client) -> None:
    guard = guard_with(producer=producer)
    client = chat(server, metered(http, producer=producer, guard=guard, org="acme"))
    with calling(user_id="ann", request_id="r-1"), pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=10_000)
    # 100 tokens in at 2.50 and 10,000 out at 10 USD per million
    assert raised.value.status_code == 402
    assert raised.value.response.json() == {"ok": False, "error": "cost_cap", "max_usd": 0.05, "est_usd": 0.10025}
    assert raised.value.response.headers["x-tollmeter-refused"] == "cost_cap"
    assert server.asked == []
    (event,) = producer.events
    assert (event.status, event.http_status, event.error_type) == ("BLOCKED", 402, "cost_cap")
    assert (event.input_tokens, event.output_tokens, event.usage_source) == (0, 0, "NONE")
    assert (event.user_id, event.org_id, event.request_id, event.prompt_chars) == ("ann", "acme", "r-1", 400)
    assert event.api_key_id == key_id(KEY)
    answer = answer_of(raised.value)
    assert answer is not None
    assert (answer.event_id, answer.request_id) == (event.event_id, "r-1")
    assert (answer.complete, answer.cost_nano, answer.price_status) == (True, 0, "FREE")


def test_a_guard_without_a_producer_leaves_the_event_to_the_client(
    server: FakeServer, producer: UsageProducer, http: httpx2.Client
) -> None:
    client = anthropic.Anthropic(
        api_key=KEY, base_url=server.url, http_client=metered(http, producer=producer, guard=guard_with())
    )
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(model="claude-opus-4-1", max_tokens=10_000, messages=ASK)
    assert raised.value.status_code == 402
    assert server.asked == []
    (event,) = producer.events
    assert (event.status, event.error_type, event.provider) == ("BLOCKED", "cost_cap", "anthropic")
    assert (event.usage_source, event.model_sent) == ("NONE", "claude-opus-4-1")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_the_answer_says_what_it_cost(
    stream: bool, server: FakeServer, producer: UsageProducer, http: httpx2.Client
) -> None:
    guard = guard_with(Policy(org_id="acme", monthly_limit_micro=10_000_000))
    client = chat(server, metered(http, producer=producer, guard=guard, org="acme"))
    ask: Any = {"model": "gpt-4o", "messages": ASK, "max_tokens": 300}
    if stream:
        answered: Any = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
        assert guard._known.accounts.in_flight == 1
        list(answered)
    else:
        answered = client.chat.completions.with_raw_response.create(**ask)
        assert answered.headers["x-tollmeter-cost-nano"] == "5000000"
        assert answered.headers["x-tollmeter-price-status"] == "PRICED"
    # 600 in at 2.50, 400 cached at 1.25, 300 out at 10 USD per million
    answer = answer_of(answered)
    assert answer is not None
    assert (answer.cost_nano, answer.price_status, answer.usage_source) == (5_000_000, "PRICED", "PROVIDER")
    assert producer.events[0].est_cost_nano == 100 * 2_500 + 300 * 10_000
    accounts = guard._known.accounts
    assert (accounts.in_flight, accounts.uncounted) == (0, 1)


def spend(guard: Guard) -> int:
    """What the guard holds against the one account of a test, nano-USD."""
    (account,) = guard._known.accounts._accounts.values()
    return account.held


@pytest.mark.parametrize(
    ("model", "ask", "held"),
    [
        ("gpt-4o", {}, 5_000_000),
        ("mute", {}, None),  # an unknown model: what the dearest relative would charge
        ("quota", {}, 0),
        ("broken", {}, 0),
        ("gpt-4o", {"timeout": 0.000001}, 0),
    ],
    ids=["served", "unknown model", "refused by the provider", "failed", "nobody there"],
)
def test_reservations_become_the_real_cost(
    model: str, ask: Any, held: int | None, server: FakeServer, producer: UsageProducer, http: httpx2.Client
) -> None:
    guard = guard_with(Policy(org_id="acme", monthly_limit_micro=10_000_000), max_usd=1.0)
    client = chat(server, metered(http, producer=producer, guard=guard, org="acme")).with_options(max_retries=0)
    if ask:
        client, ask = client.with_options(base_url="http://127.0.0.1:1/v1"), {}
    try:
        client.chat.completions.create(model=model, messages=ASK, max_tokens=1000)
    except openai.OpenAIError:
        assert held == 0
    assert guard._known.accounts.in_flight == 0
    assert spend(guard) == held if held is not None else spend(guard) >= 0


def test_a_spent_budget_is_an_error_that_the_application_can_catch(
    server: FakeServer, producer: UsageProducer, http: httpx2.Client
) -> None:
    guard = guard_with(Policy(org_id="acme", scope="user", name="ann", daily_limit_micro=9_000), producer=producer)
    client = chat(server, metered(http, producer=producer, guard=guard, org="acme"))
    ask: Any = {"model": "gpt-4o", "messages": ASK, "max_tokens": 100}
    with calling(user_id="ann"):
        served = 0
        with pytest.raises(openai.APIStatusError) as raised:  # noqa: PT012 - which of them is refused is the question
            for served in range(10):  # noqa: B007
                client.chat.completions.create(**ask)
    body = raised.value.response.json()
    assert str(raised.value).startswith(
        "Error code: 402 - llm cost limit exceeded: daily cost limit reached: "
        "user ann has used 0 USD and 0.01 USD in flight of 0.009 USD; "
    )
    assert (body["refused"], body["message"]) == (
        "CostLimitExceeded",
        "llm cost limit exceeded: daily cost limit reached",
    )
    assert (served, len(server.asked)) == (2, 2), "5,000 of 9,000 micro-USD each"
    assert [event.status for event in producer.events] == ["OK", "OK", "BLOCKED"]
    with calling(user_id="ann", billing_scope="USER"):
        client.chat.completions.create(**ask)  # her own key is not the organisation's money
    with calling(user_id="bob"):
        client.chat.completions.create(**ask)


def test_blocks_and_rate_limits(server: FakeServer, producer: UsageProducer, http: httpx2.Client) -> None:
    guard = guard_with(
        Block(scope="user", name="eve", reason="left"),
        RateLimit(scope="api_key", requests=1, window_s=60, burst=1),
        producer=producer,
    )
    client = chat(server, metered(http, producer=producer, guard=guard))
    ask: Any = {"model": "gpt-4o", "messages": ASK}
    with calling(user_id="eve"), pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(**ask)
    client.chat.completions.create(**ask)
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(**ask)
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= 60
    assert [event.error_type for event in producer.events] == ["blocked", "", "rate_limited"], "asked once: no retries"


def test_async_refusals(server: FakeServer, producer: UsageProducer) -> None:
    async def call() -> int:
        async with httpx2.AsyncClient() as http:
            guarded = metered(http, producer=producer, guard=guard_with())
            client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1", http_client=guarded)
            try:
                await client.chat.completions.create(model="gpt-4o", messages=ASK, max_tokens=10_000)
            except openai.APIStatusError as error:
                return error.status_code
            return 0

    assert asyncio.run(call()) == 402
    assert server.asked == []
    assert [event.status for event in producer.events] == ["BLOCKED"]


@cache
def shipped_prices() -> Guard:
    """A guard that nothing changes."""
    return guard_with()


def event(**fields: Any) -> UsageEvent:
    return UsageEvent.model_validate(
        {
            "event_id": "0195d0e0-0000-7000-8000-000000000001",
            "occurred_at": "2026-11-22T10:00:00Z",
            "service": "s",
            "provider": "openai",
            "model_sent": "gpt-4o",
            "status": "OK",
            "usage_source": "PROVIDER",
            **fields,
        }
    )


@pytest.mark.parametrize(
    "made",
    [
        event(input_tokens=1000, cache_read_tokens=400, output_tokens=300, reasoning_tokens=120),
        event(model_sent="gpt-4o-mini", input_tokens=7, output_tokens=3, usage_source="ESTIMATED"),
        event(model_sent="my-alias", model_used="gpt-4o", input_tokens=10, output_tokens=1),
        event(
            provider="anthropic",
            model_sent="claude-sonnet-4-5",
            input_tokens=2600,
            cache_read_tokens=2000,
            cache_write_tokens=500,
            cache_write_1h_tokens=200,
            output_tokens=70,
        ),
        event(
            provider="google",
            model_sent="gemini-2.5-flash",
            input_tokens=1000,
            cache_read_tokens=600,
            output_tokens=500,
            reasoning_tokens=300,
            extra_units={"input_audio_tokens": 300.0},
        ),
        event(provider="ollama", model_sent="llama3.2", input_tokens=26, output_tokens=8),
        event(model_sent="whisper-1", operation="transcription", extra_units={"audio_seconds": 12.5}),
        event(model_sent="text-embedding-3-small", operation="embeddings", input_tokens=20),
        event(model_sent="never-heard-of", input_tokens=5, output_tokens=5),
        event(status="ERROR", usage_source="NONE"),
        event(status="BLOCKED", usage_source="NONE"),
    ],
    ids=lambda made: f"{made.model_sent} {made.status}",
)
def test_the_price_here_is_the_ledgers(made: UsageEvent) -> None:
    names = Names(made.provider, made.model_used, made.model_sent, "", "", "", made.operation, "", "REALTIME")
    tokens = (
        made.input_tokens,
        made.cache_read_tokens,
        made.cache_write_tokens,
        made.cache_write_1h_tokens,
        made.output_tokens,
        made.reasoning_tokens,
    )
    expected = price_one(
        shipped_book().planner.plan(names), Call(micros(made.occurred_at), made.status, tokens, made.extra_units)
    )
    quote = price_of(made, shipped_prices())
    assert (quote.nano, quote.status) == (expected.cost_nano, expected.price_status)


def test_a_tier_that_the_guard_leaves_out_is_partial() -> None:
    flex = price_of(event(service_tier="flex", model_sent="gpt-5", input_tokens=10), shipped_prices())
    assert flex.status == "PARTIAL"


def test_from_openai_over_a_local_model_to_gemini(
    server: FakeServer, producer: UsageProducer, http: httpx2.Client
) -> None:
    """Each provider through its OpenAI-compatible interface, over HTTP, metered and guarded by one client."""
    guard = guard_with(
        Policy(org_id="acme", scope="provider", name="openai", monthly_limit_micro=100), producer=producer
    )
    one = chat(server, metered(http, producer=producer, guard=guard, org="acme")).with_options(max_retries=0)
    with serving() as local, serving() as gemini:
        chain = FallbackChain(
            {
                "clients": {
                    "openai": {"model": "gpt-4o"},
                    "ollama": {"model": "llama3.2"},
                    "gemini": {"model": "gemini-2.5-flash"},
                },
                "operations": {"summarise": ["openai", "ollama", "gemini"]},
                "breaker": {"failures": 1, "open_s": 60},
            },
            {
                "openai": one.chat.completions.create,
                "ollama": one.with_options(base_url=f"{local.url}/v1").chat.completions.create,
                "gemini": one.with_options(base_url=f"{gemini.url}/v1beta/openai").chat.completions.create,
            },
        )
        first = chain.run("summarise", messages=ASK, max_tokens=100)
        local.down = True
        second = chain.run("summarise", messages=ASK, max_tokens=100)
        third = chain.run("summarise", messages=ASK, max_tokens=100)
        assert len(gemini.asked) == 2
    models = [getattr(answer, "model", None) for answer in (first, second, third)]
    assert models == ["llama3.2", "gemini-2.5-flash", "gemini-2.5-flash"]
    assert server.asked == [], "openai's budget of 100 micro-USD does not cover the call"
    told = [(made.provider, made.model_sent, made.status, made.fallback_from) for made in producer.events]
    refused = ("openai", "gpt-4o", "BLOCKED", "")
    served = ("google", "gemini-2.5-flash", "OK", "gpt-4o")
    assert told == [
        refused,
        ("ollama", "llama3.2", "OK", "gpt-4o"),
        refused,
        ("ollama", "llama3.2", "ERROR", "gpt-4o"),
        served,
        refused,
        served,  # the local model is left alone
    ]
    assert {made.feature for made in producer.events} == {"summarise"}
    free = price_of(producer.events[1], guard)
    assert (free.nano, free.status) == (0, "FREE")
