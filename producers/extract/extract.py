"""A provider's answer, whole or streamed, SDK object or dict, becomes one usage event with inclusive counters."""

import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from tollmeter.producers.client.ids import Ids
from tollmeter.producers.extract.payloads import read_usage
from tollmeter.producers.extract.streams import Merged
from tollmeter.producers.extract.usage import Usage, get
from tollmeter.schemas.event import EPOCH, UsageEvent
from tollmeter.schemas.secrets import key_id, without_secrets

PROVIDER_HOSTS = (
    ("openai.azure.com", "azure"),
    ("cognitiveservices.azure.com", "azure"),
    ("services.ai.azure.com", "azure"),
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("googleapis.com", "google"),
    ("amazonaws.com", "aws"),
    ("api.mistral.ai", "mistral"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x-ai"),
    ("openrouter.ai", "openrouter"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("huggingface.co", "huggingface"),
    ("together.xyz", "together"),
    ("fireworks.ai", "fireworks"),
    ("perplexity.ai", "perplexity"),
    ("api.moonshot.ai", "moonshotai"),
)
OLLAMA_PORT = 11434
_SDKS = {"anthropic": "anthropic", "google": "google", "mistralai": "mistral", "cohere": "cohere", "groq": "groq"}
_TIERS = {"standard": "default", "ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex"}
_TIERS["PROVISIONED_THROUGHPUT"] = "provisioned"
_LATENCY_LIMIT = timedelta(hours=1)
_ids = Ids()


def extract(
    response: Any,
    *,
    service: str = "",
    provider: str | None = None,
    started_at: datetime | None = None,
    api_key: str | None = None,
    pepper: str | None = None,
    **fields: Any,
) -> UsageEvent:
    """Return the event of a finished call.

    `response` is an SDK object or body: OpenAI (chat, responses, embeddings, images, transcription) and whatever speaks
    like it, Anthropic, Gemini, Bedrock Converse, Cohere, Ollama; or a list or iterator of a stream's chunks, read to
    its end. `started_at` (aware) selects price and window: the present if absent. `api_key` is hashed into
    `api_key_id` under `pepper` (TOLLMETER_PEPPER). Further keywords are fields of `UsageEvent` and win. A service left
    out is filled in by the producer. No usage in the answer gives `usage_source` NONE. Raises ValueError only for
    wrong keywords; `UsageProducer.record_response` never does.
    """
    body = _gather(response)
    provider = provider or provider_of(body, response, str(fields.get("api_host") or ""))
    usage = read_usage(body, provider)
    event_id, now_us = _ids.next()
    now = EPOCH + timedelta(microseconds=now_us)
    found = {
        "event_id": event_id,
        "occurred_at": started_at or now,
        "service": service,
        "provider": provider,
        "status": body.status if isinstance(body, Merged) else "OK",
        "latency_ms": _latency(started_at, now),
        "stream": isinstance(response, list | tuple | Iterator | Merged),
        **_counters(usage),
        **_names(body),
    }
    pepper = pepper or os.environ.get("TOLLMETER_PEPPER")
    if api_key:
        found["api_key_id"] = key_id(api_key, pepper)
    found.update({name: value for name, value in fields.items() if value is not None})
    found["model_sent"] = found.get("model_sent") or found["model_used"]
    return UsageEvent.model_validate(without_secrets(found, pepper))


def _gather(response: Any) -> Any:
    """Return a body: streams are merged into one. A pydantic object can be iterated too, but is no stream."""
    if isinstance(response, Mapping | Merged) or not isinstance(response, list | tuple | Iterator):
        # Anthropic's and OpenAI's stream helpers know their own final message.
        return response
    merged = Merged()
    for chunk in response:
        merged.add(chunk)
    return merged


def _counters(usage: Usage) -> dict[str, Any]:
    if not usage.stated:
        return {"usage_source": "NONE"}
    return {
        "usage_source": "PROVIDER",
        "operation": usage.operation,
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "extra_units": usage.extra_units,
        "reported_cost_nano": usage.reported_cost_nano,
    }


def _names(body: Any) -> dict[str, Any]:
    """Return the model, the provider's id of the call, and what of tier and place changes the price."""
    tier = _text(get(body, "service_tier", "usage.service_tier"))
    traffic = get(body, "usageMetadata.trafficType", "usage_metadata.traffic_type")
    tier = tier or _text(getattr(traffic, "value", traffic))
    names: dict[str, Any] = {
        "model_used": _text(get(body, "model", "modelVersion", "model_version")),
        "provider_request_id": _text(get(body, "id", "responseId", "response_id", "ResponseMetadata.RequestId")),
        "service_tier": _TIERS.get(tier, "" if tier.startswith(("ON_DEMAND", "TRAFFIC_TYPE")) else tier),
    }
    if _text(get(body, "usage.speed")) == "fast":
        names["service_tier"] = "fast"
    if tier == "batch":
        names["processing"], names["service_tier"] = "BATCH", ""
    region = _text(get(body, "usage.inference_geo"))
    if region and region != "not_available":
        names["region"] = region
    return names


def provider_of(body: Any, response: Any = None, api_host: str = "") -> str:
    """Return the provider: told by the host that was called, the SDK's class, or the shape; "openai" if by nothing."""
    host, port = _address(api_host)
    for known, provider in PROVIDER_HOSTS:
        if host == known or host.endswith(f".{known}"):
            return provider
    if port == OLLAMA_PORT or get(body, "eval_count", "prompt_eval_count") is not None:
        return "ollama"
    sample = body.sample if isinstance(body, Merged) else response
    sdk = _SDKS.get(type(sample).__module__.partition(".")[0])
    if sdk:
        return sdk
    hints = (
        ("usage.cost_in_usd_ticks", "x-ai"),
        ("usage.num_sources_used", "x-ai"),
        ("x_groq", "groq"),
        ("usage.prompt_cache_hit_tokens", "deepseek"),
        ("usage.cost_details", "openrouter"),
        ("usage.cost", "openrouter"),
        ("usageMetadata", "google"),
        ("usage_metadata", "google"),
        ("usage.inputTokens", "aws"),
        ("usage.billed_units", "cohere"),
        ("meta.billed_units", "cohere"),
        ("usage.cache_read_input_tokens", "anthropic"),
        ("usage.cache_creation_input_tokens", "anthropic"),
    )
    for path, provider in hints:
        if get(body, path) is not None:
            return provider
    return "anthropic" if get(body, "type") == "message" else "openai"


def _address(api_host: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(api_host if "//" in api_host else f"//{api_host}")
        return parts.hostname or "", parts.port
    except ValueError:
        return "", None


def _text(value: Any) -> str:
    return value[:256] if isinstance(value, str) else ""


def _latency(started_at: datetime | None, now: datetime) -> int | None:
    """Return the milliseconds since the start; None for a start so long ago that this is no live call."""
    if started_at is None or not timedelta(0) <= now - started_at < _LATENCY_LIMIT:
        return None
    return (now - started_at) // timedelta(milliseconds=1)
