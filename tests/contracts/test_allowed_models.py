"""Rules about models where calls are made: the real SDKs through a metered client, and the proxy with real sockets."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.fake_provider import FakeServer, serving
from tests.guard_rows import real_book
from tests.guards import guard_with
from tests.proxied import OURS, TRUSTED, Proxied, proxied
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.client.scope import calling
from tollmeter.producers.fallback.native import NativeClient, Target
from tollmeter.producers.guard.guard import CallRefused, Guard
from tollmeter.producers.http.answer import answer_of
from tollmeter.producers.http.meter import Meter
from tollmeter.producers.http.metered import metered
from tollmeter.schemas.model_rules import ModelRule

ASK: Any = [{"role": "user", "content": "hé"}]
MINI = "gpt-4o-mini"
RULE = ModelRule(org_id="acme", scope="user", name="ann", allowed=(MINI,))
SOFT = RULE.model_copy(update={"name": "bob", "downgrade_to": MINI})
CLAUDE = ModelRule(
    org_id="acme", scope="user", name="cem", allowed=("claude-haiku-4-5",), downgrade_to="claude-haiku-4-5"
)
FLASH = ModelRule(
    org_id="acme", scope="user", name="dan", allowed=("gemini-2.5-flash",), downgrade_to="gemini-2.5-flash"
)
RULES = (RULE, SOFT, CLAUDE, FLASH)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture
def producer(server: FakeServer) -> Iterator[UsageProducer]:
    server.asked.clear()
    with UsageProducer(mode="memory", service="shop") as memory:
        yield memory


@cache
def ruled() -> Guard:
    return guard_with(*RULES)


def client(server: FakeServer, producer: UsageProducer, http: httpx2.Client) -> openai.OpenAI:
    wrapped = metered(http, producer=producer, guard=ruled(), org="acme")
    return openai.OpenAI(api_key="sk-x", base_url=f"{server.url}/v1", http_client=wrapped, max_retries=0)


def test_a_refused_call_never_leaves_and_is_an_event(server: FakeServer, producer: UsageProducer) -> None:
    with httpx2.Client() as http, calling(user_id="ann"), pytest.raises(openai.PermissionDeniedError) as raised:
        client(server, producer, http).chat.completions.create(model="gpt-4o", messages=ASK)
    told = raised.value.response.json()
    assert (told["refused"], told["model"], told["allowed"]) == ("model_not_allowed", "gpt-4o", [MINI])
    assert raised.value.response.headers["x-tollmeter-refused"] == "model_not_allowed"
    assert server.asked == []
    (event,) = producer.events
    assert (event.status, event.error_type, event.http_status) == ("BLOCKED", "model_not_allowed", 403)
    assert (event.model_sent, event.input_tokens, event.output_tokens) == ("gpt-4o", 0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_downgraded_call_says_what_was_asked_and_what_served(
    server: FakeServer, producer: UsageProducer, stream: bool
) -> None:
    with httpx2.Client() as http, calling(user_id="bob"):
        raw = client(server, producer, http).chat.completions.with_raw_response.create(
            model="gpt-4o", messages=ASK, stream=stream, temperature=0.5
        )
        if stream:
            for _ in raw.parse():
                pass
    (sent,) = server.asked
    assert sent[2] == {"model": MINI, "messages": ASK, "temperature": 0.5, "stream": stream}
    assert raw.headers["x-tollmeter-model-asked"] == "gpt-4o"
    assert raw.headers["x-tollmeter-model-sent"] == MINI
    answer = answer_of(raw)
    assert answer is not None
    assert (answer.model_asked, answer.model_sent) == ("gpt-4o", MINI)
    (event,) = producer.events
    assert (event.model_sent, event.model_used, event.fallback_from) == (MINI, MINI, "gpt-4o")
    assert event.status == "OK"


def test_async_and_another_provider(server: FakeServer, producer: UsageProducer) -> None:
    async def call() -> Any:
        async with httpx2.AsyncClient() as http:
            wrapped = metered(http, producer=producer, guard=ruled(), org="acme", provider="anthropic")
            one = anthropic.AsyncAnthropic(api_key="k", base_url=server.url, http_client=wrapped, max_retries=0)
            return await one.messages.create(model="claude-opus-4-1", max_tokens=9, messages=ASK)

    with calling(user_id="cem"):
        assert asyncio.run(call()).model == "claude-haiku-4-5"
    assert [event.fallback_from for event in producer.events] == ["claude-opus-4-1"]


def test_a_packed_body_a_path_and_a_form_are_written_anew(server: FakeServer, producer: UsageProducer) -> None:
    body = json.dumps({"model": "gpt-4o", "messages": ASK}).encode()
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    with httpx2.Client() as plain, calling(user_id="bob"):
        http = metered(plain, producer=producer, guard=ruled(), org="acme")
        http.post(f"{server.url}/v1/chat/completions", content=gzip.compress(body), headers=packed).raise_for_status()
        form = {"data": {"model": "whisper-1", "language": "de"}, "files": {"file": ("a.wav", b"\x00\xff" * 9)}}
        http.post(f"{server.url}/v1/audio/transcriptions", **form).raise_for_status()
    with httpx2.Client() as plain, calling(user_id="dan"):
        http = metered(plain, producer=producer, guard=ruled(), org="acme", provider="google")
        path = "/v1beta/models/gemini-2.5-pro:generateContent"
        http.post(f"{server.url}{path}?alt=json", json={"contents": []}).raise_for_status()
    first, second, third = server.asked
    assert first[2] == {"model": MINI, "messages": ASK}
    assert "content-encoding" not in first[1]
    assert second[0] == "/v1/audio/transcriptions"
    assert third[0] == "/v1beta/models/gemini-2.5-flash:generateContent?alt=json"
    names = [(event.model_sent, event.fallback_from) for event in producer.events]
    assert names == [(MINI, "gpt-4o"), (MINI, "whisper-1"), ("gemini-2.5-flash", "gemini-2.5-pro")]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v1/chat/completions", b'{"messages": []}'),
        ("/v1/chat/completions", b'{"model": ["gpt-4o-mini"], "messages": []}'),
        ("/v1/chat/completions", b'{"model": "gpt-4o-mini", "model": "gpt-4o"}'),
        ("/v1/chat/completions", b'{"model": "gpt-4o-mini", "Model": "gpt-4o"}'),
        ("/v1/chat/completions", b'{"model": "gpt-4o-mini", "models": ["gpt-4o"]}'),
        ("/v1/chat/completions", b'{"model": "gpt-4o-mini", "fallbacks": [{"model": "gpt-4o"}]}'),
        ("/v1/responses", b'{"model": "gpt-4o-mini", "tools": [{"type": "image_generation", "model": "gpt-image-1"}]}'),
        ("/openai/deployments/gpt-4o/chat/completions", b'{"model": "gpt-4o-mini"}'),
        ("/v1beta/models/gemini-2.5-pro:generateContent", b'{"model": "gpt-4o-mini"}'),
        ("/v1/chat/completions", b"\x1f\x8b not gzip"),
        ("/v1/chat/completions", b"[" * 50_000),
    ],
)
def test_what_hides_its_model_is_refused(
    server: FakeServer, producer: UsageProducer, path: str, content: bytes
) -> None:
    for user in ("ann", "bob"):
        with httpx2.Client() as plain, calling(user_id=user):
            http = metered(plain, producer=producer, guard=ruled(), org="acme")
            answer = http.post(server.url + path, content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["refused"]) == (403, "model_not_allowed")
    assert server.asked == []
    assert [event.status for event in producer.events] == ["BLOCKED", "BLOCKED"]


def test_a_request_that_its_caller_signed_is_refused_not_broken(server: FakeServer, producer: UsageProducer) -> None:
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=x"}
    with httpx2.Client() as plain, calling(user_id="cem"):
        http = metered(plain, producer=producer, guard=ruled(), org="acme", provider="aws")
        path = "/model/us.anthropic.claude-opus-4-1-20250805-v1%3A0/invoke"
        answer = http.post(server.url + path, json={"max_tokens": 9}, headers=signed)
        assert (answer.status_code, answer.json()["refused"]) == (403, "model_not_allowed")
        allowed = "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/invoke"
        assert http.post(server.url + allowed, json={"max_tokens": 9}, headers=signed).status_code == 200
    assert [path for path, _, _ in server.asked] == [allowed]


def test_a_native_client_asks_for_the_other_model(server: FakeServer, producer: UsageProducer) -> None:
    native = NativeClient(Target("openai", f"{server.url}/v1", "sk-x"), Meter(producer, ruled()))
    with calling(user_id="bob", org_id="acme"):
        assert native(model="gpt-4o", messages=ASK).model == MINI
    with calling(user_id="ann", org_id="acme"), pytest.raises(CallRefused, match="gpt-4o-mini"):
        native(model="gpt-4o", messages=ASK)


# ---------------------------------------------------------------- the proxy


@pytest.fixture(scope="module")
def running(server: FakeServer) -> Iterator[Proxied]:
    with proxied(server) as proxy:
        assert proxy.guard.apply("prices", "book", real_book()[2])
        for rule in RULES:
            assert proxy.guard.apply("policies", rule.key, rule.model_dump_json().encode())
        yield proxy


@pytest.fixture
def proxy(running: Proxied) -> Proxied:
    running.events.clear()
    running.provider.asked.clear()
    return running


def post(proxy: Proxied, user: str, path: str, document: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {TRUSTED if user else OURS}", **({"x-tollmeter-user": user} if user else {})}
    return httpx2.post(f"{proxy.url}/proxy/{path}", json=document, headers=headers, timeout=30)


def test_the_proxy_refuses_in_the_guards_words(proxy: Proxied) -> None:
    answer = post(proxy, "ann", "openai/v1/chat/completions", {"model": "gpt-4o", "messages": ASK})
    assert (answer.status_code, answer.json()["refused"], answer.json()["allowed"]) == (
        403,
        "model_not_allowed",
        [MINI],
    )
    assert answer.headers["x-tollmeter-refused"] == "model_not_allowed"
    assert proxy.provider.asked == []
    (event,) = proxy.recorded(1)
    assert (event.status, event.model_sent, event.user_id) == ("BLOCKED", "gpt-4o", "ann")
    assert answer.headers["x-tollmeter-event-id"] == event.event_id
    assert post(proxy, "", "openai/v1/chat/completions", {"model": "gpt-4o", "messages": ASK}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_the_proxy_sends_the_other_model_and_says_so(proxy: Proxied, stream: bool) -> None:
    answer = post(proxy, "bob", "openai/v1/chat/completions", {"model": "gpt-4o", "messages": ASK, "stream": stream})
    assert answer.status_code == 200
    assert (answer.headers["x-tollmeter-model-asked"], answer.headers["x-tollmeter-model-sent"]) == ("gpt-4o", MINI)
    assert [asked["model"] for _, _, asked in proxy.provider.asked] == [MINI]
    (event,) = proxy.recorded(1)
    assert (event.model_sent, event.model_used, event.fallback_from, event.status) == (MINI, MINI, "gpt-4o", "OK")


def test_the_proxy_writes_a_path_anew(proxy: Proxied) -> None:
    answer = post(proxy, "dan", "gemini/v1beta/models/gemini-2.5-pro:generateContent?alt=json", {"contents": []})
    assert answer.status_code == 200
    assert [path for path, _, _ in proxy.provider.asked] == ["/v1beta/models/gemini-2.5-flash:generateContent?alt=json"]
    (event,) = proxy.recorded(1)
    assert (event.model_sent, event.fallback_from) == ("gemini-2.5-flash", "gemini-2.5-pro")
