"""The proxy between a caller and a provider that misbehave: each call is one event, and nothing slips through."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import openai
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests import guard_rows as rows
from tests.fake_provider import FakeServer, serving
from tests.patience import eventually
from tests.proxied import OTHERS, OURS, READER, REAL, TRUSTED, Keys, Proxied, entries, proxied
from tollmeter.producers.fallback.config import FallbackConfig
from tollmeter.schemas import topics
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.server.proxy.app import Parts, Proxy
from tollmeter.server.proxy.config import ProxyConfig, load
from tollmeter.server.proxy.upstream import Asked, Provider

ASK: Any = [{"role": "user", "content": "x" * 400}]
CHAT = "/proxy/openai/v1/chat/completions"
HEAD = f"host: x\r\nauthorization: Bearer {OURS}\r\nconnection: close\r\n"


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
    running.provider.go_on.clear()
    return running


def body(model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": ASK, **more}


def post(proxy: Proxied, document: Any = None, path: str = CHAT, key: str = OURS, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("authorization", f"Bearer {key}" if key else "Bearer")
    content = json.dumps(body() if document is None else document).encode()
    named.setdefault("content-type", "application/json")
    return httpx2.post(proxy.url + path, content=content, headers=named, timeout=30)


# ------------------------------------------------------------------------------------------------------- who may at all


@pytest.mark.parametrize(
    ("key", "status", "code"), [("", 401, "no_key"), ("tm-nobodys", 401, "bad_key"), (READER, 403, "wrong_role")]
)
def test_a_key_of_ours_is_always_required(proxy: Proxied, key: str, status: int, code: str) -> None:
    answer = post(proxy, key=key)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (proxy.provider.asked, proxy.events) == ([], [])
    assert "sk-" not in answer.text


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/proxy/nobody/v1/chat/completions", 404, "no_upstream"),
        ("/proxy/openai/v1/batches", 403, "operation_not_allowed"),
        ("/proxy/openai/v1/../admin", 400, "bad_path"),
        ("/proxy/openai/v1/%2e%2e/admin", 400, "bad_path"),
        ("/proxy/openai/v1%2fchat/completions", 400, "bad_path"),
    ],
)
def test_what_goes_nowhere_is_refused_before_the_provider(proxy: Proxied, path: str, status: int, code: str) -> None:
    answer = spoken(proxy, f"POST {path} HTTP/1.1\r\n{HEAD}content-length: 0\r\n\r\n")  # a client would mend the path
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert f'"code":"{code}"'.encode() in answer
    assert proxy.provider.asked == []


def test_a_body_that_the_meter_could_not_read_does_not_pass(proxy: Proxied) -> None:
    assert post(proxy, content_type="text/plain").json()["code"] == "bad_content_type"
    signed = post(proxy, authorization="AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=y")
    assert (signed.status_code, signed.json()["code"]) == (400, "signed_request")
    assert proxy.provider.asked == []


def test_a_websocket_is_refused_with_the_reason(proxy: Proxied) -> None:
    asked = f"GET /proxy/openai/v1/realtime?model=gpt-realtime HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {OURS}\r\n"
    asked += "connection: Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\n"
    answer = spoken(proxy, asked + "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert b'"code":"no_websockets"' in answer
    assert b"send what the session used to /ingest" in answer
    assert (proxy.provider.asked, proxy.events) == ([], [])


def spoken(proxy: Proxied, text: str) -> bytes:
    """Send a text, return what comes back until the server closes or falls silent."""
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        connection.sendall(text.encode())
        found = b""
        try:
            while part := connection.recv(65_536):
                found += part
        except TimeoutError:
            pass
        return found


# --------------------------------------------------------------------------------------------------------- refusals


def test_a_blocked_caller_is_refused_with_one_event(proxy: Proxied) -> None:
    block = Block(
        org_id="acme", scope="user", name="mallory", reason="leaked", until=datetime.now(UTC) + timedelta(hours=1)
    )
    proxy.guard.apply("policies", block.key, block.model_dump_json().encode())
    answer = post(proxy, key=TRUSTED, x_tollmeter_user="mallory")
    assert (answer.status_code, answer.json()["refused"], answer.json()["reason"]) == (403, "blocked", "leaked")
    assert answer.headers["x-tollmeter-refused"] == "blocked"
    (event,) = proxy.recorded(1)
    assert (event.status, event.user_id, event.org_id, event.http_status) == ("BLOCKED", "mallory", "acme", 403)
    assert answer.headers["x-tollmeter-event-id"] == event.event_id
    assert post(proxy, key=TRUSTED, x_tollmeter_user="ann").status_code == 200
    proxy.guard.apply("policies", block.key, None)


def test_an_address_beyond_its_rate_is_refused_with_one_event(proxy: Proxied) -> None:
    limit = RateLimit(org_id="other", scope="client_ip", requests=1, window_s=60)
    proxy.guard.apply("policies", limit.key, limit.model_dump_json().encode())
    assert [post(proxy, key=OTHERS).status_code for _ in range(2)] == [200, 429]
    assert post(proxy).status_code == 200, "another organisation has no such limit"
    served, refused, _ = proxy.recorded(3)
    assert (served.status, refused.status, refused.error_type, refused.client_ip) == (
        "OK",
        "BLOCKED",
        "rate_limited",
        "127.0.0.1",
    )
    proxy.guard.apply("policies", limit.key, None)


def test_a_call_above_the_cap_is_refused_as_its_callers_know_it(proxy: Proxied) -> None:
    rows.feed(proxy.guard, rows.book(gpt_a=(2_500_000, 10_000_000)))
    answer = post(proxy, body("gpt-a", max_tokens=1_000_000))
    assert (answer.status_code, answer.json()["error"]) == (402, "cost_cap")
    assert answer.json()["ok"] is False
    client = openai.OpenAI(api_key=OURS, base_url=f"{proxy.url}/proxy/openai/v1", max_retries=3)
    with pytest.raises(openai.APIStatusError) as raised:  # the SDK does not ask again
        client.chat.completions.create(model="gpt-a", messages=ASK, max_tokens=1_000_000)
    assert raised.value.status_code == 402
    assert [event.status for event in proxy.recorded(2)] == ["BLOCKED"] * 2
    assert proxy.provider.asked == []


def test_two_organisations_are_told_apart(proxy: Proxied) -> None:
    post(proxy, key=OURS)
    post(proxy, key=OTHERS)
    assert [event.org_id for event in proxy.recorded(2)] == ["acme", "other"]
    assert [event.tags["server_key"] for event in proxy.events] == ["k-acme", "k-other"]
    stolen = post(proxy, key=OTHERS, x_tollmeter_org="acme")
    assert (stolen.status_code, stolen.json()["code"]) == (403, "identity_not_allowed")


# -------------------------------------------------------------------------------------------------------- smuggling


def test_headers_of_the_connection_and_of_the_caller_stay_here(proxy: Proxied) -> None:
    smuggled = {
        "connection": "x-drop-me, authorization",
        "x-drop-me": "1",
        "te": "trailers",
        "cookie": "session=ours",
        "x-forwarded-for": "6.6.6.6",
        "openai-organization": "org-stolen",
        "x-tollmeter-operation": "summarise",
        "accept-encoding": "br",
    }
    answer = httpx2.post(proxy.url + CHAT, json=body(), headers={"authorization": f"Bearer {OURS}", **smuggled})
    assert answer.status_code == 200
    ((_, sent, _),) = proxy.provider.asked
    assert sent["authorization"] == f"Bearer {REAL['OPENAI_API_KEY']}"
    assert sent["accept-encoding"] == "identity"
    assert not {"x-drop-me", "te", "cookie", "x-forwarded-for", "openai-organization", "x-tollmeter-operation"} & set(
        sent
    )
    (event,) = proxy.recorded(1)
    assert (event.feature, event.client_ip) == ("summarise", "127.0.0.1")


@pytest.mark.parametrize(
    "head",
    [
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "content-length: 2\r\nx: a\r\n b\r\n\r\n{}",
        "content-length : 2\r\n\r\n{}",
        "x-api-key: other\r\ncontent-length: 2\r\n\r\n{}",
    ],
    ids=["both lengths", "two lengths", "folded line", "blank before the colon", "two keys"],
)
def test_a_request_that_can_be_read_in_two_ways_reaches_no_provider(proxy: Proxied, head: str) -> None:
    answer = spoken(proxy, f"POST {CHAT} HTTP/1.1\r\n{HEAD}content-type: application/json\r\n{head}")
    assert answer.startswith(b"HTTP/1.1 400"), answer[:200]
    assert proxy.provider.asked == []


def test_a_redirect_is_not_followed_nor_handed_on(proxy: Proxied) -> None:
    answer = post(proxy, body("moved"))
    assert (answer.status_code, answer.json()["code"]) == (502, "redirected")
    assert "location" not in answer.headers
    assert proxy.events == []


# ------------------------------------------------------------------------------------------- what is cut short


def test_a_caller_who_hangs_up_in_the_middle_is_accounted_for(proxy: Proxied) -> None:
    request = {"authorization": f"Bearer {OURS}"}
    with (
        httpx2.Client() as client,
        client.stream("POST", proxy.url + CHAT, json=body("stuck", stream=True), headers=request) as answer,
    ):
        first = next(answer.iter_raw())
        assert b"data:" in first, "the beginning is there before the end"
    (event,) = proxy.recorded(1)
    assert (event.status, event.usage_source, event.input_tokens, event.stream) == ("CANCELLED", "ESTIMATED", 100, True)


def test_a_caller_who_hangs_up_before_the_answer_is_accounted_for(proxy: Proxied) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(proxy.url + CHAT, json=body("late"), headers={"authorization": f"Bearer {OURS}"}, timeout=0.5)
    (event,) = proxy.recorded(1)
    assert (event.status, event.usage_source, event.input_tokens) == ("CANCELLED", "ESTIMATED", 100)


def test_a_provider_that_dies_in_the_middle_is_accounted_for_and_no_whole_answer_is_told(proxy: Proxied) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        post(proxy, body("cut", stream=True))
    (event,) = proxy.recorded(1)
    assert (event.status, event.error_type, event.usage_source) == ("ERROR", "RemoteProtocolError", "ESTIMATED")


def test_a_provider_that_is_away_costs_nothing() -> None:
    with serving() as nobody:
        pass
    with proxied(nobody) as proxy:
        answer = post(proxy)
        assert (answer.status_code, answer.json()["code"]) == (502, "upstream_failed")
        (event,) = proxy.recorded(1)
        assert (event.status, event.error_type, event.usage_source) == ("ERROR", "ConnectError", "NONE")


def test_silence_has_a_limit_and_a_stream_as_a_whole_has_none(server: FakeServer) -> None:
    server.go_on.clear()
    more = {"hasty": {"url": server.url, "auth": "none", "read_s": 0.3}}
    with proxied(server, more) as proxy:
        answer = post(proxy, body("late"), "/proxy/hasty/v1/chat/completions")
        assert (answer.status_code, answer.json()["code"]) == (504, "upstream_timeout")
        (event,) = proxy.recorded(1)
        assert (event.status, event.error_type, event.usage_source) == ("ERROR", "ReadTimeout", "ESTIMATED")


def test_an_upstream_without_its_key_says_what_it_needs(server: FakeServer) -> None:
    with proxied(server, environment={}) as proxy:
        answer = post(proxy)
        assert (answer.status_code, answer.json()["code"]) == (503, "upstream_not_configured")
        assert "OPENAI_API_KEY" in answer.json()["detail"]


def test_a_body_has_a_limit(server: FakeServer) -> None:
    more = {"small": {"url": server.url, "auth": "none", "max_body_bytes": 2_000}}
    with proxied(server, more) as proxy:
        path = "/proxy/small/v1/chat/completions"
        assert post(proxy, path=path).status_code == 200
        answer = post(proxy, body(extra="y" * 2_000), path)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


# ------------------------------------------------------------------------------------------------------- fallback


def test_the_next_provider_of_the_operation_serves(server: FakeServer) -> None:
    chain = FallbackConfig.from_dict(
        {
            "clients": {"openai": {"model": "gpt-4o"}, "ollama": {"model": "llama3.2"}},
            "operations": {"summarise": ["openai", "ollama"]},
        }
    )
    with proxied(server, fallback=chain) as proxy:
        server.asked.clear()
        answer = post(proxy, body("quota"), x_tollmeter_operation="summarise")
        assert (answer.status_code, answer.json()["model"]) == (200, "llama3.2")
        failed, served = proxy.recorded(2)
        assert (failed.provider, failed.status, failed.fallback_from) == ("openai", "ERROR", "")
        assert (served.provider, served.status, served.fallback_from) == ("ollama", "OK", "quota")
        assert served.model_sent == "llama3.2"
        assert [asked["model"] for _, _, asked in server.asked] == ["quota", "llama3.2"]
        assert "authorization" not in server.asked[1][1], "no key of one provider reaches another"
        assert post(proxy, body("quota")).status_code == 429, "another operation has no fallback"
        assert post(proxy, body("absurd"), x_tollmeter_operation="summarise").json()["model"] == "absurd"


def test_with_nobody_left_the_last_answer_is_told(server: FakeServer) -> None:
    clients = {"openai": {"model": "gpt-4o"}, "ollama": {"model": "broken"}}
    chain = FallbackConfig.from_dict({"clients": clients, "operations": {"*": ["openai", "ollama"]}})
    with proxied(server, fallback=chain) as proxy:
        answer = post(proxy, body("quota"))
        assert (answer.status_code, answer.json()["error"]["message"]) == (500, "oops")
        assert [event.status for event in proxy.recorded(2)] == ["ERROR", "ERROR"]


# ------------------------------------------------------------------------------------------------------- bedrock


HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)


def signature(url: str, date: str, content: bytes) -> str:
    """Return what botocore signs a request with, given its time."""
    again = AWSRequest("POST", url, {"content-type": "application/json", "X-Amz-Date": date}, content)
    again.context["timestamp"] = date
    signer = SigV4Auth(Credentials("AKIAEXAMPLE", "secret"), "bedrock", "eu-west-1")
    return str(signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again))


@pytest.mark.usefixtures("credentials")
def test_bedrock_is_signed_anew_as_botocore_would() -> None:
    """The signature covers what is sent: botocore, given the same request and time, makes the same one."""
    with serving() as fake, proxied(fake) as proxy:
        entry = load().upstreams["bedrock"].model_copy(update={"url": fake.url})
        made = Provider("bedrock", entry, os.environ, proxy.producer, proxy.guard)
        asked = Asked("POST", "/model/anthropic.claude%3A0/converse", "", [("content-type", "application/json")], b"{}")
        request = made.request(asked)
        expected = signature(str(request.url), request.headers["x-amz-date"], b"{}")
        assert request.headers["authorization"].endswith(f"Signature={expected}")
        asyncio.run(made.close())


@pytest.mark.usefixtures("credentials")
def test_bedrock_is_signed_anew_for_the_model_that_a_call_is_downgraded_to() -> None:
    """What arrives is the other model's path, its signature of that path and body; the event names both models."""
    rule = ModelRule(org_id="acme", scope="org", allowed=(HAIKU,), downgrade_to=HAIKU)
    with serving() as fake:
        entry = load().upstreams["bedrock"].model_copy(update={"url": fake.url}).model_dump(exclude_unset=True)
        with proxied(fake, {"bedrock": entry}, {**REAL, **os.environ}) as proxy:
            rows.feed(proxy.guard, rows.real_book(), (topics.POLICIES, rule.key, rule.model_dump_json().encode()))
            asked = {"messages": [{"role": "user", "content": [{"text": "hé"}]}], "inferenceConfig": {"maxTokens": 9}}
            path = "/proxy/bedrock/model/anthropic.claude-3-opus-20240229-v1%3A0/converse"
            assert post(proxy, asked, path).status_code == 200
            ((arrived, headers, body_),) = fake.asked
            assert arrived == f"/model/{HAIKU.replace(':', '%3A')}/converse"
            assert body_ == asked
            content = json.dumps(asked, separators=(",", ":")).encode()
            expected = signature(fake.url + arrived, headers["x-amz-date"], content)
            assert headers["authorization"].endswith(f"Signature={expected}")
            (event,) = proxy.recorded(1)
            assert (event.model_sent, event.fallback_from) == (HAIKU, "anthropic.claude-3-opus-20240229-v1:0")


# ------------------------------------------------------------------------------------------------------- trailers


def test_a_stream_tells_its_cost_in_trailers_where_the_protocol_has_them(proxy: Proxied) -> None:
    """HTTP/1.1 of this server has none; HTTP/2 may stand in front of the application."""
    messages: list[Any] = []
    content = json.dumps(body(stream=True, stream_options={"include_usage": True})).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {OURS}".encode()), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "extensions": {"http.response.trailers": {}},
        "tollmeter.request_id": "r",
    }

    async def ask() -> None:
        coming: asyncio.Queue[Any] = asyncio.Queue()
        coming.put_nowait({"type": "http.request", "body": content, "more_body": False})

        async def send(message: Any) -> None:
            messages.append(message)

        upstreams = ProxyConfig(upstreams=entries(proxy.provider))
        application = Proxy(upstreams, Parts(Keys(), proxy.producer, proxy.guard, REAL))
        await application(scope, coming.get, send)
        await application.close()

    asyncio.run(ask())
    assert messages[0]["trailers"] is True
    assert messages[-1]["type"] == "http.response.trailers"
    told = {name.decode(): value.decode() for name, value in messages[-1]["headers"]}
    assert (told["x-tollmeter-input-tokens"], told["x-tollmeter-output-tokens"]) == ("1000", "300")
    eventually(lambda: len(proxy.events) == 1, 10)
