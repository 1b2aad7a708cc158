"""What a provider says it used, in its own spelling, becomes inclusive counters: input holds cached and written input,
output holds reasoning. Pure: objects or dicts in, a value out; what is no count is treated as absent, never guessed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.money import MAX_EVENT_NANO, NANO_PER_USD

XAI_TICKS_PER_NANO = 10


@dataclass(frozen=True, slots=True)
class Usage:
    """The counters of one call. `stated` is False when the provider said nothing about usage."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    extra_units: dict[str, float] = field(default_factory=dict)
    reported_cost_nano: int | None = None
    stated: bool = True
    operation: str = "chat"


def get(body: Any, *names: str) -> Any:
    """Return the first of these keys or attributes that is there and not None; a path is written "a.b"."""
    for name in names:
        found = body
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else getattr(found, part, None)
            if found is None:
                break
        if found is not None:
            return found
    return None


def count(value: Any) -> int | None:
    """Return a token count, None for anything that cannot be one. JSON may spell it 12.0; true is not 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
        return None
    return value


def counted(body: Any, *names: str) -> int:
    """Return the first of these fields that is a count, 0 when none is."""
    for name in names:
        found = count(get(body, name))
        if found is not None:
            return found
    return 0


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


# -- OpenAI and everything that speaks like it


def _is_chat(body: Any) -> bool:
    return get(body, "usage.prompt_tokens", "usage.completion_tokens") is not None


def _chat(body: Any, provider: str) -> Usage:
    """Chat completions and embeddings: OpenAI, Azure, Mistral, Groq, DeepSeek, xAI, OpenRouter, vLLM, LiteLLM ..."""
    usage = get(body, "usage")
    prompt, completion = counted(usage, "prompt_tokens"), counted(usage, "completion_tokens")
    reasoning = counted(usage, "completion_tokens_details.reasoning_tokens", "reasoning_tokens")
    # xAI leaves reasoning out of completion_tokens; the total tells, where there is one.
    total = count(get(usage, "total_tokens"))
    apart = prompt + completion + reasoning
    if reasoning and (total == apart or (provider == "x-ai" and total != prompt + completion)):
        completion += reasoning
    extra = _modalities(usage, "prompt_tokens_details", "completion_tokens_details")
    seconds = get(usage, "prompt_audio_seconds")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0:
        extra["input_audio_seconds"] = float(seconds)
    return Usage(
        input_tokens=prompt,
        cache_read_tokens=counted(
            usage,
            "prompt_tokens_details.cached_tokens",
            "prompt_cache_hit_tokens",
            "cached_prompt_text_tokens",
            "cached_tokens",
            "num_cached_tokens",
        ),
        cache_write_tokens=counted(usage, "prompt_tokens_details.cache_write_tokens"),
        output_tokens=completion,
        reasoning_tokens=reasoning,
        extra_units=extra,
        reported_cost_nano=reported_cost(body),
        operation="embeddings" if _is_embedding(body) else "chat",
    )


def _is_embedding(body: Any) -> bool:
    data = get(body, "data")
    return isinstance(data, list) and bool(data) and get(data[0], "embedding") is not None


def _is_responses(body: Any) -> bool:
    return get(
        body, "usage.input_tokens_details.cached_tokens", "usage.output_tokens_details.reasoning_tokens"
    ) is not (None) or (get(body, "object") == "response" and get(body, "usage.input_tokens") is not None)


def _responses(body: Any, _provider: str) -> Usage:
    usage = get(body, "usage")
    extra = _modalities(usage, "input_tokens_details", "output_tokens_details")
    extra["cache_write_12h_tokens"] = counted(
        usage, "input_tokens_details.cache_write_tokens_details.ttl_12h_tokens", "cache_write.ttl_12h"
    )
    return Usage(
        input_tokens=counted(usage, "input_tokens"),
        cache_read_tokens=counted(usage, "input_tokens_details.cached_tokens"),
        cache_write_tokens=counted(usage, "input_tokens_details.cache_write_tokens"),
        output_tokens=counted(usage, "output_tokens"),
        reasoning_tokens=counted(usage, "output_tokens_details.reasoning_tokens"),
        extra_units={**extra, **_searches(body)},
        reported_cost_nano=reported_cost(body),
        operation="responses",
    )


def _searches(body: Any) -> dict[str, float]:
    """Count the server-side tool calls that are billed apart."""
    units = {"web_search_call": "web_searches", "file_search_call": "storage_searches"}
    found: dict[str, float] = {}
    output = get(body, "output")
    for item in output if isinstance(output, list) else ():
        unit = units.get(str(get(item, "type")))
        if unit:
            found[unit] = found.get(unit, 0) + 1
    return found


def _is_media(body: Any) -> bool:
    return get(body, "usage.input_tokens", "usage.seconds") is not None and not _is_anthropic(body)


def _media(body: Any, _provider: str) -> Usage:
    """Images, transcription and realtime: token counts by modality, or seconds."""
    usage = get(body, "usage")
    extra: dict[str, float] = {}
    for details in ("input_tokens_details", "input_token_details"):
        extra |= _modalities(usage, details, details.replace("input", "output"))
    operation = "chat"
    images = get(body, "data")
    if isinstance(images, list) and images and get(images[0], "b64_json", "url") is not None:
        extra["images"], operation = float(len(images)), "image"
    elif get(body, "text") is not None:
        operation = "transcription"
    seconds = get(usage, "seconds")
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0:
        extra["audio_seconds"] = float(seconds)
    return Usage(
        input_tokens=counted(usage, "input_tokens"),
        cache_read_tokens=counted(usage, "input_token_details.cached_tokens"),
        output_tokens=counted(usage, "output_tokens"),
        extra_units=extra,
        reported_cost_nano=reported_cost(body),
        operation=operation,
    )


def _is_images(body: Any) -> bool:
    data = get(body, "data")
    return isinstance(data, list) and bool(data) and get(data[0], "b64_json", "url", "revised_prompt") is not None


def _images(body: Any, _provider: str) -> Usage:
    """Images priced each (dall-e): the number of them is the usage, and no tokens are a valid count."""
    return Usage(extra_units={"images": float(len(get(body, "data")))}, operation="image")


def _modalities(usage: Any, inputs: str, outputs: str) -> dict[str, float]:
    """Return what is not text, by the price book's keys; cached audio only where the audio holds it."""
    extra: dict[str, float] = {}
    for direction, details in (("input", inputs), ("output", outputs)):
        for kind in ("audio", "image", "video"):
            extra[f"{direction}_{kind}_tokens"] = counted(usage, f"{details}.{kind}_tokens")
    for kind in ("audio", "image"):
        cached = counted(usage, f"{inputs}.cached_tokens_details.{kind}_tokens")
        if cached <= extra[f"input_{kind}_tokens"]:
            extra[f"cache_{kind}_read_tokens"] = cached
    return {name: amount for name, amount in extra.items() if amount}


