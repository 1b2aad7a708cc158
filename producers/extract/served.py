"""Who answered, where and how: provider, model, tier, region, batch. Each changes the price."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tollmeter.producers.extract.streams import Merged
from tollmeter.producers.extract.usage import get, items, text

PROVIDER_HOSTS = (
    ("openai.azure.com", "azure"),
    ("cognitiveservices.azure.com", "azure"),
    ("services.ai.azure.com", "azure"),
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("api.aws", "aws"),
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
    ("huggingface.cloud", "huggingface"),
    ("together.xyz", "together"),
    ("fireworks.ai", "fireworks"),
    ("perplexity.ai", "perplexity"),
    ("api.moonshot.ai", "moonshotai"),
    ("api.moonshot.cn", "moonshotai"),
    ("api.voyageai.com", "voyageai"),
    ("api.cerebras.ai", "cerebras"),
    ("api.novita.ai", "novita"),
    ("api.minimax.io", "minimax"),
)
OLLAMA_PORT = 11434
_SDKS = {"anthropic": "anthropic", "google": "google", "mistralai": "mistral", "cohere": "cohere", "groq": "groq"}
_HINTS = (
    ("usage.cost_in_usd_ticks", "x-ai"),
    ("usage.num_sources_used", "x-ai"),
    ("server_side_tool_usage", "x-ai"),
    ("x_groq", "groq"),
    ("usage.prompt_cache_hit_tokens", "deepseek"),
    ("usage.search_context_size", "perplexity"),
    ("usage.num_search_queries", "perplexity"),
    ("usage.cost.total_cost", "perplexity"),
    ("usage.cost_details", "openrouter"),
    ("usage.is_byok", "openrouter"),
    ("usage.cost", "openrouter"),
    ("usageMetadata", "google"),
    ("usage_metadata.prompt_token_count", "google"),
    ("usage.total_input_tokens", "google"),
    ("usage.inputTokens", "aws"),
    ("usageEvent", "aws"),
    ("event.usageEvent", "aws"),
    ("amazon-bedrock-invocationMetrics", "aws"),
    ("usage.billed_units", "cohere"),
    ("meta.billed_units", "cohere"),
    ("usage_info.pages_processed", "mistral"),
    ("usage.prompt_audio_seconds", "mistral"),
    ("usage.connector_tokens", "mistral"),
    ("details.generated_tokens", "huggingface"),
    ("metrics.input_token_count", "replicate"),
    ("usage.cache_read_input_tokens", "anthropic"),
    ("usage.cache_creation_input_tokens", "anthropic"),
)
"""Fields that one provider alone has."""
_AI_SDK = ("totalUsage", "usage.cachedInputTokens", "usage.inputTokenDetails")
"""Vercel's AI SDK spells counts as Bedrock does, whoever answered."""
_LANGCHAIN = {"google_genai": "google", "google_vertexai": "google", "bedrock": "aws", "bedrock_converse": "aws"}
_LANGCHAIN |= {"xai": "x-ai", "mistralai": "mistral", "azure_openai": "azure", "azure": "azure"}
LITELLM_PROVIDERS = {
    **{name: name for name in ("anthropic", "openai", "azure", "mistral", "groq", "deepseek", "cohere", "perplexity")},
    **{name: name for name in ("openrouter", "ollama", "cerebras", "huggingface")},
    "vertex_ai": "google",
    "gemini": "google",
    "bedrock": "aws",
    "xai": "x-ai",
    "ollama_chat": "ollama",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "voyage": "voyageai",
    "moonshot": "moonshotai",
}
"""Names of providers before a slash: https://docs.litellm.ai/docs/providers (2026-11-29)."""
_MAKERS = (("claude", "anthropic"), ("sonar", "perplexity"), ("gemini", "google"), ("voyage-", "voyageai"))
"""Beginnings of names that one maker alone gives, for answers that say nothing else."""

TIERS = (
    "service_tier",  # OpenAI; https://docs.x.ai; Gemini's interactions
    "serviceTier.type",  # Bedrock Converse: API_runtime_ServiceTier (2026-11-29)
    "serviceTier",
    "usage.service_tier",  # Anthropic: https://platform.claude.com/docs/en/api/service-tiers (2026-11-29)
    "usageMetadata.serviceTier",  # Gemini: https://ai.google.dev/gemini-api/docs/optimization (2026-11-29)
    "usage_metadata.service_tier",
    "usageMetadata.trafficType",  # Vertex AI, GenerateContentResponse.UsageMetadata (2026-11-29)
    "usage_metadata.traffic_type",
    "response_metadata.service_tier",  # LangChain
    "ResponseMetadata.HTTPHeaders.x-amzn-bedrock-service-tier",
)
_TIER_NAMES = {
    **dict.fromkeys(("standard", "service_tier_standard"), "default"),
    **dict.fromkeys(("on_demand", "traffic_type_unspecified", "service_tier_unspecified", "unspecified"), ""),
    "on_demand_priority": "priority",
    "on_demand_flex": "flex",
    "provisioned_throughput": "provisioned",
}
_REGIONAL_HOSTS = (
    re.compile(r"(?P<region>[a-z]+-[a-z]+\d+)-aiplatform\.googleapis\.com"),
    re.compile(r"aiplatform\.(?P<region>[a-z]+)\.rep\.googleapis\.com"),
    re.compile(r"bedrock-runtime(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com"),
    re.compile(r"(?P<region>[a-z]{2})\.api\.openai\.com"),
)
_BEDROCK_MODEL = re.compile(r"(?:arn:aws[\w-]*:bedrock:|(?:[a-z-]+\.)?[a-z0-9]+\.[a-z0-9])")


