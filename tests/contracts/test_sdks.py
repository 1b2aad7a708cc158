"""The real SDKs against a local server that answers like their providers: what they hand back becomes right events."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.answers import (
    CHAT_STREAM,
    CHAT_USAGE,
    CONTENT,
    GEMINI_STREAM,
    GEMINI_USAGE,
    MESSAGE,
    MESSAGE_STREAM,
    RESPONSE,
    RESPONSE_STREAM,
    chat_chunk,
)
from tollmeter.producers.extract.extract import extract
from tollmeter.producers.extract.observe import aobserve, observe
from tollmeter.schemas.event import UsageEvent


class FakeProvider(BaseHTTPRequestHandler):
    """Answers each provider's path with its documented shape."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/chat/completions"):
            plain = {**chat_chunk(choices=[]), "object": "chat.completion", "usage": CHAT_USAGE, "service_tier": "flex"}
            plain["choices"] = [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
            ]
            self._answer(asked, plain, CHAT_STREAM, done=True)
        elif self.path.endswith("/responses"):
            self._answer(asked, RESPONSE, RESPONSE_STREAM, named=True)
        elif self.path.endswith("/embeddings"):
            row = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
            usage = {"prompt_tokens": 20, "total_tokens": 20}
            self._answer({}, {"object": "list", "model": "text-embedding-3-small", "data": [row], "usage": usage}, [])
        elif self.path.endswith("/images/generations"):
            self._answer({}, {"created": 1, "data": [{"url": "https://x/1"}, {"url": "https://x/2"}]}, [])
        elif self.path.endswith("/messages"):
            self._answer(asked, MESSAGE, MESSAGE_STREAM, named=True)
        else:
            plain = {**CONTENT, "modelVersion": "gemini-2.5-flash", "responseId": "r1", "usageMetadata": GEMINI_USAGE}
            self._answer({"stream": "streamGenerateContent" in self.path}, plain, GEMINI_STREAM)

    def _answer(
        self, asked: dict[str, Any], plain: Any, chunks: list[Any], *, named: bool = False, done: bool = False
    ) -> None:
        if not asked.get("stream"):
            self._send(json.dumps(plain).encode(), "application/json")
            return
        lines = []
        for chunk in chunks:
            name = f"event: {chunk['type']}\n" if named else ""
            lines.append(f"{name}data: {json.dumps(chunk)}\n\n")
        self._send(("".join(lines) + ("data: [DONE]\n\n" if done else "")).encode(), "text/event-stream")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeProvider)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def openai_client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="none", base_url=url, max_retries=0) as client:
        yield client


@pytest.fixture
def gemini(url: str) -> Iterator[genai.Client]:
    client = genai.Client(api_key="none", http_options=types.HttpOptions(base_url=url))
    yield client
    client.close()


ASK: Any = [{"role": "user", "content": "hi"}]


def tokens(event: UsageEvent) -> tuple[int, ...]:
    return (
        event.input_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.cache_write_1h_tokens,
        event.output_tokens,
        event.reasoning_tokens,
    )


def check(event: UsageEvent, provider: str, counts: tuple[int, ...], model: str, call: str, *, stream: bool) -> None:
    assert tokens(event) == counts
    assert (event.provider, event.model_used, event.provider_request_id) == (provider, model, call)
    assert (event.stream, event.status, event.usage_source) == (stream, "OK", "PROVIDER")


CHAT = ("openai", (1000, 400, 0, 0, 300, 120), "gpt-4o", "chatcmpl-1")
RESPONSES = ("openai", (900, 100, 0, 0, 80, 64), "gpt-5", "resp_1")
ANTHROPIC = ("anthropic", (2600, 2000, 500, 200, 70, 0), "claude-test", "msg_1")
GEMINI = ("google", (1000, 600, 0, 0, 500, 300), "gemini-2.5-flash", "r1")


def test_openai_chat(openai_client: openai.OpenAI) -> None:
    reply = openai_client.chat.completions.create(model="gpt-4o", messages=ASK)
    event = extract(reply, service="shop", model_sent="gpt-4o")
    check(event, *CHAT, stream=False)
    assert event.service_tier == "flex"


def test_openai_chat_streamed(openai_client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    stream = openai_client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True, stream_options=options)
    check(extract(stream, service="shop"), *CHAT, stream=True)


def test_openai_responses(openai_client: openai.OpenAI) -> None:
    event = extract(openai_client.responses.create(model="gpt-5", input="hi"), service="shop")
    check(event, *RESPONSES, stream=False)
    assert (event.service_tier, event.operation) == ("flex", "responses")


