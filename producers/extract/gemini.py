"""Google: generateContent, the Live API, interactions, embeddings, and the predictions of Vertex AI.

Where its documentation puts usage (https://ai.google.dev/api/generate-content, /api/live, /api/interactions-api and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference, read 2026-11-29). The counts of a stream are
cumulative within one answer; the turns of a live session add up.
"""

import re
from collections.abc import Iterator

from tollmeter.producers.extract.totals import usage_of
from tollmeter.producers.extract.usage import Counts, Usage, get, items, text

USAGE = {
    "input": ("promptTokenCount", "prompt_token_count", "total_input_tokens"),
    "tools": ("toolUsePromptTokenCount", "tool_use_prompt_token_count", "total_tool_use_tokens"),
    "cache_read": ("cachedContentTokenCount", "cached_content_token_count", "total_cached_tokens"),
    "output": (
        "candidatesTokenCount",  # generateContent: without thoughts
        "candidates_token_count",
        "responseTokenCount",  # Live API, UsageMetadata: without thoughts
        "response_token_count",
        "total_output_tokens",  # interactions: without thoughts
    ),
    "reasoning": ("thoughtsTokenCount", "thoughts_token_count", "total_thought_tokens"),
    "total": ("totalTokenCount", "total_token_count", "total_tokens"),
}
DETAILS = (
    ("input", "", ("promptTokensDetails", "prompt_tokens_details", "input_tokens_by_modality")),
    (
        "input",
        "",
        ("toolUsePromptTokensDetails", "tool_use_prompt_tokens_details", "tool_use_tokens_by_modality"),
    ),
    (
        "output",
        "",
        (
            "candidatesTokensDetails",
            "candidates_tokens_details",
            "responseTokensDetails",  # Live API
            "response_tokens_details",
            "output_tokens_by_modality",  # interactions
        ),
    ),
    ("cache", "_read", ("cacheTokensDetails", "cache_tokens_details", "cached_tokens_by_modality")),
)
"""Lists of {modality, tokenCount}; interactions write {modality, tokens}."""
_ITEM = ("tokenCount", "token_count", "tokens")
PREDICTED = ("predictions", "generatedImages", "generated_images")
QUERIES = (
    ("groundingMetadata.webSearchQueries", "grounding_metadata.web_search_queries"),
    ("groundingMetadata.imageSearchQueries", "grounding_metadata.image_search_queries"),
)
"""Both are searches that Google runs (google-genai 3.6, GroundingMetadata, 2026-11-30)."""
_BY_QUERY = re.compile(r"gemini-(?:[3-9]|\d\d)")
"""Models whose grounding is billed by the query; older ones by the grounded prompt (pricing page, 2026-11-29)."""


def is_gemini(body: object) -> bool:
    return (
        get(body, "usageMetadata", "usage_metadata", "usage.total_input_tokens", "usage.total_output_tokens")
        is not None
    )


def gemini(body: object, _provider: str) -> Usage:
    """generateContent, live turns and interactions: output excludes thoughts, the prompt what tools put in."""
    counts = Counts(get(body, "usageMetadata", "usage_metadata", "usage"))
    if text(get(body, "name")).startswith("cachedContents/"):  # storage by the hour, at a price of its own
        return usage_of(counts, {"cache_storage_tokens": counts.take(*USAGE["total"])}, operation="cache")
    thoughts, tools = counts.take(*USAGE["reasoning"]), counts.take(*USAGE["tools"])
    prompt, output = counts.take(*USAGE["input"]), counts.take(*USAGE["output"])
    total = Counts(counts.block).take(*USAGE["total"])
    if total > prompt + tools + output + thoughts and prompt and not thoughts:
        thoughts = total - prompt - tools - output  # thoughts are all that a total may hold beside the parts
    embedded = get(body, "embeddings", "embedding") is not None
    return usage_of(
        counts,
        {"input_tool_tokens": float(tools), **_modalities(counts), **_grounding(body), **_places(body)},
        input_tokens=prompt + tools,
        cache_read_tokens=counts.take(*USAGE["cache_read"]),
        output_tokens=output + thoughts,
        reasoning_tokens=thoughts,
        operation="embeddings" if embedded else "responses" if counts.has("total_input_tokens") else "chat",
    )


