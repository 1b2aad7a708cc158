"""The real SDKs through a metered HTTP client, against a local server: one event per attempt, bytes untouched."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

from tests.fake_provider import FakeServer, serving
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.client.destinations import RateLimited
from tollmeter.producers.client.scope import calling
from tollmeter.producers.http import attempt
from tollmeter.producers.http.answer import answer_of
from tollmeter.producers.http.metered import metered, replace_estimate
from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.secrets import key_id
from tollmeter.settings import Settings

KEY = "sk-test-0123456789abcdef0123456789"
ASK: Any = [{"role": "user", "content": "x" * 400}]
LIBRARIES = pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture
def producer() -> Iterator[UsageProducer]:
    settings = Settings.from_environment({"TOLLMETER_PEPPER": "salt"})
    with UsageProducer(mode="memory", service="shop", settings=settings) as memory:
        yield memory


def chat(server: FakeServer, http_client: Any, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", http_client=http_client, max_retries=retries)


def tokens(event: UsageEvent) -> tuple[int, int, str, str]:
    return event.input_tokens, event.output_tokens, event.usage_source, event.status


@LIBRARIES
def test_a_plain_call(http: Any, server: FakeServer, producer: UsageProducer) -> None:
    with http.Client() as inner, calling(user_id="ann", request_id="r-1"):
        client = chat(server, metered(inner, producer=producer, org="acme", feature="summarise"))
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK, max_tokens=50)
    assert raw.parse().choices[0].message.content == "hi" * 20
    (event,) = producer.events
    assert tokens(event) == (1000, 300, "PROVIDER", "OK")
    assert (event.cache_read_tokens, event.reasoning_tokens, event.prompt_chars) == (400, 120, 400)
    assert (event.org_id, event.user_id, event.feature, event.request_id) == ("acme", "ann", "summarise", "r-1")
    assert (event.provider, event.model_sent, event.model_used) == ("openai", "gpt-4o", "gpt-4o")
    assert (event.provider_request_id, event.http_status, event.stream) == ("chatcmpl-1", 200, False)
    assert event.api_host == server.url.removeprefix("http://")
    assert event.api_key_id == key_id(KEY, "salt")
    assert event.latency_ms is not None
    assert raw.headers["x-tollmeter-request-id"] == "r-1"
    assert raw.headers["x-tollmeter-event-id"] == event.event_id
    assert (raw.headers["x-tollmeter-input-tokens"], raw.headers["x-tollmeter-output-tokens"]) == ("1000", "300")
    answer = answer_of(raw)
    assert answer is not None
    assert (answer.request_id, answer.usage_source, answer.complete) == ("r-1", "PROVIDER", True)


@LIBRARIES
@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("gpt-4o", {"include_usage": True}, (1000, 300, "PROVIDER", "OK")),
        ("gpt-4o", None, (100, 1, "ESTIMATED", "OK")),  # 400 characters asked, "hi" answered
        ("gzip", {"include_usage": True}, (1000, 300, "PROVIDER", "OK")),
    ],
    ids=["usage asked for", "usage not asked for", "compressed"],
)
def test_a_streamed_call(
    http: Any, model: str, options: Any, expected: Any, server: FakeServer, producer: UsageProducer
) -> None:
    more = {"stream_options": options} if options else {}
    with http.Client() as inner:
        client = chat(server, metered(inner, producer=producer))
        stream: Any = client.chat.completions.create(model=model, messages=ASK, stream=True, **more)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == "hi"
    (event,) = producer.events
    assert tokens(event) == expected
    assert (event.stream, event.ttft_ms is not None) == (True, True)
    answer = answer_of(stream)
    assert answer is not None
    assert (answer.event_id, answer.complete, answer.output_tokens) == (event.event_id, True, expected[1])


def test_a_reply_without_usage_is_estimated(server: FakeServer, producer: UsageProducer) -> None:
    with httpx2.Client() as inner:
        chat(server, metered(inner, producer=producer)).chat.completions.create(model="mute", messages=ASK)
    assert tokens(producer.events[0]) == (100, 10, "ESTIMATED", "OK")


def test_a_tokenizer_counts_the_prompt(server: FakeServer, producer: UsageProducer) -> None:
    def count(model: str, content: bytes) -> int:
        assert (model, b"xxxx" in content) == ("mute", True)
        return 77

    with httpx2.Client() as inner:
        client = chat(server, metered(inner, producer=producer, tokenizer=count))
        client.chat.completions.create(model="mute", messages=ASK)
    assert tokens(producer.events[0]) == (77, 10, "ESTIMATED", "OK")


def test_responses_embeddings_and_uploads(server: FakeServer, producer: UsageProducer) -> None:
    with httpx2.Client() as inner:
        client = chat(server, metered(inner, producer=producer))
        client.responses.create(model="gpt-5", input="hi")
        list(client.responses.create(model="gpt-5", input="hi", stream=True))
        client.embeddings.create(model="text-embedding-3-small", input="hi")
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"sound"))
        client.models.list()
    plain, streamed, embedded, heard = producer.events
    assert tokens(plain) == tokens(streamed) == (900, 80, "PROVIDER", "OK")
    assert (plain.operation, embedded.operation, heard.operation) == ("responses", "embeddings", "transcription")
    assert (tokens(embedded), heard.model_sent) == ((20, 0, "PROVIDER", "OK"), "whisper-1")
    assert heard.extra_units == {"audio_seconds": 12.0}


def test_anthropic(server: FakeServer, producer: UsageProducer) -> None:
    ask: Any = {"model": "claude-test", "max_tokens": 9, "messages": ASK}
    with httpx2.Client() as inner:
        client = anthropic.Anthropic(
            api_key=KEY, base_url=server.url, http_client=metered(inner, producer=producer), max_retries=0
        )
        client.messages.create(**ask)
        with client.messages.stream(**ask) as stream:
            stream.get_final_message()
    for event in producer.events:
        assert tokens(event) == (2600, 70, "PROVIDER", "OK")
        assert (event.provider, event.api_key_id, event.model_sent) == ("anthropic", key_id(KEY, "salt"), "claude-test")
    assert [event.stream for event in producer.events] == [False, True]


def test_gemini(server: FakeServer, producer: UsageProducer) -> None:
    with httpx2.Client() as inner:
        options = types.HttpOptions(base_url=server.url, httpx_client=metered(inner, producer=producer))
        client = genai.Client(api_key=KEY, http_options=options)
        client.models.generate_content(model="gemini-2.5-flash", contents="hi")
        list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="hi"))
    for event in producer.events:
        assert tokens(event) == (1000, 500, "PROVIDER", "OK")
        assert (event.provider, event.model_sent) == ("google", "gemini-2.5-flash")
        assert event.api_key_id == key_id(KEY, "salt")
    assert [event.stream for event in producer.events] == [False, True]


def test_an_error_is_an_event_without_usage(server: FakeServer, producer: UsageProducer) -> None:
    with httpx2.Client() as inner, pytest.raises(openai.RateLimitError) as raised:
        chat(server, metered(inner, producer=producer)).chat.completions.create(model="quota", messages=ASK)
    (event,) = producer.events
    assert tokens(event) == (0, 0, "NONE", "ERROR")
    assert (event.http_status, event.error_type) == (429, "insufficient_quota")
    assert event.provider_request_id == "req_of_the_provider"
    answer = answer_of(raised.value)
    assert answer is not None
    assert answer.event_id == event.event_id


def test_each_retry_of_the_sdk_is_an_event(
    server: FakeServer, producer: UsageProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with httpx2.Client() as inner, calling(request_id="one"):
        chat(server, metered(inner, producer=producer), retries=2).chat.completions.create(model="flaky", messages=ASK)
    failed, answered = producer.events
    assert (failed.status, failed.http_status, failed.tags) == ("ERROR", 500, {})
    assert (answered.status, answered.http_status, answered.tags) == ("OK", 200, {"retry": "1"})
    assert failed.request_id == answered.request_id == "one"
    assert failed.prompt_hash == answered.prompt_hash != ""


def test_a_stream_left_early_is_cancelled_and_estimated(server: FakeServer, producer: UsageProducer) -> None:
    ask: Any = {"model": "stuck", "messages": ASK, "stream": True}
    with httpx2.Client() as inner:
        client = chat(server, metered(inner, producer=producer))
        with client.chat.completions.create(**ask) as stream:
            next(iter(stream))
    assert tokens(producer.events[0]) == (100, 1, "ESTIMATED", "CANCELLED")


def test_a_broken_stream_is_an_error_and_still_rises(server: FakeServer, producer: UsageProducer) -> None:
    ask: Any = {"model": "cut", "max_tokens": 9, "messages": ASK, "stream": True}
    with httpx2.Client() as inner:
        client = anthropic.Anthropic(
            api_key=KEY, base_url=server.url, http_client=metered(inner, producer=producer), max_retries=0
        )
        with pytest.raises((anthropic.APIConnectionError, httpx2.RemoteProtocolError)):
            list(client.messages.create(**ask))
    (event,) = producer.events
    # what the first event of the stream stated stays; how much came after it is unknown
    assert tokens(event) == (2600, 1, "ESTIMATED", "ERROR")
    assert event.error_type == "RemoteProtocolError"


@pytest.mark.parametrize(
    ("model", "port_open", "expected", "error"),
    [
        ("late", True, (100, 0, "ESTIMATED", "ERROR"), "ReadTimeout"),  # it was sent, and may well be billed
        ("gpt-4o", False, (0, 0, "NONE", "ERROR"), "ConnectError"),
    ],
    ids=["no answer in time", "nobody there"],
)
def test_no_answer(
    model: str, port_open: bool, expected: Any, error: str, server: FakeServer, producer: UsageProducer
) -> None:
    with httpx2.Client() as inner:
        client = chat(server, metered(inner, producer=producer)).with_options(timeout=0.3)
        client = client if port_open else client.with_options(base_url="http://127.0.0.1:1/v1")
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(model=model, messages=ASK)
    (event,) = producer.events
    assert tokens(event) == expected
    assert event.error_type == error


@LIBRARIES
def test_async_calls(http: Any, server: FakeServer, producer: UsageProducer) -> None:
    async def calls() -> Any:
        async with http.AsyncClient() as inner:
            client = openai.AsyncOpenAI(
                api_key=KEY, base_url=f"{server.url}/v1", http_client=metered(inner, producer=producer), max_retries=0
            )
            with calling(user_id="ann"):
                await client.chat.completions.create(model="gpt-4o", messages=ASK)
            ask: Any = {"model": "gpt-4o", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
            async for _ in await client.chat.completions.create(**ask):
                pass
            with calling(user_id="bob"):
                stuck = asyncio.create_task(read(client))
            with pytest.raises(asyncio.CancelledError):
                await stuck
            with pytest.raises(openai.InternalServerError):
                await client.chat.completions.create(model="broken", messages=ASK)

    async def read(client: openai.AsyncOpenAI) -> None:
        ask: Any = {"model": "stuck", "messages": ASK, "stream": True}
        async with await client.chat.completions.create(**ask) as stream:
            async for _ in stream:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    asyncio.run(calls())
    assert [tokens(event) for event in producer.events] == [
        (1000, 300, "PROVIDER", "OK"),
        (1000, 300, "PROVIDER", "OK"),
        (100, 1, "ESTIMATED", "CANCELLED"),
        (0, 0, "NONE", "ERROR"),
    ]
    assert [event.user_id for event in producer.events] == ["ann", "", "bob", ""]


def test_what_is_no_call_to_a_model_passes(server: FakeServer, producer: UsageProducer) -> None:
    with metered(httpx2.Client(), producer=producer) as client:
        assert client.get(f"{server.url}/v1/models").status_code == 200
        client.post(f"{server.url}/v1/messages/count_tokens", json={"model": "claude-test"})
        client.post(f"{server.url}/hook", json={"text": "hello"})
        client.post(f"{server.url}/v1/files", data={"a": "b"})
    assert producer.events == []


def test_no_key_in_events_or_logs(
    server: FakeServer, producer: UsageProducer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "tollmeter"), httpx2.Client() as inner:
        chat(server, metered(inner, producer=producer)).chat.completions.create(model="gpt-4o", messages=ASK)
    assert KEY not in caplog.text + repr(producer.events)
    assert server.asked[0][1]["authorization"] == f"Bearer {KEY}"


def test_a_failing_meter_does_not_break_the_call(
    server: FakeServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "faults", RateLimited())  # another test may have warned a moment ago

    class Faulty:
        def record(self, _event: UsageEvent) -> str:
            raise RuntimeError("metering is broken")

        def key_id(self, _secret: str | bytes) -> str:
            return "k"

    with httpx2.Client() as inner:
        reply = chat(server, metered(inner, producer=Faulty())).chat.completions.create(model="gpt-4o", messages=ASK)
    assert reply.choices[0].message.content == "hi" * 20
    assert "metering failed" in caplog.text


def test_an_answer_in_the_background_waits_for_its_usage(server: FakeServer, producer: UsageProducer) -> None:
    with httpx2.Client() as inner:
        client = chat(server, metered(inner, producer=producer))
        begun = client.responses.create(model="background", input="x" * 400, background=True)
        assert (begun.status, producer.events) == ("queued", [])
        assert client.responses.retrieve(begun.id).status == "in_progress"
        assert producer.events == [], "not known yet"
        server.go_on.set()
        assert client.responses.retrieve(begun.id).status == "completed"
        (event,) = producer.events
        client.responses.retrieve(begun.id)
        client.responses.create(model="background", input="x" * 400, background=True)
    assert tokens(event) == (900, 80, "PROVIDER", "OK")
    assert (event.model_sent, event.prompt_chars, event.http_status) == ("background", 400, 200)
    # the second is never fetched: the closed client gives its estimate
    assert [tokens(made) for made in producer.events[1:]] == [(100, 0, "ESTIMATED", "OK")]


def test_an_estimate_can_be_replaced_while_it_is_held(server: FakeServer, producer: UsageProducer) -> None:
    known: Any = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "usage": {"prompt_tokens": 88, "completion_tokens": 9},
    }
    with httpx2.Client() as inner:
        client = chat(server, metered(inner, producer=producer, hold_s=60))
        client.chat.completions.create(model="gpt-4o", messages=ASK)
        assert len(producer.events) == 1, "what is known is not held"
        raw = client.chat.completions.with_raw_response.create(model="mute", messages=ASK)
        assert raw.headers["x-tollmeter-usage-source"] == "ESTIMATED"
        assert not replace_estimate(inner, {**known, "usage": None})
        assert not replace_estimate(inner, {**known, "id": "another"})
        assert replace_estimate(inner, known)
        assert not replace_estimate(inner, known), "recorded: the first one wins"
    assert tokens(producer.events[1]) == (88, 9, "PROVIDER", "OK")
    answer = answer_of(raw)
    assert answer is not None
    assert (answer.usage_source, answer.input_tokens) == ("PROVIDER", 88)
    with pytest.raises(ValueError, match="not metered"):
        replace_estimate(httpx2.Client(), known)


def test_a_held_estimate_is_recorded_when_its_time_is_up(
    server: FakeServer, producer: UsageProducer, eventually: Any
) -> None:
    with httpx2.Client() as inner:
        client = chat(server, metered(inner, producer=producer, hold_s=0.2))
        client.chat.completions.create(model="mute", messages=ASK)
        assert producer.events == []
        eventually(lambda: producer.events, timeout=10)
    assert [tokens(event) for event in producer.events] == [(100, 10, "ESTIMATED", "OK")]


AT_EXIT = """
import atexit
said = []
atexit.register(lambda: print([event.usage_source for event in said[0].events]))  # the last of all
import httpx2
from tollmeter import metered
from tollmeter import UsageProducer
said.append(UsageProducer(mode="memory", service="shop"))
client = metered(httpx2.Client(), producer=said[0], hold_s=600)
client.post("{url}/v1/chat/completions", json={{"model": "mute", "messages": []}})
assert said[0].events == []
"""


def test_a_process_that_ends_records_what_it_holds(server: FakeServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT.format(url=server.url)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "['ESTIMATED']"), done.stderr


def test_async_anthropic(server: FakeServer, producer: UsageProducer) -> None:
    async def calls() -> None:
        async with httpx2.AsyncClient() as inner:
            client = anthropic.AsyncAnthropic(
                api_key=KEY, base_url=server.url, http_client=metered(inner, producer=producer), max_retries=0
            )
            ask: Any = {"model": "claude-test", "max_tokens": 9, "messages": ASK}
            raw = await client.messages.with_raw_response.create(**ask)
            assert raw.headers["x-tollmeter-input-tokens"] == "2600"
            async with client.messages.stream(**ask) as stream:
                await stream.get_final_message()

    asyncio.run(calls())
    assert [tokens(event) for event in producer.events] == [(2600, 70, "PROVIDER", "OK")] * 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: metered(object()), "no Client or AsyncClient"),
        (lambda: metered(metered(httpx2.Client())), "metered already"),
        (lambda: metered(httpx2.Client(), colour="red"), "colour"),
        (lambda: metered(httpx2.Client(), status="OK"), "status"),
    ],
    ids=["no client", "twice", "no such field", "not to be fixed"],
)
def test_wrong_use_is_said_at_once(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
