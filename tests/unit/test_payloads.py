"""One row per payload shape: what the provider says, and the inclusive counters worked out by hand."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from tollmeter.producers.extract.extract import extract
from tollmeter.producers.extract.families import read_usage
from tollmeter.producers.extract.served import provider_of
from tollmeter.producers.extract.usage import get, reported_cost, usd_to_nano
from tollmeter.schemas.event import UsageEvent


@dataclass
class Case:
    body: dict[str, Any]
    tokens: tuple[int, int, int, int, int, int]
    """input, cache_read, cache_write, cache_write_1h, output, reasoning"""
    provider: str = "openai"
    extra: dict[str, float] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    """What the caller says: provider, host ..."""


def chat(**usage: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "choices": [],
        "usage": usage,
    }


CASES = {
    "openai chat": Case(
        chat(
            prompt_tokens=1000,
            completion_tokens=300,
            total_tokens=1300,
            prompt_tokens_details={"cached_tokens": 400, "cache_write_tokens": 100, "audio_tokens": 50},
            completion_tokens_details={"reasoning_tokens": 120, "audio_tokens": 20, "rejected_prediction_tokens": 3},
        )
        | {"service_tier": "flex"},
        (1000, 400, 100, 0, 300, 120),
        # nobody says whether the cached input was the sound
        extra={"input_audio_tokens": 50, "output_audio_tokens": 20, "unexplained_tokens": 50},
        fields={"model_used": "gpt-4o-2024-08-06", "provider_request_id": "chatcmpl-1", "service_tier": "flex"},
    ),
    "openai embeddings": Case(
        {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "embedding": [0.1]}],
            "usage": {"prompt_tokens": 20, "total_tokens": 20},
        },
        (20, 0, 0, 0, 0, 0),
        fields={"operation": "embeddings"},
    ),
    "openai responses": Case(
        {
            "id": "resp_1",
            "object": "response",
            "model": "gpt-5",
            "service_tier": "priority",
            "output": [{"type": "web_search_call"}, {"type": "message"}, {"type": "web_search_call"}],
            "usage": {
                "input_tokens": 900,
                "output_tokens": 80,
                "total_tokens": 980,
                "input_tokens_details": {
                    "cached_tokens": 100,
                    "cache_write_tokens": 60,
                    "cache_write_tokens_details": {"ttl_30m_tokens": 20, "ttl_12h_tokens": 40},
                },
                "output_tokens_details": {"reasoning_tokens": 64},
            },
        },
        (900, 100, 60, 0, 80, 64),
        extra={"web_searches": 2, "cache_write_12h_tokens": 40},
        fields={"operation": "responses", "service_tier": "priority", "provider_request_id": "resp_1"},
    ),
    "openai images with tokens": Case(
        {
            "created": 1,
            "data": [{"b64_json": "x"}, {"b64_json": "y"}],
            "usage": {
                "input_tokens": 60,
                "output_tokens": 2000,
                "total_tokens": 2060,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 50},
                "output_tokens_details": {"image_tokens": 2000, "text_tokens": 0},
            },
        },
        (60, 0, 0, 0, 2000, 0),
        extra={"images": 2, "input_image_tokens": 50, "output_image_tokens": 2000},
        fields={"operation": "image", "model_sent": "gpt-image-1"},
        given={"model_sent": "gpt-image-1"},
    ),
    "openai images priced each": Case(
        {"created": 1, "data": [{"url": "https://x", "revised_prompt": "p"}]},
        (0, 0, 0, 0, 0, 0),
        extra={"images": 1, "images_unstated": 1},
        fields={"operation": "image", "usage_source": "PROVIDER"},
        given={"model_sent": "dall-e-3"},
    ),
    "openai transcription by tokens": Case(
        {
            "text": "hello",
            "usage": {
                "type": "tokens",
                "input_tokens": 14,
                "output_tokens": 45,
                "total_tokens": 59,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
            },
        },
        (14, 0, 0, 0, 45, 0),
        extra={"input_audio_tokens": 14},
        fields={"operation": "transcription"},
        given={"model_sent": "gpt-4o-transcribe"},
    ),
    "openai transcription by seconds": Case(
        {"text": "hello", "usage": {"type": "duration", "seconds": 9}},
        (0, 0, 0, 0, 0, 0),
        extra={"audio_seconds": 9},
        given={"model_sent": "whisper-1"},
    ),
    "openai realtime": Case(
        {
            "usage": {
                "input_tokens": 100,
                "output_tokens": 50,
                "input_token_details": {
                    "text_tokens": 20,
                    "audio_tokens": 80,
                    "cached_tokens": 64,
                    "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 64},
                },
                "output_token_details": {"text_tokens": 10, "audio_tokens": 40},
            }
        },
        (100, 64, 0, 0, 50, 0),
        extra={"input_audio_tokens": 80, "output_audio_tokens": 40, "cache_audio_read_tokens": 64},
        given={"model_sent": "gpt-realtime"},
    ),
    "anthropic": Case(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "usage": {
                "input_tokens": 100,
                "cache_creation_input_tokens": 500,
                "cache_read_input_tokens": 2000,
                "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200},
                "output_tokens": 70,
                "output_tokens_details": {"thinking_tokens": 30},
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
                "service_tier": "standard",
                "inference_geo": "us",
            },
        },
        (2600, 2000, 500, 200, 70, 30),
        provider="anthropic",
        extra={"web_searches": 2},
        fields={"service_tier": "default", "region": "us", "provider_request_id": "msg_1"},
    ),
    "anthropic without cache": Case(
        {"type": "message", "role": "assistant", "model": "claude", "usage": {"input_tokens": 9, "output_tokens": 4}},
        (9, 0, 0, 0, 4, 0),
        provider="anthropic",
    ),
    "anthropic batch, fast": Case(
        {
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "usage": {"input_tokens": 9, "output_tokens": 4, "service_tier": "batch"},
        },
        (9, 0, 0, 0, 4, 0),
        provider="anthropic",
        fields={"processing": "BATCH", "service_tier": ""},
    ),
    "gemini": Case(
        {
            "modelVersion": "gemini-2.5-flash",
            "responseId": "r1",
            "candidates": [],
            "usageMetadata": {
                "promptTokenCount": 1000,
                "candidatesTokenCount": 200,
                "thoughtsTokenCount": 300,
                "cachedContentTokenCount": 600,
                "toolUsePromptTokenCount": 40,
                "totalTokenCount": 1540,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 700},
                    {"modality": "AUDIO", "tokenCount": 300},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 100}],
                "trafficType": "ON_DEMAND_FLEX",
            },
        },
        (1040, 600, 0, 0, 500, 300),
        provider="google",
        extra={"input_tool_tokens": 40, "input_audio_tokens": 300, "cache_audio_read_tokens": 100},
        fields={"model_used": "gemini-2.5-flash", "provider_request_id": "r1", "service_tier": "flex"},
    ),
    "gemini on demand is no tier": Case(
        {"modelVersion": "g", "usageMetadata": {"promptTokenCount": 5, "trafficType": "ON_DEMAND"}},
        (5, 0, 0, 0, 0, 0),
        provider="google",
        fields={"service_tier": ""},
    ),
    "bedrock converse": Case(
        {
            "usage": {
                "inputTokens": 10,
                "outputTokens": 20,
                "cacheReadInputTokens": 30,
                "cacheWriteInputTokens": 40,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 15}, {"ttl": "5m", "inputTokens": 25}],
            },
            "ResponseMetadata": {"RequestId": "aws-1"},
        },
        (80, 30, 40, 15, 20, 0),
        provider="aws",
        fields={"provider_request_id": "aws-1"},
        given={"model_sent": "anthropic.claude"},
    ),
    "mistral": Case(
        chat(prompt_tokens=16, completion_tokens=34, total_tokens=50, prompt_audio_seconds=5),
        (16, 0, 0, 0, 34, 0),
        provider="mistral",
        extra={"input_audio_seconds": 5},
        given={"api_host": "api.mistral.ai"},
    ),
    "groq": Case(
        chat(prompt_tokens=16, completion_tokens=34, total_tokens=50, queue_time=0.1) | {"x_groq": {"id": "req_1"}},
        (16, 0, 0, 0, 34, 0),
        provider="groq",
    ),
    "deepseek": Case(
        chat(
            prompt_tokens=100,
            completion_tokens=9,
            total_tokens=109,
            prompt_cache_hit_tokens=64,
            prompt_cache_miss_tokens=36,
        ),
        (100, 64, 0, 0, 9, 0),
        provider="deepseek",
    ),
    "azure": Case(
        chat(prompt_tokens=7, completion_tokens=3, total_tokens=10),
        (7, 0, 0, 0, 3, 0),
        provider="azure",
        given={"api_host": "acme.openai.azure.com", "deployment": "prod"},
    ),
    "openrouter": Case(
        chat(prompt_tokens=7, completion_tokens=3, total_tokens=10, cost=0.00014, cost_details={}),
        (7, 0, 0, 0, 3, 0),
        provider="openrouter",
        fields={"reported_cost_nano": 140_000},
    ),
    "xai leaves reasoning out": Case(
        chat(
            prompt_tokens=32,
            completion_tokens=9,
            total_tokens=135,
            cost_in_usd_ticks=3_725_005,
            completion_tokens_details={"reasoning_tokens": 94},
            prompt_tokens_details={"cached_tokens": 6},
        ),
        (32, 6, 0, 0, 103, 94),
        provider="x-ai",
        fields={"reported_cost_nano": 372_500},
    ),
    "vllm": Case(
        chat(prompt_tokens=7, completion_tokens=3, total_tokens=10, prompt_tokens_details=None),
        (7, 0, 0, 0, 3, 0),
        provider="vllm",
        given={"provider": "vllm"},
    ),
    "cohere": Case(
        {"id": "c1", "usage": {"billed_units": {"input_tokens": 5, "output_tokens": 6}, "tokens": {"input_tokens": 7}}},
        (5, 0, 0, 0, 6, 0),
        provider="cohere",
        given={"model_sent": "command-r"},
    ),
    "cohere rerank": Case(
        {"id": "c1", "results": [], "meta": {"billed_units": {"search_units": 1}}},
        (0, 0, 0, 0, 0, 0),
        provider="cohere",
        extra={"rerank_searches": 1},
        fields={"operation": "rerank"},
        given={"model_sent": "rerank-v3.5"},
    ),
    "ollama": Case(
        {"model": "llama3.2", "done": True, "prompt_eval_count": 26, "eval_count": 298},
        (26, 0, 0, 0, 298, 0),
        provider="ollama",
    ),
    "no usage": Case(
        {"id": "x", "object": "chat.completion", "model": "gpt-4o", "usage": None},
        (0, 0, 0, 0, 0, 0),
        fields={"usage_source": "NONE"},
    ),
    "counts that are none": Case(
        chat(prompt_tokens=True, completion_tokens=-3, prompt_tokens_details={"cached_tokens": "7"}),
        (0, 0, 0, 0, 0, 0),
        fields={"usage_source": "NONE", "tags": {"usage_problem": "prompt_tokens: true or false"}},
    ),
    "a gateway that leaves cached input out": Case(
        chat(prompt_tokens=10, completion_tokens=5, prompt_tokens_details={"cached_tokens": 90}),
        (100, 90, 0, 0, 5, 0),
    ),
}


def tokens_of(event: UsageEvent) -> tuple[int, ...]:
    return (
        event.input_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.cache_write_1h_tokens,
        event.output_tokens,
        event.reasoning_tokens,
    )


class Thing:
    """A dict as an object, as SDKs give it."""

    def __init__(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            setattr(self, name, _thing(value))


def _thing(value: Any) -> Any:
    if isinstance(value, dict):
        return Thing(value)
    return [_thing(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("shape", ["dict", "object"])
@pytest.mark.parametrize("name", CASES)
def test_payload(name: str, shape: str) -> None:
    case = CASES[name]
    given = {"model_sent": case.body.get("model") or "model", **case.given}
    event = extract(case.body if shape == "dict" else Thing(case.body), service="shop", **given)
    assert tokens_of(event) == case.tokens
    assert event.provider == case.provider
    assert event.extra_units == case.extra
    for field_name, value in {"usage_source": "PROVIDER", "status": "OK", "stream": False, **case.fields}.items():
        assert getattr(event, field_name) == value, field_name


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("acme.openai.azure.com:443", "azure"),
        ("https://generativelanguage.googleapis.com", "google"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("http://127.0.0.1:11434/v1", "ollama"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "aws"),
        ("notapi.openai.com.evil.example", "openai"),
        ("[bad", "openai"),
    ],
)
def test_the_host_tells_the_provider(host: str, provider: str) -> None:
    assert provider_of(chat(prompt_tokens=1), api_host=host) == provider


@pytest.mark.parametrize(
    ("usd", "nano"),
    [
        (0.1, 100_000_000),
        ("0.000000001", 1),
        (0.0000000005, 0),
        (0.0000000015, 2),
        (1, 1_000_000_000),
        (0, 0),
        (-1, None),
        (True, None),
        ("x", None),
        (float("nan"), None),
        (float("inf"), None),
        (1e9, None),
        (None, None),
    ],
)
def test_stated_cost_by_its_decimal_digits(usd: Any, nano: int | None) -> None:
    assert usd_to_nano(usd) == nano


def test_litellm_states_its_cost_apart() -> None:
    assert reported_cost({"usage": {}, "_hidden_params": {"response_cost": 0.002}}) == 2_000_000


def test_get_takes_paths_through_dicts_and_objects() -> None:
    assert get({"a": Thing({"b": {"c": 3}})}, "x.y", "a.b.c") == 3
    assert get({"a": None}, "a", "a.b") is None
    assert not read_usage({}).stated
    assert not read_usage("text").stated