def test_openai_responses_streamed(openai_client: openai.OpenAI) -> None:
    event = extract(openai_client.responses.create(model="gpt-5", input="hi", stream=True), service="shop")
    check(event, *RESPONSES, stream=True)
    assert (event.service_tier, event.operation) == ("flex", "responses")


def test_openai_embeddings_and_images(openai_client: openai.OpenAI) -> None:
    event = extract(openai_client.embeddings.create(model="text-embedding-3-small", input="hi"), service="shop")
    assert (event.operation, event.input_tokens, event.output_tokens) == ("embeddings", 20, 0)
    image = openai_client.images.generate(model="dall-e-3", prompt="a cat")
    event = extract(image, service="shop", asked={"model": "dall-e-3", "prompt": "a cat"})
    assert (event.operation, event.extra_units, event.usage_source) == ("image", {"images": 2.0}, "PROVIDER")
    assert event.model_sent == "dall-e-3"


def test_anthropic(anthropic_client: anthropic.Anthropic) -> None:
    reply = anthropic_client.messages.create(model="claude-test", max_tokens=9, messages=ASK)
    check(extract(reply, service="shop"), *ANTHROPIC, stream=False)


def test_anthropic_streamed_totals_replace_each_other(anthropic_client: anthropic.Anthropic) -> None:
    stream = anthropic_client.messages.create(model="claude-test", max_tokens=9, messages=ASK, stream=True)
    check(extract(stream, service="shop"), *ANTHROPIC, stream=True)


def test_gemini(gemini: genai.Client) -> None:
    event = extract(gemini.models.generate_content(model="gemini-2.5-flash", contents="hi"), service="shop")
    check(event, *GEMINI, stream=False)
    # nobody says how much of the cached input was sound
    assert event.extra_units == {"input_audio_tokens": 300.0, "unexplained_tokens": 300.0}


def test_gemini_streamed(gemini: genai.Client) -> None:
    stream = gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")
    check(extract(stream, service="shop"), *GEMINI, stream=True)


def test_a_stream_passes_through_while_it_is_observed(openai_client: openai.OpenAI) -> None:
    events: list[UsageEvent] = []
    stream = openai_client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    chunks = list(observe(stream, events.append, service="shop", model_sent="gpt-4o", user_id="ann"))
    assert len(chunks) == 3
    (event,) = events
    check(event, *CHAT, stream=True)
    assert (event.user_id, event.ttft_ms is not None, event.latency_ms is not None) == ("ann", True, True)


def test_a_caller_that_stops_early_leaves_a_cancelled_event(anthropic_client: anthropic.Anthropic) -> None:
    events: list[UsageEvent] = []
    stream = anthropic_client.messages.create(model="claude-test", max_tokens=9, messages=ASK, stream=True)
    watched = observe(stream, events.append, service="shop")
    next(watched)
    watched.close()  # type: ignore[attr-defined]  # what leaving a `for` loop does
    (event,) = events
    assert (event.status, tokens(event)) == ("CANCELLED", (2600, 2000, 500, 200, 1, 0))
    assert event.usage_source == "ESTIMATED", "the output's count comes with the end"


def test_async_streams_are_observed(url: str) -> None:
    events: list[UsageEvent] = []

    async def call() -> int:
        async with openai.AsyncOpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0) as client:
            stream = await client.responses.create(model="gpt-5", input="hi", stream=True)
            return len([chunk async for chunk in aobserve(stream, events.append, service="shop")])

    assert asyncio.run(call()) == 3
    check(events[0], *RESPONSES, stream=True)


def test_an_error_in_a_stream_is_an_error_event_and_still_rises() -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield CHAT_STREAM[0]
        raise ConnectionResetError("gone")

    async def abroken() -> AsyncIterator[dict[str, Any]]:
        for chunk in broken():
            yield chunk

    async def consume() -> None:
        async for _ in aobserve(abroken(), events.append, service="shop"):
            pass

    events: list[UsageEvent] = []
    with pytest.raises(ConnectionResetError):
        list(observe(broken(), events.append, service="shop"))
    with pytest.raises(ConnectionResetError):
        asyncio.run(consume())
    assert [(event.status, event.error_type, event.usage_source) for event in events] == [
        ("ERROR", "ConnectionResetError", "NONE")
    ] * 2


def test_a_faulty_recorder_does_not_break_the_stream() -> None:
    def refuse(_event: UsageEvent) -> None:
        raise RuntimeError("metering is broken")

    assert list(observe(iter(CHAT_STREAM), refuse, service="shop")) == CHAT_STREAM
