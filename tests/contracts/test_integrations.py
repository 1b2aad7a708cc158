"""Hooks of the real libraries in front of a provider that answers: each call is one event, whatever surrounds it."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.fake_provider import FakeServer, serving
from tests.patience import eventually
from tollmeter.producers.client.client import UsageProducer

KEY = "sk-test-0123456789abcdef0123456789"
ASK: Any = [{"role": "user", "content": "hello"}]
COUNTS = ("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")
CHAT = (1_000, 400, 300, 120)
"""What the provider's chat completions state."""

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture
def producer() -> Iterator[UsageProducer]:
    with UsageProducer(mode="memory", service="shop", org_id="acme") as memory:
        yield memory


@pytest.fixture(autouse=True)
def _leave_nothing_open() -> Iterator[None]:
    """The libraries keep clients whose sockets only the garbage collector closes."""
    yield
    gc.collect()


def counts(event: Any) -> tuple[int, ...]:
    return tuple(getattr(event, name) for name in COUNTS)


def test_litellm(server: FakeServer, producer: UsageProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    from tollmeter.producers.integrations.litellm import TollmeterLogger

    litellm.callbacks = [TollmeterLogger(producer, feature="search")]
    ask: Any = {"messages": ASK, "api_base": f"{server.url}/v1", "api_key": KEY}

    def told() -> dict[str, Any]:
        return {event.event_id: event for event in producer.events}

    async def asynchronously() -> None:  # LiteLLM tells of these calls by a task of its own
        await litellm.acompletion(model="openai/gpt-4o", **ask)
        await asyncio.to_thread(eventually, lambda: len(told()) == 3, 60)

    try:
        litellm.completion(model="openai/gpt-4o", user="ann", **ask)
        list(litellm.completion(model="openai/gpt-4o", stream=True, stream_options={"include_usage": True}, **ask))
        eventually(lambda: len(told()) == 2, 30)
        asyncio.run(asynchronously())
        with pytest.raises(litellm.RateLimitError):
            litellm.completion(model="openai/quota", num_retries=0, max_retries=0, **ask)
        eventually(lambda: len(told()) == 4, 30)
    finally:
        litellm.callbacks = []
    *served, failed = told().values()
    assert [counts(event) for event in served] == [CHAT] * 3
    assert {(event.feature, event.provider, event.status) for event in served} == {("search", "openai", "OK")}
    assert served[0].user_id == "ann"
    assert (failed.status, failed.error_type, failed.usage_source) == ("ERROR", "RateLimitError", "NONE")


def test_langchain(server: FakeServer, producer: UsageProducer) -> None:
    from langchain_core.caches import InMemoryCache
    from langchain_core.globals import set_llm_cache
    from langchain_openai import ChatOpenAI

    from tollmeter.producers.integrations.langchain import TollmeterHandler

    options: Any = {"base_url": f"{server.url}/v1", "api_key": KEY, "max_retries": 0, "stream_usage": True}
    config: Any = {"callbacks": [TollmeterHandler(producer, user_id="ann")], "metadata": {"thread_id": "t-1"}}
    model = ChatOpenAI(model="gpt-4o", **options)
    model.invoke("hello", config=config)
    list(model.stream("hello", config=config))
    asyncio.run(model.ainvoke("hello", config=config))
    with pytest.raises(Exception, match="quota"):
        ChatOpenAI(model="quota", **options).invoke("hello", config=config)
    set_llm_cache(InMemoryCache())
    try:
        for _ in range(3):
            model.invoke("again", config=config)
    finally:
        set_llm_cache(None)
    *served, failed, cached = producer.events[:5]
    assert [counts(event) for event in (*served, cached)] == [CHAT] * 4
    assert (failed.status, failed.error_type, failed.http_status) == ("ERROR", "OpenAIRateLimitError", 429)
    assert len(producer.events) == 5  # what the cache answered is no call
    assert {(e.provider, e.model_sent, e.user_id, e.session_id) for e in served} == {("openai", "gpt-4o", "ann", "t-1")}
    assert served[0].latency_ms is not None


@pytest.mark.parametrize("kind", ["responses", "chat"])
def test_openai_agents(kind: str, server: FakeServer, producer: UsageProducer) -> None:
    import agents
    from openai import AsyncOpenAI

    from tollmeter.producers.integrations.openai_agents import TollmeterProcessor

    async def run() -> None:
        async with AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client:
            shapes: Any = {"responses": agents.OpenAIResponsesModel, "chat": agents.OpenAIChatCompletionsModel}
            model = shapes[kind](model="gpt-4o", openai_client=client)
            await agents.Runner.run(agents.Agent(name="helper", model=model), "hello")

    agents.set_trace_processors([TollmeterProcessor(producer)])
    try:
        asyncio.run(run())
    finally:
        agents.set_trace_processors([])
    (event,) = producer.events
    assert (event.usage_source, event.status, event.provider) == ("PROVIDER", "OK", "openai")
    assert event.input_tokens > 0
    if kind == "chat":
        assert counts(event) == CHAT


def test_pydantic_ai(server: FakeServer, producer: UsageProducer) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from tollmeter.producers.integrations.pydantic_ai import metered

    model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=f"{server.url}/v1", api_key=KEY))
    agent = Agent(model, name="helper")
    agent.instrument = metered(producer, user_id="ann")
    agent.run_sync("a secret question")
    (event,) = producer.events
    assert (event.input_tokens, event.cache_read_tokens, event.output_tokens) == CHAT[:3]
    assert (event.provider, event.model_sent, event.user_id, event.agent) == ("openai", "gpt-4o", "ann", "helper")
    assert "secret question" not in event.model_dump_json()


def test_opentelemetry_of_a_framework_around_another(server: FakeServer, producer: UsageProducer) -> None:
    from tollmeter.producers.integrations.otel import TollmeterSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(TollmeterSpanProcessor(producer))
    tracer = provider.get_tracer("framework")
    said: Any = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.system": "openai"}
    said |= {"gen_ai.usage.input_tokens": 1_000, "gen_ai.usage.output_tokens": 300}
    with (
        tracer.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}),
        tracer.start_as_current_span("outer", attributes={**said, "gen_ai.agent.name": "outer"}),
        tracer.start_as_current_span("inner", attributes=said),
    ):
        pass
    with tracer.start_as_current_span("no call", attributes={"http.method": "GET"}):
        pass
    (event,) = producer.events
    assert (event.input_tokens, event.output_tokens, event.agent) == (1_000, 300, "")
