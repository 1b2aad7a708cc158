"""Frameworks and gateways that restate a provider's usage in a shape of their own: LangChain, the AI SDK, Replicate.

Where their documentation puts usage: https://docs.langchain.com/oss/python/langchain/messages (usage_metadata),
https://ai-sdk.dev/docs/reference (usage) and https://replicate.com/docs (metrics), read 2026-11-29. LiteLLM and
OpenRouter keep OpenAI's shape and are read there.
"""

from tollmeter.producers.extract.grown import plain
from tollmeter.producers.extract.totals import usage_of
from tollmeter.producers.extract.usage import Counts, Part, Usage, get

LANGCHAIN = "usage_metadata.input_tokens"
BY_MODEL = "modelUsage"
"""Of a result of the Claude Agent SDK (https://platform.claude.com/docs/en/agent-sdk/cost-tracking, 2026-11-29)."""
AI_SDK = ("usage.cachedInputTokens", "usage.reasoningTokens", "usage.inputTokenDetails")


def is_langchain(body: object) -> bool:
    return get(body, LANGCHAIN, "usage_metadata.output_tokens") is not None


def langchain(body: object, _provider: str) -> Usage:
    """A message's usage_metadata is inclusive; writes of one hour stand beside those of five minutes."""
    counts = Counts(get(body, "usage_metadata"))
    hour = counts.take("input_token_details.ephemeral_1h_input_tokens")
    split = hour + counts.take("input_token_details.ephemeral_5m_input_tokens")
    extra = {
        "input_audio_tokens": counts.take("input_token_details.audio"),
        "output_audio_tokens": counts.take("output_token_details.audio"),
    }
    return usage_of(
        counts,
        {name: float(value) for name, value in extra.items()},
        input_tokens=counts.take("input_tokens"),
        cache_read_tokens=counts.take(*_of_tiers("input_token_details", "cache_read")),
        cache_write_tokens=max(counts.take(*_of_tiers("input_token_details", "cache_creation")), split),
        cache_write_1h_tokens=hour,
        output_tokens=counts.take("output_tokens"),
        reasoning_tokens=counts.take(*_of_tiers("output_token_details", "reasoning")),
    )


def _of_tiers(block: str, name: str) -> tuple[str, ...]:
    """Return where a detail stands: langchain-openai 1.7 puts the tier's name in front of it (2026-11-30)."""
    return tuple(f"{block}.{tier}{name}" for tier in ("", "priority_", "flex_"))


def is_by_model(body: object) -> bool:
    return isinstance(plain(get(body, BY_MODEL)), dict)


def by_model(body: object, _provider: str) -> Usage:
    """The result of an agent's run states the usage of each model; the three inputs exclude each other."""
    parts = []
    stated = plain(get(body, BY_MODEL))
    for model, block in stated.items() if isinstance(stated, dict) else ():
        counts = Counts(block)
        read, written = counts.take("cacheReadInputTokens"), counts.take("cacheCreationInputTokens")
        usage = usage_of(
            counts,
            {"web_searches": float(counts.take("webSearchRequests"))},
            input_tokens=counts.take("inputTokens") + read + written,
            cache_read_tokens=read,
            cache_write_tokens=written,
            output_tokens=counts.take("outputTokens"),
        )
        parts.append(Part(str(model), usage))
    return Usage(stated=bool(parts), others=tuple(parts))


def is_ai_sdk(body: object) -> bool:
    return get(body, *AI_SDK) is not None


def ai_sdk(body: object, _provider: str) -> Usage:
    """Vercel's AI SDK: inclusive."""
    counts = Counts(get(body, "totalUsage", "usage"))
    return usage_of(
        counts,
        input_tokens=counts.take("inputTokens"),
        cache_read_tokens=counts.take("cachedInputTokens", "inputTokenDetails.cacheReadTokens"),
        cache_write_tokens=counts.take("inputTokenDetails.cacheWriteTokens"),
        output_tokens=counts.take("outputTokens"),
        reasoning_tokens=counts.take("reasoningTokens", "outputTokenDetails.reasoningTokens"),
    )


def is_replicate(body: object) -> bool:
    return get(body, "metrics.input_token_count", "metrics.output_token_count") is not None


def replicate(body: object, _provider: str) -> Usage:
    counts = Counts(get(body, "metrics"))
    return usage_of(
        counts, input_tokens=counts.take("input_token_count"), output_tokens=counts.take("output_token_count")
    )
