"""The shapes of OpenAI, and of all who speak like it: chat, embeddings, responses, images, transcription, realtime."""

from typing import Any

from tollmeter.producers.extract.usage import Usage, count, counted, get, reported_cost


def is_chat(body: Any) -> bool:
    return get(body, "usage.prompt_tokens", "usage.completion_tokens") is not None


def chat(body: Any, provider: str) -> Usage:
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


def is_responses(body: Any) -> bool:
    return get(
        body, "usage.input_tokens_details.cached_tokens", "usage.output_tokens_details.reasoning_tokens"
    ) is not (None) or (get(body, "object") == "response" and get(body, "usage.input_tokens") is not None)


def responses(body: Any, _provider: str) -> Usage:
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


def is_media(body: Any) -> bool:
    return get(body, "usage.input_tokens", "usage.seconds") is not None


def media(body: Any, _provider: str) -> Usage:
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


def is_images(body: Any) -> bool:
    data = get(body, "data")
    return isinstance(data, list) and bool(data) and get(data[0], "b64_json", "url", "revised_prompt") is not None


def images(body: Any, _provider: str) -> Usage:
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
