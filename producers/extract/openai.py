"""OpenAI, and all who speak like it: chat, responses, embeddings.

Where its documentation puts usage (https://developers.openai.com/api/reference and the openai SDK 3.54, read
2026-11-29), with what gateways make of the same shape. A path is written "a.b".
"""

import re
from dataclasses import replace

from tollmeter.producers.extract import gaps
from tollmeter.producers.extract.openai_media import drawn, modalities
from tollmeter.producers.extract.totals import overlapping, usage_of
from tollmeter.producers.extract.usage import UNEXPLAINED_TOKENS, Counts, Part, Usage, get, items, text

CHAT = {
    "input": ("prompt_tokens",),
    "output": ("completion_tokens",),
    "total": ("total_tokens",),
    "cache_read": (
        "prompt_tokens_details.cached_tokens",  # CompletionUsage.prompt_tokens_details (2026-11-29)
        "prompt_cache_hit_tokens",  # DeepSeek, https://api-docs.deepseek.com/guides/kv_cache (2026-11-29)
        "cached_prompt_text_tokens",  # xAI, https://docs.x.ai/docs/api-reference (2026-11-29)
        "cached_tokens",  # Moonshot, https://platform.moonshot.ai/docs/api/chat (2026-11-29)
        "num_cached_tokens",  # Mistral, https://docs.mistral.ai/api (2026-11-29)
        "cache_read_input_tokens",  # LiteLLM, https://docs.litellm.ai/docs/completion/prompt_caching (2026-11-29)
        "input_tokens_details.cached_tokens",
    ),
    "cache_write": (
        "prompt_tokens_details.cache_write_tokens",  # CompletionUsage: "unadjusted", may overlap the read (2026-11-29)
        "prompt_tokens_details.cache_creation_tokens",  # LiteLLM, as above
        "cache_creation_input_tokens",  # LiteLLM, as above
        "cache_write_input_tokens",
    ),
    "cache_write_1h": (
        "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens",  # LiteLLM, as above
        "cache_creation.ephemeral_1h_input_tokens",
    ),
    "reasoning": ("completion_tokens_details.reasoning_tokens", "reasoning_tokens"),
    "cache_12h": ("prompt_tokens_details.cache_write_tokens_details.ttl_12h_tokens",),
}
RESPONSES = {
    "input": ("input_tokens",),
    "output": ("output_tokens",),
    # the second is DashScope's (https://www.alibabacloud.com/help/en/model-studio/context-cache, 2026-11-30)
    "cache_read": ("input_tokens_details.cached_tokens", "prompt_tokens_details.cached_tokens"),
    "cache_write": ("input_tokens_details.cache_write_tokens",),
    "cache_12h": ("input_tokens_details.cache_write_tokens_details.ttl_12h_tokens", "cache_write.ttl_12h"),
    "reasoning": ("output_tokens_details.reasoning_tokens",),
    # ResponseUsage leaves tool calls out: `tool_usage` says what is billed, else the output items are counted
    "searches": ("tool_usage.web_search.num_requests",),
}
"""Realtime and transcription spell the details `input_token_details` (RealtimeResponseUsage, 2026-11-29)."""
_ALWAYS_SEARCHES = re.compile(r"(?:[\w.-]+/)?gpt-[\w.]+(?:-mini)?-search-(?:preview|api)(?:-\d{4}-\d{2}-\d{2})?")
"""Models of chat completions that search the web for each answer, at a fee a call and without a word in `usage`
(https://developers.openai.com/api/docs/guides/tools-web-search, chat completions, 2026-11-30)."""
PREVIEW, PREVIEW_SEARCHES = "web_search_preview", "preview_web_searches"
"""The earlier tool has another fee with models that do not reason, the searched text in it
(https://developers.openai.com/api/docs/pricing, web search preview, 2026-11-30)."""
_BLOCKS = re.compile(r"gpt-4(?:o|\.1)-mini(?:-\d{4}-\d{2}-\d{2})?")
"""Models that are billed 8,000 tokens for what each search found, of which `usage` says nothing (as above)."""
_REASONS_OUTSIDE = ("x-ai", "google")
"""Their totals hold reasoning that completion_tokens leave out, which may be as much as what was cached."""
SEARCH_ITEMS = {"web_search_call": "web_searches", "file_search_call": "storage_searches"}
TOOL_CALLS_AT = "usage.tool_calls_details"
TOOL_CALLS = {"web_search": "web_searches", "search_web": "web_searches", "fetch_url": "url_fetches"}
"""Perplexity's Agent API says so how often each tool ran (https://docs.perplexity.ai/api-reference, 2026-11-29)."""
FREE_ACTIONS = ("open_page", "find_in_page", "find")
"""Actions of a web search call that are no search (https://developers.openai.com/api/docs/guides/tools-web-search)."""


def is_chat(body: object) -> bool:
    return get(body, "usage.prompt_tokens", "usage.completion_tokens") is not None