def provider_of(body: object, response: object = None, api_host: str = "") -> str:
    """Return the provider: told by the host that was called, the SDK's class, or the shape; "openai" if by nothing."""
    host, port = _address(api_host)
    if host.startswith("aws-external-anthropic."):  # https://docs.aws.amazon.com/claude-platform (2026-11-29)
        return "anthropic"
    for known, provider in PROVIDER_HOSTS:
        if host == known or host.endswith(f".{known}"):
            return provider
    if port == OLLAMA_PORT or get(body, "eval_count", "prompt_eval_count") is not None:
        return "ollama"
    sample = body.sample if isinstance(body, Merged) else response
    sdk = _SDKS.get(type(sample).__module__.partition(".")[0])
    if sdk:
        return sdk
    named = text(get(body, "response_metadata.model_provider"))
    if named:
        return _LANGCHAIN.get(named, named)
    neutral = get(body, *_AI_SDK) is not None
    for path, provider in _HINTS:
        if get(body, path) is not None and not (neutral and provider == "aws"):
            return provider
    if get(body, "type") == "message":
        return "anthropic"
    model = model_of(body).lower()
    prefix, _, rest = model.partition("/")  # LiteLLM writes the provider before the name
    if rest and prefix in LITELLM_PROVIDERS:
        return LITELLM_PROVIDERS[prefix]
    chatty = get(body, "usage.prompt_tokens", "usage_metadata.input_tokens", "usage.total_tokens", *_AI_SDK) is not None
    return next((maker for start, maker in _MAKERS if chatty and model.startswith(start)), "openai")


def _address(api_host: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(api_host if "//" in api_host else f"//{api_host}")
        return parts.hostname or "", parts.port
    except ValueError:
        return "", None


def model_of(body: object) -> str:
    """Return the model that the answer names."""
    named = ("response_metadata.model_name", "response_metadata.model", "response.modelId")  # LangChain; the AI SDK
    routed = text(get(body, "trace.promptRouter.invokedModelId"))  # Bedrock: the router's choice is billed
    agent = text(get(body, "agent")) if get(body, "object") == "interaction" else ""
    return routed or text(get(body, "model", "modelVersion", "model_version", *named)).removeprefix("models/") or agent


def names_of(body: object, provider: str, given: Mapping[str, object]) -> dict[str, Any]:
    """Return the model, the provider's id of the call, and what of tier and place changes the price."""
    tier = _tier(body)
    model = model_of(body)
    sent = given.get("model_sent")
    if provider == "aws" and isinstance(sent, str) and model in sent and _BEDROCK_MODEL.match(sent):
        model = sent[:256]  # the profile that was called has the price, not the bare name in the vendor's body
    ids = ("id", "responseId", "response_id", "ResponseMetadata.RequestId", "response_metadata.id", "generation_id")
    names: dict[str, Any] = {
        "model_used": model,
        "provider_request_id": text(get(body, *ids)),
        "service_tier": _TIER_NAMES.get(tier.lower(), tier),
    }
    if text(get(body, "usage.speed")) == "fast":  # Anthropic: fast mode (2026-11-29)
        names["service_tier"] = "fast"
    if text(get(body, "performanceConfig.latency")) == "optimized":  # Bedrock: dearer, API_runtime_Converse
        names["service_tier"] = "optimized"
    if tier.lower() == "batch":
        names["processing"], names["service_tier"] = "BATCH", ""
    region = text(get(body, "usage.inference_geo", "response_metadata.inference_geo"))
    region = "" if region in ("global", "not_available") else region
    region = region or region_of(str(given.get("api_host") or ""))
    if region:
        names["region"] = region
    return names


def _tier(body: object) -> str:
    for place in TIERS:
        tier = text(get(body, place))
        if tier:
            return tier
    return ""


def region_of(api_host: str) -> str:
    """Return the region that a host names, where it changes the price."""
    host, _ = _address(api_host)
    return next((found["region"] for pattern in _REGIONAL_HOSTS if (found := pattern.fullmatch(host))), "")


def generations(body: object) -> list[Any]:
    """Return the messages of LangChain's LLMResult."""
    found = [get(one, "message") for row in items(body, "generations") for one in (row if _is_list(row) else [row])]
    return [message for message in found if message is not None]


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)