# -- Anthropic, Gemini and the others


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
        for item in get(usage, *lists) or ():
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
    details = get(usage, "cacheDetails") or ()
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
    (_is_chat, _chat),
    (_is_responses, _responses),
    (_is_anthropic, _anthropic),
    (_is_media, _media),
    (_is_images, _images),
    (_has("prompt_eval_count", "eval_count"), _ollama),
)
"""How shapes are told apart, first that fits."""


def reported_cost(body: Any) -> int | None:
    """Return the cost that the provider or gateway states, in nano-USD: exact decimals, half to even."""
    ticks = get(body, "usage.cost_in_usd_ticks")
    if isinstance(ticks, int) and not isinstance(ticks, bool):
        return _within(Decimal(ticks) / XAI_TICKS_PER_NANO)
    return usd_to_nano(get(body, "usage.cost", "_hidden_params.response_cost", "response_cost"))


def usd_to_nano(usd: Any) -> int | None:
    """Return an amount in USD (number or text) as nano-USD by its decimal digits, None when it is none."""
    if isinstance(usd, bool) or not isinstance(usd, int | float | str | Decimal):
        return None
    try:
        return _within(Decimal(str(usd)) * NANO_PER_USD)
    except InvalidOperation:
        return None


def _within(nano: Decimal) -> int | None:
    if not nano.is_finite() or not 0 <= nano <= MAX_EVENT_NANO:
        return None
    return int(nano.to_integral_value(ROUND_HALF_EVEN))
