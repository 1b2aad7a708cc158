"""Cohere: what is billed stands apart from what was counted, and rerank and classify bill no tokens.

Where its documentation puts usage: https://docs.cohere.com/reference (v1 `meta`, v2 `usage`; read 2026-11-29).
"""

from tollmeter.producers.extract.totals import usage_of
from tollmeter.producers.extract.usage import Counts, Usage, get

BILLED = ("usage.billed_units", "usage.billedUnits", "meta.billed_units", "meta.billedUnits")
COUNTED = ("usage.tokens", "meta.tokens")
"""Only where nothing billed is stated."""


def is_cohere(body: object) -> bool:
    return get(body, *BILLED, "meta.tokens", "usage.tokens.input_tokens", "usage.tokens.output_tokens") is not None


def cohere(body: object, _provider: str) -> Usage:
    counts = Counts(get(body, *BILLED) if get(body, *BILLED) is not None else get(body, *COUNTED))
    searches = counts.take("search_units", "searchUnits")
    reranks = get(body, "results") is not None
    units = {
        "rerank_searches" if reranks or not counts.has("output_tokens") else "web_searches": float(searches),
        "classifications": float(counts.take("classifications")),
        "input_images": float(counts.take("images")),
    }
    embedded = get(body, "embeddings") is not None
    seen = counts.take("image_tokens", "imageTokens")  # beside input_tokens, at a price of their own (2026-11-30)
    units["input_image_tokens"] = float(seen)
    if seen:
        del units["input_images"]
    return usage_of(
        counts,
        units,
        input_tokens=counts.take("input_tokens", "inputTokens") + seen,
        output_tokens=counts.take("output_tokens", "outputTokens"),
        operation="rerank" if reranks and searches else "embeddings" if embedded else "chat",
    )
