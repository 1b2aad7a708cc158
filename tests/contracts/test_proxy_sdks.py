"""Stock SDKs work through the proxy by their base URL alone: plain, streamed, with tools, errors; one event a call."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors, types

from tests import guard_rows
from tests.fake_provider import FakeServer, serving
from tests.proxied import OURS, REAL, Proxied, proxied
from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.secrets import key_id

ROOT = Path(__file__).resolve().parents[2]
ASK: Any = [{"role": "user", "content": "x" * 400}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def running(server: FakeServer) -> Iterator[Proxied]:
    with proxied(server) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: Proxied) -> Proxied:
    running.events.clear()
    running.provider.asked.clear()
    return running


def told(event: UsageEvent) -> tuple[Any, ...]:
    return event.provider, event.input_tokens, event.output_tokens, event.usage_source, event.status, event.stream


def chat(proxy: Proxied) -> openai.OpenAI:
    return openai.OpenAI(api_key=OURS, base_url=f"{proxy.url}/proxy/openai/v1", max_retries=0)


def test_openai(proxy: Proxied) -> None:
    client = chat(proxy)
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK, max_tokens=50)
    assert raw.parse().choices[0].message.content == "hi" * 20
    stream = client.chat.completions.create(
        model="gpt-4o", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "hi"
    client.responses.create(model="gpt-5", input="hi")
    client.embeddings.create(model="text-embedding-3-small", input="hi")
    client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"sound"))
    assert client.models.list().data == []
    plain, streamed, responses, embedded, heard = proxy.recorded(5)
    assert told(plain) == ("openai", 1000, 300, "PROVIDER", "OK", False)
    assert told(streamed) == ("openai", 1000, 300, "PROVIDER", "OK", True)
    assert (responses.operation, embedded.operation, heard.extra_units) == (
        "responses",
        "embeddings",
        {"audio_seconds": 12.0},
    )
    assert {event.org_id for event in proxy.events} == {"acme"}
    assert plain.api_key_id == key_id(REAL["OPENAI_API_KEY"], "salt")
    assert raw.headers["x-tollmeter-event-id"] == plain.event_id
    assert (raw.headers["x-tollmeter-input-tokens"], raw.headers["x-tollmeter-usage-source"]) == ("1000", "PROVIDER")
    assert raw.headers["x-request-id"] == "req_of_the_provider"
    sent = [headers for _, headers, _ in proxy.provider.asked]
    assert {headers["authorization"] for headers in sent} == {f"Bearer {REAL['OPENAI_API_KEY']}"}
    assert OURS not in json.dumps(sent)


def test_openai_asynchronous_and_at_once(proxy: Proxied) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(api_key=OURS, base_url=f"{proxy.url}/proxy/openai/v1", max_retries=0) as client:
            asked = [client.chat.completions.create(model="gpt-4o", messages=ASK) for _ in range(20)]
            stream = await client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
            parts = [chunk async for chunk in stream]
            return [*await asyncio.gather(*asked), parts]

    *plain, parts = asyncio.run(ask())
    assert (len(plain), len(parts)) == (20, 2)
    events = proxy.recorded(21)
    assert sum(event.input_tokens for event in events if not event.stream) == 20_000
    assert [told(event) for event in events if event.stream] == [("openai", 100, 1, "ESTIMATED", "OK", True)]


def test_tools_and_errors_arrive_as_they_are(proxy: Proxied) -> None:
    client = chat(proxy)
    reply = client.chat.completions.create(model="tool", messages=ASK, tools=TOOLS)
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Bern"})
    with pytest.raises(openai.RateLimitError, match="exceeded your current quota"):
        client.chat.completions.create(model="quota", messages=ASK)
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="absent", messages=ASK)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="broken", messages=ASK)
    assert [(event.status, event.http_status, event.error_type) for event in proxy.recorded(4)] == [
        ("OK", 200, ""),
        ("ERROR", 429, "insufficient_quota"),
        ("ERROR", 404, "model_not_found"),
        ("ERROR", 500, "server_error"),
    ]


def test_what_was_used_is_among_the_servers_figures(server: FakeServer) -> None:
    with proxied(server) as proxy:
        client = chat(proxy)
        ask: Any = {"messages": ASK, "max_tokens": 50}
        client.chat.completions.create(model="gpt-4o", **ask)
        for _ in client.chat.completions.create(
            model="gpt-4o", stream=True, stream_options={"include_usage": True}, **ask
        ):
            pass
        for model in ("quota", "broken"):
            with pytest.raises(openai.APIStatusError):
                client.chat.completions.create(model=model, **ask)
        events = proxy.recorded(4)
        counters = proxy.counters
        assert (counters.metered, dict(counters.tokens)) == (2, {"input": 2_000, "output": 600})
        assert (counters.timed, counters.took_ms) == (4, sum(event.latency_ms or 0 for event in events))


def test_an_sdks_retry_is_an_event_of_its_own(proxy: Proxied) -> None:
    client = openai.OpenAI(api_key=OURS, base_url=f"{proxy.url}/proxy/openai/v1", max_retries=2)
    proxy.provider.flaked = False
    client.chat.completions.create(model="flaky", messages=ASK)
    first, second = proxy.recorded(2)
    assert (first.status, second.status, second.tags["retry"]) == ("ERROR", "OK", "1")


def test_anthropic(proxy: Proxied) -> None:
    ask: Any = {"model": "claude-test", "max_tokens": 9, "messages": ASK}
    client = anthropic.Anthropic(api_key=OURS, base_url=f"{proxy.url}/proxy/anthropic", max_retries=0)
    assert client.messages.create(**ask).usage.output_tokens == 70
    with client.messages.stream(**ask) as stream:
        assert stream.get_final_message().usage.output_tokens == 70

    async def again() -> None:
        async with anthropic.AsyncAnthropic(auth_token=OURS, base_url=f"{proxy.url}/proxy/anthropic") as other:
            await other.messages.create(**ask)

    asyncio.run(again())
    with pytest.raises(anthropic.RateLimitError):
        client.messages.create(**ask | {"model": "busy"})
    *served, refused = proxy.recorded(4)
    assert {told(event)[:5] for event in served} == {("anthropic", 2600, 70, "PROVIDER", "OK")}
    assert (refused.status, refused.provider) == ("ERROR", "anthropic")
    sent = [headers for _, headers, _ in proxy.provider.asked]
    assert {headers["x-api-key"] for headers in sent} == {"ant-real"}
    assert all("authorization" not in headers for headers in sent)
    assert all(headers["anthropic-version"] for headers in sent)


def test_gemini(proxy: Proxied) -> None:
    options = types.HttpOptions(base_url=f"{proxy.url}/proxy/gemini")
    client = genai.Client(api_key=OURS, http_options=options)
    client.models.generate_content(model="gemini-2.5-flash", contents="hi")
    assert len(list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="hi"))) == 2

    async def again() -> None:
        async with httpx2.AsyncClient() as http:  # its default, aiohttp, warns of itself
            own = types.HttpOptions(base_url=f"{proxy.url}/proxy/gemini", httpx_async_client=http)
            await genai.Client(api_key=OURS, http_options=own).aio.models.generate_content(
                model="gemini-2.5-flash", contents="hi"
            )

    asyncio.run(again())
    stranger = genai.Client(api_key="wrong", http_options=options)
    with pytest.raises(errors.ClientError):
        stranger.models.generate_content(model="m", contents="hi")
    events = proxy.recorded(3)
    assert {told(event)[:5] for event in events} == {("google", 1000, 500, "PROVIDER", "OK")}
    assert [event.stream for event in events] == [False, True, False]
    assert {headers["x-goog-api-key"] for _, headers, _ in proxy.provider.asked} == {"goog-real"}


def test_a_spent_budget_refuses_in_each_sdks_own_words_and_is_not_tried_again(server: FakeServer) -> None:
    """Each SDK may try twice more: a refusal for spend is final, so the provider is never asked."""
    now = int(time.time())
    limit = Policy(org_id="acme", daily_limit_micro=1_000_000)
    retried = types.HttpRetryOptions(attempts=3, initial_delay=0.01)
    ask: Any = {"max_tokens": 9, "messages": ASK}
    with proxied(server) as proxy:
        known = [guard_rows.real_book(), guard_rows.layout(), guard_rows.policy(limit)]
        spent = guard_rows.spend(1_000_000_000, at_s=now)
        guard_rows.feed(proxy.guard, *known, spent, guard_rows.as_of(now * 1_000))
        server.asked.clear()
        with (
            openai.OpenAI(api_key=OURS, base_url=f"{proxy.url}/proxy/openai/v1", max_retries=2) as first,
            pytest.raises(openai.APIStatusError) as by_openai,
        ):
            first.chat.completions.create(model="gpt-4o", **ask)
        assert by_openai.value.response.json()["message"] == "llm cost limit exceeded: daily cost limit reached"
        with (
            anthropic.Anthropic(api_key=OURS, base_url=f"{proxy.url}/proxy/anthropic", max_retries=2) as second,
            pytest.raises(anthropic.APIStatusError, match="daily cost limit") as by_anthropic,
        ):
            second.messages.create(model="claude-haiku-4-5", **ask)
        options = types.HttpOptions(base_url=f"{proxy.url}/proxy/gemini", retry_options=retried)
        third = genai.Client(api_key=OURS, http_options=options)
        with pytest.raises(errors.ClientError, match="daily cost limit") as by_gemini:
            third.models.generate_content(model="gemini-2.5-flash", contents="hi")
        third.close()
        assert [by_openai.value.status_code, by_anthropic.value.status_code, by_gemini.value.code] == [402] * 3
        refused = [(event.status, event.http_status, event.org_id) for event in proxy.recorded(3)]
        assert refused == [("BLOCKED", 402, "acme")] * 3
        assert server.asked == []


def test_a_callers_own_key_goes_on_and_ours_does_not(proxy: Proxied) -> None:
    theirs = "sk-of-the-caller-0123456789"
    by_header = openai.OpenAI(
        api_key=theirs, base_url=f"{proxy.url}/proxy/own/v1", default_headers={"x-tollmeter-key": OURS}, max_retries=0
    )
    by_path = openai.OpenAI(api_key=theirs, base_url=f"{proxy.url}/proxy/own/key={OURS}/v1", max_retries=0)
    for client in (by_header, by_path):
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert {event.api_key_id for event in proxy.recorded(2)} == {key_id(theirs, "salt")}
    for path, headers, _ in proxy.provider.asked:
        assert (path, headers["authorization"]) == ("/v1/chat/completions", f"Bearer {theirs}")
        assert OURS not in json.dumps(headers)


def test_the_readmes_call_as_printed(proxy: Proxied) -> None:
    printed = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Put it in front of a provider")[2]
    code = printed.partition("```python\n")[2].partition("```")[0]
    environment = {**os.environ, "OPENAI_BASE_URL": f"{proxy.url}/proxy/openai/v1", "OPENAI_API_KEY": OURS}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "'x-tollmeter-input-tokens': '1000'" in done.stdout
    (event,) = proxy.recorded(1)
    assert (event.feature, event.status) == ("summarise", "OK")


NODE = """
import OpenAI from "openai";
const client = new OpenAI({apiKey: process.env.KEY, baseURL: process.env.BASE, maxRetries: 0});
const chat = (ask) => client.chat.completions.create(ask);
const ask = {model: "gpt-4o", messages: [{role: "user", content: "x".repeat(400)}]};
const plain = await chat(ask);
let text = "";
for await (const chunk of await chat({...ask, stream: true, stream_options: {include_usage: true}}))
  text += chunk.choices[0]?.delta?.content ?? "";
let refused = "";
try { await chat({...ask, model: "quota"}); } catch (error) { refused = `${error.status} ${error.code}`; }
console.log(JSON.stringify([plain.choices[0].message.content, text, refused]));
"""


@pytest.mark.node
def test_openai_in_node(proxy: Proxied, node_modules: Path) -> None:
    (node_modules / "ask.mjs").write_text(NODE, encoding="utf-8")
    environment = {**os.environ, "KEY": OURS, "BASE": f"{proxy.url}/proxy/openai/v1"}
    done = subprocess.run(
        ["node", "ask.mjs"], cwd=node_modules, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["hi" * 20, "hi", "429 insufficient_quota"]
    assert [told(event)[1:] for event in proxy.recorded(3)] == [
        (1000, 300, "PROVIDER", "OK", False),
        (1000, 300, "PROVIDER", "OK", True),
        (0, 0, "NONE", "ERROR", False),
    ]


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with npm's openai."""
    if shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "openai@7.59.0"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder
