"""Spans and log records as each convention writes them, with the event worked out by hand; JSON and protobuf alike."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.otlp_bodies import AT_NS, CURRENT, TRACE, attributes, body_of, events_of, logs, read, record, span, traces
from tollmeter.producers.telemetry.names import CALLS, MEANINGS, SLOTS, WRAPPERS, provider_named
from tollmeter.producers.telemetry.reading import UnreadableError
from tollmeter.server.otlp import Encoding, read_logs, read_traces

ENCODINGS: list[Encoding] = ["json", "protobuf"]
encodings = pytest.mark.parametrize("encoding", ENCODINGS)

DIALECTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GenAI of today": (
        CURRENT,
        {
            "provider": "openai",
            "model_sent": "gpt-4o",
            "model_used": "gpt-4o-2024-08-06",
            "provider_request_id": "chatcmpl-1",
            "input_tokens": 1_000,
            "output_tokens": 200,
            "cache_read_tokens": 400,
            "reasoning_tokens": 50,
            "session_id": "c-1",
            "agent": "helper",
            "stream": True,
            "ttft_ms": 250,
            "latency_ms": 1_000,
            "api_host": "api.openai.com",
            "service_tier": "priority",
            "usage_source": "PROVIDER",
        },
    ),
    "GenAI of 2024": (
        {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.system": "az.ai.openai",
            "gen_ai.request.model": "gpt-35-turbo",
            "gen_ai.usage.prompt_tokens": 30,
            "gen_ai.usage.completion_tokens": 4,
            "gen_ai.openai.response.service_tier": "flex",
            "enduser.id": "ann",
        },
        {"provider": "azure", "input_tokens": 30, "output_tokens": 4, "service_tier": "flex", "user_id": "ann"},
    ),
    "Bedrock by its region": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": "anthropic.claude-3-haiku-20240307-v1:0",
            "gen_ai.usage.input_tokens": 8,
            "gen_ai.usage.output_tokens": 2,
            "gen_ai.usage.cache_write.input_tokens": 5,
            "server.address": "bedrock-runtime.eu-central-1.amazonaws.com",
        },
        {"provider": "aws", "region": "eu-central-1", "cache_write_tokens": 5, "input_tokens": 8},
    ),
    "OpenInference": (
        {
            "openinference.span.kind": "LLM",
            "llm.provider": "google",
            "llm.system": "vertexai",
            "llm.model_name": "gemini-2.5-flash",
            "llm.token_count.prompt": 500,
            "llm.token_count.completion": 60,
            "llm.token_count.prompt_details.cache_read": 100,
            "llm.token_count.completion_details.reasoning": 20,
            "llm.token_count.prompt_details.audio": 7,
            "llm.cost.total": 0.00125,
            "session.id": "s",
            "user.id": "bob",
        },
        {
            "provider": "google",
            "model_sent": "gemini-2.5-flash",
            "input_tokens": 500,
            "cache_read_tokens": 100,
            "reasoning_tokens": 20,
            "extra_units": {"input_audio_tokens": 7.0},
            "reported_cost_nano": 1_250_000,
            "user_id": "bob",
        },
    ),
    "OpenInference, an embedding": (
        {
            "openinference.span.kind": "EMBEDDING",
            "llm.system": "openai",
            "embedding.model_name": "text-embedding-3-small",
            "llm.token_count.prompt": 12,
        },
        {"operation": "embeddings", "model_sent": "text-embedding-3-small", "input_tokens": 12, "output_tokens": 0},
    ),
    "Traceloop": (
        {
            "llm.request.type": "chat",
            "gen_ai.system": "Anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.response.model": "claude-sonnet-4-5-20250929",
            "gen_ai.usage.prompt_tokens": 2_600,
            "gen_ai.usage.completion_tokens": 70,
            "gen_ai.usage.cache_read_input_tokens": 2_000,
            "gen_ai.usage.cache_creation_input_tokens": 500,
            "traceloop.association.properties.user_id": "eve",
            "traceloop.association.properties.session_id": "t-1",
        },
        {
            "provider": "anthropic",
            "input_tokens": 2_600,
            "cache_read_tokens": 2_000,
            "cache_write_tokens": 500,
            "user_id": "eve",
            "session_id": "t-1",
        },
    ),
    "AI SDK 5": (
        {
            "ai.operationId": "ai.streamText.doStream",
            "ai.model.id": "gpt-4o-mini",
            "ai.model.provider": "openai.responses",
            "ai.usage.inputTokens": 90,
            "ai.usage.outputTokens": 9,
            "ai.usage.cachedInputTokens": 64,
            "ai.response.id": "resp_1",
            "ai.response.model": "gpt-4o-mini-2024-07-18",
            "ai.response.msToFirstChunk": 120.4,
            "ai.telemetry.functionId": "summarise",
        },
        {
            "provider": "openai",
            "model_sent": "gpt-4o-mini",
            "input_tokens": 90,
            "cache_read_tokens": 64,
            "provider_request_id": "resp_1",
            "ttft_ms": 120,
            "feature": "summarise",
        },
    ),
    "AI SDK 4, an embedding": (
        {"ai.operationId": "ai.embed.doEmbed", "ai.model.id": "text-embedding-3-small", "ai.usage.tokens": 3},
        {"operation": "embeddings", "input_tokens": 3},
    ),
    "pydantic-ai": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "google-gla",
            "gen_ai.request.model": "gemini-2.5-pro",
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 80,
            "gen_ai.usage.details.reasoning_tokens": 60,
            "operation.cost": 0.0008125,
        },
        {"reasoning_tokens": 60, "output_tokens": 80, "reported_cost_nano": 812_500, "provider": "google"},
    ),
    "parts beside their whole": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 70,
            "gen_ai.usage.cache_read.input_tokens": 2_000,
            "gen_ai.usage.cache_creation.input_tokens": 500,
        },
        {
            "input_tokens": 2_600,
            "cache_read_tokens": 2_000,
            "tags": {"usage_suspect": "parts exceed their whole: taken as beside it"},
        },
    ),
    "what is no count": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": -5,
            "gen_ai.usage.output_tokens": 7,
        },
        {"usage_source": "NONE", "output_tokens": 0, "tags": {"usage_problem": "input_tokens: negative"}},
    ),
    "no usage at all": (
        {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "error.type": "RateLimitError"},
        {"usage_source": "NONE", "status": "ERROR", "error_type": "RateLimitError", "input_tokens": 0},
    ),
    "our own words": (
        CURRENT | {"tollmeter.user_id": "zoe", "tollmeter.feature": "search", "tollmeter.tag.team": "blue"},
        {"user_id": "zoe", "feature": "search", "tags": {"team": "blue"}},
    ),
    "paid by a subscription": (CURRENT | {"tollmeter.subscription": "max"}, {"service_tier": "subscription+priority"}),
    "a plan of the application's own customers": (
        CURRENT | {"subscription.type": "gold"},
        {"service_tier": "priority"},
    ),
    "explicitly paid by the call": (CURRENT | {"tollmeter.subscription": "none"}, {"service_tier": "priority"}),
}
WRAPPED: dict[str, dict[str, Any]] = {
    "an agent": {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 5},
    "a tool": {"gen_ai.operation.name": "execute_tool"},
    "a chain": {"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 9},
    "a workflow": {"traceloop.span.kind": "workflow", "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o"},
    "the AI SDK's outer span": {"ai.operationId": "ai.generateText", "ai.usage.promptTokens": 9, "ai.model.id": "m"},
}


@encodings
@pytest.mark.parametrize("name", DIALECTS)
def test_a_call(name: str, encoding: Encoding) -> None:
    said, right = DIALECTS[name]
    reading = read(traces([span(attributes=said)]), encoding)
    assert (reading.refused, reading.ignored) == ([], {})
    (event,) = events_of(reading)
    assert {field: getattr(event, field) for field in right} == right
    assert (event.trace_id, event.span_id) == (TRACE, f"{1:016x}")
    assert "secret question" not in event.model_dump_json()


@encodings
@pytest.mark.parametrize("name", WRAPPED)
def test_what_contains_calls_is_none(name: str, encoding: Encoding) -> None:
    reading = read(traces([span(attributes=WRAPPED[name]), span(2, 1, attributes=CURRENT)]), encoding)
    assert reading.ignored == {"wrapper": 1}
    assert len(reading.calls) == 1


def test_what_a_gateways_own_cache_answered_is_no_call() -> None:
    hits = enumerate((True, "True", "False"), 1)
    reading = read(traces([span(number, attributes=CURRENT | {"litellm.cache_hit": hit}) for number, hit in hits]))
    assert (len(reading.calls), reading.ignored) == (1, {"cache_hit": 2})


@encodings
def test_a_call_that_framework_and_sdk_tell_is_one(encoding: Encoding) -> None:
    outer = CURRENT | {"gen_ai.agent.name": "framework"}
    spans = [span(3, 2, attributes=CURRENT), span(2, 1, attributes=outer), span(1, attributes=outer)]
    other = span(5, attributes=CURRENT | {"gen_ai.response.id": "chatcmpl-2"})
    inner = span(6, 5, attributes=CURRENT | {"gen_ai.response.id": "chatcmpl-3"})
    reading = read(traces([*spans, other, inner]), encoding)
    assert [call.fields["span_id"][-1] for call in reading.calls] == ["3", "5", "6"]
    assert reading.ignored == {"wrapper": 2}


def test_ids_are_those_of_the_span() -> None:
    first, again = (events_of(read(traces([span(attributes=CURRENT)]), encoding)) for encoding in ENCODINGS)
    assert first == again
    (other,) = events_of(read(traces([span(2, attributes=CURRENT)])))
    assert first[0].event_id == "051deb5e-e3c2-5876-9380-ec2bfa129e80"
    assert other.event_id != first[0].event_id
    assert round(first[0].occurred_at.timestamp() * 1e6) == AT_NS // 1_000


@encodings
def test_one_bad_span_leaves_the_others(encoding: Encoding) -> None:
    calls = [
        span(1, attributes=CURRENT),
        span(2, attributes={"gen_ai.operation.name": "chat"}),
        span(3, attributes=CURRENT, startTimeUnixNano="0"),
        span(4, attributes={"http.method": "GET"}),
        span(5, attributes=CURRENT | {"gen_ai.operation.name": "dream"}),
    ]
    calls.append(span(6, attributes=CURRENT) | {"traceId": ""})
    reading = read(traces(calls), encoding)
    assert len(reading.calls) == 1
    assert [(one.place[-8:], one.detail) for one in reading.refused] == [
        ("spans[1]", "gen_ai.request.model: missing"),
        ("spans[2]", "startTimeUnixNano: missing"),
        ("spans[5]", "traceId: not a valid id in hex"),
    ]
    assert (reading.ignored, reading.unknown) == ({"no_call": 1, "unknown_operation": 1}, {"dream": 1})


def test_a_damaged_span_leaves_the_others() -> None:
    document = traces([span(1, attributes=CURRENT), span(2, attributes=CURRENT)])
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"][0]["value"] = {"stringValue": 7}
    reading = read(document)
    assert len(reading.calls) == 1
    assert "Expected `str | null`, got `int`" in reading.refused[0].detail


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"resourceSpans": 7}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_request_is_refused_whole(body: bytes) -> None:
    for reader in (read_traces, read_logs):
        with pytest.raises(UnreadableError, match="not OTLP in JSON"):
            reader(body if reader is read_traces else body.replace(b"Spans", b"Logs"), "json")
    with pytest.raises(UnreadableError, match="not OTLP in protobuf"):
        read_traces(b"\x0a\xff\xff\xff", "protobuf")


CLAUDE = {
    "event.name": "api_request",
    "event.sequence": 7,
    "model": "claude-sonnet-4-5-20250929",
    "input_tokens": 100,
    "output_tokens": 70,
    "cache_read_tokens": 2_000,
    "cache_creation_tokens": 500,
    "cost_usd": 0.0035,
    "duration_ms": 1_234,
    "session.id": "s-1",
    "user.email": "dev@example.org",
    "prompt": "a secret question",
}
CODEX = {
    "event.name": "codex.sse_event",
    "event.kind": "response.completed",
    "event.timestamp": "2026-11-29T10:00:00.000Z",
    "conversation.id": "c-1",
    "model": "gpt-5-codex",
    "auth_mode": "ApiKey",
    "input_token_count": 900,
    "output_token_count": 90,
    "cached_token_count": 600,
    "reasoning_token_count": 40,
    "user.email": "dev@example.org",
}
GEMINI = {
    "event.name": "gemini_cli.api_response",
    "model": "gemini-2.5-pro",
    "auth_type": "gemini-api-key",
    "input_token_count": 1_000,
    "output_token_count": 10,
    "cached_content_token_count": 300,
    "thoughts_token_count": 25,
    "tool_token_count": 5,
    "total_token_count": 1_040,
    "duration_ms": 800,
    "session.id": "g-1",
    "prompt_id": "p",
}
AGENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "claude-code": (
        CLAUDE,
        {
            "provider": "anthropic",
            "input_tokens": 2_600,
            "cache_read_tokens": 2_000,
            "cache_write_tokens": 500,
            "output_tokens": 70,
            "reported_cost_nano": 3_500_000,
            "latency_ms": 1_234,
            "session_id": "s-1",
            "user_id": "dev@example.org",
            "service_tier": "",
        },
    ),
    "claude-code by subscription": (
        CLAUDE | {"subscription.type": "max", "speed": "fast"},
        {"service_tier": "subscription+fast", "reported_cost_nano": None, "est_cost_nano": 3_500_000},
    ),
    "codex": (
        CODEX,
        {
            "provider": "openai",
            "input_tokens": 900,
            "cache_read_tokens": 600,
            "output_tokens": 90,
            "reasoning_tokens": 40,
            "session_id": "c-1",
            "service_tier": "",
            "reported_cost_nano": None,
        },
    ),
    "codex by subscription": (CODEX | {"auth_mode": "Chatgpt"}, {"service_tier": "subscription"}),
    "codex over a websocket": (CODEX | {"event.name": "codex.websocket_event"}, {"input_tokens": 900}),
    "gemini-cli": (
        GEMINI,
        {
            "provider": "google",
            "input_tokens": 1_005,
            "cache_read_tokens": 300,
            "output_tokens": 35,
            "reasoning_tokens": 25,
            "latency_ms": 800,
            "service_tier": "",
        },
    ),
    "gemini-cli by subscription": (GEMINI | {"auth_type": "oauth-personal"}, {"service_tier": "subscription"}),
}
REPOSITORY = {"service.name": "claude-code", "repository": "shop", "team": "blue"}


@encodings
@pytest.mark.parametrize("name", AGENTS)
def test_a_coding_agents_call(name: str, encoding: Encoding) -> None:
    said, right = AGENTS[name]
    body = {"body": {"stringValue": f"claude_code.{said['event.name']}"}} if name.startswith("claude") else {}
    reading = read(logs([record(said, **body)], REPOSITORY), encoding)
    assert (reading.refused, reading.ignored) == ([], {})
    (event,) = events_of(reading)
    assert {field: getattr(event, field) for field in right} == right
    assert (event.agent, event.tags["repository"], event.group_id) == (name.partition(" ")[0], "shop", "blue")
    assert event.usage_source == "PROVIDER"
    assert "secret question" not in event.model_dump_json()


@encodings
def test_records_that_are_no_calls(encoding: Encoding) -> None:
    records = [
        record({"event.name": "user_prompt", "prompt": "hello"}, body={"stringValue": "claude_code.user_prompt"}),
        record(CODEX | {"event.kind": "response.output_text.delta"}),
        record({"event.name": "api_request", "path": "/login"}),  # of some web server
        record({"event.name": "gen_ai.client.inference.operation.details", "gen_ai.usage.input_tokens": 5}),
    ]
    reading = read(logs(records, {"service.name": "shop"}), encoding)
    assert (reading.calls, reading.refused, reading.ignored) == ([], [], {"no_call": 4})


def test_a_failed_call_of_an_agent_used_nothing_known() -> None:
    failed = {"event.name": "api_error", "model": "claude-sonnet-4-5", "status_code": "529", "error": "overloaded"}
    (event,) = events_of(read(logs([record(failed)], {"service.name": "claude-code"})))
    assert (event.status, event.http_status, event.usage_source) == ("ERROR", 529, "NONE")


def test_a_record_sent_again_is_the_same_event_and_the_next_is_another() -> None:
    first, again, later = (
        events_of(read(logs([record(CLAUDE, timeUnixNano=str(at))], {"service.name": "claude-code"})))[0]
        for at in (AT_NS, AT_NS, AT_NS + 1_000)
    )
    assert first == again
    assert later.event_id != first.event_id


def test_the_table_says_each_thing_once() -> None:
    assert len(SLOTS) == sum(len(names) for names in MEANINGS.values())
    assert not CALLS.keys() & WRAPPERS
    assert [provider_named(name) for name in ("GCP.Gemini", "openai.chat", "x_ai", "lab")] == [
        *("google", "openai", "x-ai", "lab")
    ]


def test_only_so_many_words_of_ours_are_read() -> None:
    many = {f"tollmeter.tag.n{number}": "x" for number in range(10_000)}
    (call,) = read(traces([span(attributes=CURRENT | many)])).calls
    assert len(call.fields["tags"]) < 100
    assert len(body_of(traces([span(attributes=many)]))) > 100_000
    assert attributes({"a": 1}) == [{"key": "a", "value": {"intValue": "1"}}]


FOLDER = Path(__file__).parents[1] / "golden" / "otlp"
CHAT = ("openai", "chat", "gpt-4o", 1_000, 300, 400)
EMBEDDING = ("openai", "embeddings", "text-embedding-3-small", 20, 0, 0)
FAILED = ("openai", "chat", "quota", 0, 0, 0)
NO_CACHE = ("openai", "chat", "gpt-4o", 1_000, 300, 0)
SENT = {
    "openai-v2.pb.b64": ([NO_CACHE, NO_CACHE, FAILED, EMBEDDING], 0),  # it leaves out what came from the cache
    "openinference.pb.b64": ([CHAT, CHAT, EMBEDDING, ("openai", "chat", "gpt-5", 900, 80, 100)], 1),
    "openllmetry.pb.b64": ([CHAT, CHAT, FAILED, EMBEDDING, ("openai", "chat", "gpt-4o", 900, 80, 100)], 0),
    "openllmetry-anthropic.pb.b64": ([("anthropic", "chat", "claude-opus-4-1", 2_600, 70, 2_000)], 1),
    "ai-sdk-7.json": ([CHAT, CHAT, EMBEDDING], 5),
    "ai-sdk-7-legacy.json": ([CHAT, CHAT, EMBEDDING], 3),
}
"""What real senders sent of calls to tests/fake_provider.py on 2026-11-29, and how many spans of theirs are no call.

opentelemetry-instrumentation-openai-v2 2.4b0 with opentelemetry-util-genai 0.4b0,
openinference-instrumentation-openai 0.1.66, opentelemetry-instrumentation-openai and -anthropic 0.62.4 (OpenLLMetry)
with openai 2.54 and anthropic 2.14, whose SDK tells the call by itself, too; ai 7.0.173 with @ai-sdk/otel 1.0.173.
"""


@pytest.mark.parametrize("name", SENT)
def test_what_real_senders_sent(name: str) -> None:
    calls, ignored = SENT[name]
    content = (FOLDER / name).read_bytes()
    reading = (
        read_traces(content, "json") if name.endswith("json") else read_traces(base64.b64decode(content), "protobuf")
    )
    assert [
        (one.provider, one.operation, one.model_sent, one.input_tokens, one.output_tokens, one.cache_read_tokens)
        for one in events_of(reading)
    ] == calls
    assert (sum(reading.ignored.values()), reading.refused, reading.unknown) == (ignored, [], {})
    assert all("secret question" not in one.model_dump_json() for one in events_of(reading))


def test_an_hours_cache_is_told_apart() -> None:
    (event,) = events_of(
        read_traces(base64.b64decode((FOLDER / "openllmetry-anthropic.pb.b64").read_bytes()), "protobuf")
    )
    assert (event.cache_write_tokens, event.cache_write_1h_tokens, event.service_tier) == (500, 200, "standard")


def test_a_span_that_stands_twice_in_a_request_counts_once() -> None:
    reading = read(traces([span(1, attributes=CURRENT), span(1, attributes=CURRENT)]))
    assert (len(reading.calls), reading.ignored) == (1, {"repeated": 1})


def test_two_instrumentations_tell_one_call() -> None:
    answer = {"gen_ai.response.id": "chatcmpl-BxQ7Wz1f3T9kLm2NpR5sVu8"}
    inside = span(1, attributes=CURRENT | answer)
    around = span(2, attributes=CURRENT | answer | {"gen_ai.agent.name": "a"}, endTimeUnixNano=str(AT_NS + 2 * 10**9))
    around["traceId"] = TRACE[::-1]
    document = traces([inside])
    other = traces([around])["resourceSpans"][0]["scopeSpans"][0] | {"scope": {"name": "another"}}
    document["resourceSpans"][0]["scopeSpans"].append(other)
    reading = read(document)
    assert ([call.fields["span_id"] for call in reading.calls], reading.ignored) == ([f"{1:016x}"], {"wrapper": 1})
    apart = [read(traces([one])).calls[0].fields["event_id"] for one in (inside, around)]
    assert apart[0] == apart[1], "sent by two exporters the answer's own id makes them one event"


def test_servers_whose_answers_all_have_one_id_lose_no_call() -> None:
    said = CURRENT | {"gen_ai.response.id": "chatcmpl-123"}
    reading = read(traces([span(1, attributes=said), span(2, attributes=said)]))
    assert len({call.fields["event_id"] for call in reading.calls}) == 2


def test_of_two_spans_around_each_other_the_one_with_counts_stays() -> None:
    silent = {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e"}
    told = silent | {"gen_ai.usage.input_tokens": 20}
    for outer, inner, kept in ((silent, told, 2), (told, silent, 1)):
        reading = read(traces([span(2, 1, attributes=inner), span(1, attributes=outer)]))
        assert [int(call.fields["span_id"]) for call in reading.calls] == [kept]


def test_the_benchmark_measures_what_it_names() -> None:
    from benchmarks.otlp import figures

    found = figures(runs=1)
    assert found.keys() == {
        *("json_us_per_span", "protobuf_us_per_span", "json_to_avro_us_per_span", "json_format_us_per_span")
    }
    assert all(value > 0 for value in found.values())