def _modalities(counts: Counts) -> dict[str, float]:
    told = bool(items(counts.block, *DETAILS[-1][2]))
    extra: dict[str, float] = {"cache_audio_read_tokens": 0.0} if told else {}
    for prefix, suffix, lists in DETAILS:
        for item in items(counts.block, *lists):
            modality = text(get(item, "modality")).lower()
            kind = {"document": "image"}.get(modality, modality)
            if kind in ("audio", "image", "video"):
                part = Counts(item)
                key = f"{prefix}_{kind}{suffix}_tokens"
                extra[key] = extra.get(key, 0.0) + part.take(*_ITEM)
                counts.problem = counts.problem or part.problem
    return extra


def _grounding(body: object) -> dict[str, float]:
    """Count the searches that are billed: each distinct query, or each grounded prompt; empty queries are none."""
    queries = {query for query in _queries(body) if query.strip()}
    if not queries:
        return {}
    model = text(get(body, "modelVersion", "model_version", "model"))
    return {"web_searches": float(len(queries)) if _BY_QUERY.search(model.lower()) else 1.0}


def _places(body: object) -> dict[str, float]:
    """Return the fees of grounding in maps (by the grounded prompt) and in stores of one's own (by the request).

    https://ai.google.dev/gemini-api/docs/maps-grounding and
    https://cloud.google.com/vertex-ai/generative-ai/pricing (grounding), read 2026-11-30.
    """
    found = [get(candidate, "groundingMetadata", "grounding_metadata") for candidate in items(body, "candidates")]
    grounded = [*found, get(body, "grounded")]
    chunks = [chunk for one in grounded for chunk in items(one, "groundingChunks", "grounding_chunks")]
    maps = any(get(chunk, "maps") is not None for chunk in chunks)
    stores = any(items(one, "retrievalQueries", "retrieval_queries") for one in grounded)
    return {name: 1.0 for name, found in (("maps_searches", maps), ("store_groundings", stores)) if found}


def _queries(body: object) -> Iterator[str]:
    for candidate in items(body, "candidates"):
        for names in QUERIES:
            yield from (text(query) for query in items(candidate, *names))
    for step in items(body, "outputs", "steps"):  # interactions: a step of type google_search_call
        yield from (text(query) for query in items(step, "arguments.queries"))
    yield from (text(query) for query in items(body, "web_queries"))  # what a stream has said so far


def is_prediction(body: object) -> bool:
    """Vertex AI's predict: embeddings with their statistics, or images."""
    return any(_is_known(item) for item in items(body, *PREDICTED))


def _is_known(item: object) -> bool:
    return get(item, "embeddings.statistics") is not None or _is_image(item)


def _is_image(item: object) -> bool:
    """A picture that was made: what a filter took out is not billed, and sound is no picture (imagen, lyria)."""
    kind = text(get(item, "mimeType", "mime_type", "image.mime_type"))
    return get(item, "bytesBase64Encoded", "image", "gcsUri") is not None and (not kind or kind.startswith("image/"))


def prediction(body: object, _provider: str) -> Usage:
    made = items(body, *PREDICTED)
    tokens, counts = 0, Counts(None)
    for item in made:
        part = Counts(item)
        tokens += part.take("embeddings.statistics.token_count")
        counts.found, counts.problem = counts.found or part.found, counts.problem or part.problem
    if counts.found or counts.problem:
        return usage_of(counts, input_tokens=tokens, operation="embeddings")
    return Usage(extra_units={"images": float(sum(map(_is_image, made)))}, operation="image")


def is_embedded(body: object) -> bool:
    return bool(items(body, "embeddings")) and get(items(body, "embeddings")[0], "statistics") is not None


def embedded(body: object, _provider: str) -> Usage:
    """`embedContent` of Vertex AI: each embedding states its own tokens."""
    counts, tokens = Counts(None), 0
    for item in items(body, "embeddings"):
        part = Counts(item)
        tokens += part.take("statistics.token_count", "statistics.tokenCount")
        counts.found, counts.problem = counts.found or part.found, counts.problem or part.problem
    return usage_of(counts, input_tokens=tokens, operation="embeddings")
