"""What a provider says it used, in its own spelling, becomes inclusive counters: input holds cached and written input,
output holds reasoning. Pure: objects or dicts in, a value out.
"""

from collections.abc import Callable
from typing import Any

from tollmeter.producers.extract import openai as openai_shapes
from tollmeter.producers.extract.usage import Usage, counted, get, items, reported_cost
from tollmeter.schemas.event import MAX_TOKENS


def read_usage(body: Any, provider: str = "") -> Usage:
    """Return the usage that a whole response states. `provider` settles what its shape leaves open."""
    for belongs, read in SHAPES:
        if belongs(body):
            return _whole(read(body, provider))
    return Usage(stated=False)


def _whole(usage: Usage) -> Usage:
    """Make parents hold their children: a child above its parent can only mean that the parent leaves it out."""
    input_, output = usage.input_tokens, usage.output_tokens
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    if cached > input_:
        input_ += cached
    if usage.reasoning_tokens > output:
        output += usage.reasoning_tokens
    return Usage(
        min(input_, MAX_TOKENS),
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        min(usage.cache_write_1h_tokens, usage.cache_write_tokens),
        min(output, MAX_TOKENS),
        usage.reasoning_tokens,
        {name: float(amount) for name, amount in usage.extra_units.items() if amount},
        usage.reported_cost_nano,
        usage.stated,
        usage.operation,
    )


def _is_anthropic(body: Any) -> bool:
    stated = get(body, "usage.cache_read_input_tokens", "usage.cache_creation_input_tokens", "usage.server_tool_use")
    return get(body, "usage.input_tokens", "usage.output_tokens") is not None and (
        stated is not None or (get(body, "type") == "message" and get(body, "role") == "assistant")
    )


def _anthropic(body: Any, _provider: str) -> Usage:
    """Messages: the three inputs exclude each other."""
    usage = get(body, "usage")
    read = counted(usage, "cache_read_input_tokens")
    hour = counted(usage, "cache_creation.ephemeral_1h_input_tokens")
    split = hour + counted(usage, "cache_creation.ephemeral_5m_input_tokens")
    written = max(counted(usage, "cache_creation_input_tokens"), split)
    return Usage(
        input_tokens=counted(usage, "input_tokens") + read + written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
        output_tokens=counted(usage, "output_tokens"),
        reasoning_tokens=counted(usage, "output_tokens_details.thinking_tokens"),
        extra_units={"web_searches": counted(usage, "server_tool_use.web_search_requests")},
        reported_cost_nano=reported_cost(body),
    )


def _is_gemini(body: Any) -> bool:
    return get(body, "usageMetadata", "usage_metadata") is not None


def _gemini(body: Any, _provider: str) -> Usage:
    """generateContent: candidates exclude thoughts, the prompt excludes what tools put in."""
    usage = get(body, "usageMetadata", "usage_metadata")
    thoughts = counted(usage, "thoughtsTokenCount", "thoughts_token_count")
    tools = counted(usage, "toolUsePromptTokenCount", "tool_use_prompt_token_count")
    extra: dict[str, float] = {"input_tool_tokens": tools}
    for prefix, suffix, lists in (
        ("input", "", ("promptTokensDetails", "prompt_tokens_details")),
        ("input", "", ("toolUsePromptTokensDetails", "tool_use_prompt_tokens_details")),
        ("output", "", ("candidatesTokensDetails", "candidates_tokens_details")),
        ("cache", "_read", ("cacheTokensDetails", "cache_tokens_details")),
    ):
        for item in items(usage, *lists):
            modality = str(getattr(get(item, "modality"), "value", get(item, "modality"))).lower()
            kind = {"document": "image"}.get(modality, modality)
            if kind in ("audio", "image", "video"):
                key = f"{prefix}_{kind}{suffix}_tokens"
                extra[key] = extra.get(key, 0) + counted(item, "tokenCount", "token_count")
    for kind in ("audio", "image", "video"):
        if extra.get(f"cache_{kind}_read_tokens", 0) > extra.get(f"input_{kind}_tokens", 0):
            del extra[f"cache_{kind}_read_tokens"]
    return Usage(
        input_tokens=counted(usage, "promptTokenCount", "prompt_token_count") + tools,
        cache_read_tokens=counted(usage, "cachedContentTokenCount", "cached_content_token_count"),
        output_tokens=counted(usage, "candidatesTokenCount", "candidates_token_count", "responseTokenCount") + thoughts,
        reasoning_tokens=thoughts,
        extra_units=extra,
        operation="embeddings" if get(body, "embeddings") is not None else "chat",
    )


def _bedrock(body: Any, _provider: str) -> Usage:
    usage = get(body, "usage")
    read, written = counted(usage, "cacheReadInputTokens"), counted(usage, "cacheWriteInputTokens")
    details = items(usage, "cacheDetails")
    return Usage(
        input_tokens=counted(usage, "inputTokens") + read + written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=sum(counted(item, "inputTokens") for item in details if get(item, "ttl") == "1h"),
        output_tokens=counted(usage, "outputTokens"),
    )


def _cohere(body: Any, _provider: str) -> Usage:
    billed = get(body, "usage.billed_units", "meta.billed_units")
    searches = counted(billed, "search_units")
    return Usage(
        input_tokens=counted(billed, "input_tokens"),
        output_tokens=counted(billed, "output_tokens"),
        extra_units={"rerank_searches": searches},
        operation="rerank" if searches and get(body, "results") is not None else "chat",
    )


def _ollama(body: Any, _provider: str) -> Usage:
    return Usage(
        input_tokens=counted(body, "prompt_eval_count"),
        output_tokens=counted(body, "eval_count"),
        operation="embeddings" if get(body, "embeddings") is not None else "chat",
    )


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda body: get(body, *names) is not None


SHAPES: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], Usage]], ...] = (
    (_is_gemini, _gemini),
    (_has("usage.billed_units", "meta.billed_units"), _cohere),
    (_has("usage.inputTokens", "usage.outputTokens"), _bedrock),
    (openai_shapes.is_chat, openai_shapes.chat),
    (openai_shapes.is_responses, openai_shapes.responses),
    (_is_anthropic, _anthropic),
    (openai_shapes.is_media, openai_shapes.media),
    (openai_shapes.is_images, openai_shapes.images),
    (_has("prompt_eval_count", "eval_count"), _ollama),
)
"""How shapes are told apart, first that fits."""