def chat(body: object, provider: str) -> Usage:
    """Chat completions and embeddings: OpenAI, Azure, Mistral, Groq, DeepSeek, xAI, OpenRouter, vLLM, LiteLLM ..."""
    counts = Counts(get(body, "usage"))
    prompt, completion = counts.take(*CHAT["input"]), counts.take(*CHAT["output"])
    read, write = counts.take(*CHAT["cache_read"]), counts.take(*CHAT["cache_write"])
    reasoning = counts.take(*CHAT["reasoning"])
    total = Counts(counts.block).take(*CHAT["total"])  # a check and no count: what is wrong with it hurts nothing
    if not counts.has(*CHAT["input"]):
        prompt = max(total - completion, 0)
    if not counts.has(*CHAT["output"]):
        completion = max(total - prompt, 0)
    extra = modalities(counts, ("prompt_tokens_details",), ("completion_tokens_details",))
    extra["cache_write_12h_tokens"] = counts.take(*CHAT["cache_12h"])
    extra["web_searches"] = counts.take("server_tool_use.web_search_requests")  # OpenRouter, usage accounting
    if _ALWAYS_SEARCHES.fullmatch(text(get(body, "model")).lower()):
        extra["web_searches"] = max(extra["web_searches"], 1)
    outside = provider in _REASONS_OUTSIDE and total == prompt + completion + reasoning
    if total and total == prompt + read + write + completion and total != prompt + completion and not outside:
        prompt += read + write  # a gateway that leaves cached input out
    elif counts.has("prompt_tokens_details.cache_write_tokens") and max(read, write) <= prompt:
        write = overlapping(prompt, read, write)
    gap = gaps.explain(text(get(body, "model")), provider, total, prompt, completion, reasoning)
    extra |= gap.extra
    if completion and not prompt and counts.has(*CHAT["input"]):
        extra[UNEXPLAINED_TOKENS] = max(extra.get(UNEXPLAINED_TOKENS, 0), 1)  # nothing is answered to no prompt
    parts = by_model(body, provider)
    if parts:  # the top level is their sum
        return Usage(others=parts, problem=counts.problem)
    return usage_of(
        counts,
        extra,
        input_tokens=prompt,
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=counts.take(*CHAT["cache_write_1h"]),
        output_tokens=gap.output,
        reasoning_tokens=gap.reasoning,
        operation="embeddings" if is_embedding(body) else "rerank" if is_ranking(body) else "chat",
    )


def by_model(body: object, provider: str) -> tuple[Part, ...]:
    """Return the parts of an answer that several models made: Groq's compound systems bill each at its own price.

    https://console.groq.com/docs/compound (usage_breakdown, 2026-11-29).
    """
    return tuple(
        Part(text(get(part, "model")), chat({"usage": get(part, "usage"), "model": get(part, "model")}, provider))
        for part in items(body, "usage_breakdown.models")
    )


def is_embedding(body: object) -> bool:
    data = items(body, "data")
    return bool(data) and get(data[0], "embedding") is not None


def is_ranking(body: object) -> bool:
    ranked = items(body, "results")
    return bool(ranked) and get(ranked[0], "relevance_score") is not None


def is_responses(body: object) -> bool:
    details = get(body, "usage.input_tokens_details.cached_tokens", "usage.output_tokens_details.reasoning_tokens")
    return details is not None or (get(body, "object") == "response" and get(body, "usage.input_tokens") is not None)


def responses(body: object, provider: str) -> Usage:
    counts = Counts(get(body, "usage"))
    input_, output = counts.take(*RESPONSES["input"]), counts.take(*RESPONSES["output"])
    read, write = counts.take(*RESPONSES["cache_read"]), counts.take(*RESPONSES["cache_write"])
    reasoning = counts.take(*RESPONSES["reasoning"])
    extra = modalities(counts, ("input_tokens_details",), ("output_tokens_details",))
    extra["cache_write_12h_tokens"] = counts.take(*RESPONSES["cache_12h"])
    if max(read, write) <= input_:
        write = overlapping(input_, read, write)
    total = Counts(counts.block).take("total_tokens")
    gap = gaps.explain(text(get(body, "model")), provider, total, input_, output, reasoning)
    usage = usage_of(
        counts,
        {**extra, **gap.extra, **searches(body)},
        input_tokens=input_,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=gap.output,
        reasoning_tokens=gap.reasoning,
        operation="responses",
    )
    return replace(usage, others=drawn(body))


def searches(body: object) -> dict[str, float]:
    """Count the server-side tool calls that are billed apart: searches, not the opening of what was found."""
    found: dict[str, float] = {}
    containers = set()
    for item in items(body, "output"):
        kind = text(get(item, "type"))
        unit = SEARCH_ITEMS.get(kind)
        if unit and text(get(item, "action.type")) not in FREE_ACTIONS:
            found[unit] = found.get(unit, 0.0) + 1
        if kind == "code_interpreter_call":
            containers.add(text(get(item, "container_id")))
    counts = Counts(body)
    if counts.has(*RESPONSES["searches"]):
        billed = counts.take(*RESPONSES["searches"])
        found["web_searches"] = float(billed) if not counts.problem else found.get("web_searches", 0.0)
    for name in TOOL_CALLS if get(body, TOOL_CALLS_AT) is not None else ():
        unit = TOOL_CALLS[name]
        called = counts.take(f"{TOOL_CALLS_AT}.{name}.invocation")
        found[unit] = max(found.get(unit, 0.0), float(called))
    kinds = [text(get(tool, "type")) for tool in items(body, "tools")]
    if found.get("web_searches") and any(kind.startswith(PREVIEW) for kind in kinds):
        found[PREVIEW_SEARCHES] = found.pop("web_searches")
    elif (
        found.get("web_searches")
        and any(kind.startswith("web_search") for kind in kinds)
        and _BLOCKS.fullmatch(text(get(body, "model")).lower())
    ):
        found["search_blocks"] = found["web_searches"]  # unpriced, so PARTIAL
    if containers:  # 20 minutes of a container are one fee, which other calls may share: unpriced, so PARTIAL
        found["container_sessions"] = float(len(containers))
    return found
