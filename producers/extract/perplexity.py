"""Perplexity: a fee for each request by its search context; deep research bills citations, reasoning and searches.

Where its documentation puts usage: https://docs.perplexity.ai/api-reference/chat-completions-post and
/getting-started/pricing (read 2026-11-29).
"""

from dataclasses import replace

from tollmeter.producers.extract import openai
from tollmeter.producers.extract.usage import UNEXPLAINED_TOKENS, Counts, Usage, get, text

CONTEXT = "usage.search_context_size"
"""low (also where it is not stated), medium or high."""
CITATIONS = "usage.citation_tokens"
SEARCHES = "usage.num_search_queries"
REASONING = "usage.reasoning_tokens"


def is_own(body: object) -> bool:
    return get(body, CONTEXT, CITATIONS, SEARCHES) is not None


def read(body: object, _provider: str) -> Usage:
    """Citations and reasoning lie outside completion_tokens: the total is prompt and completion alone."""
    counts = Counts(body)
    citations, reasoning = counts.take(CITATIONS), counts.take(REASONING)
    usage = openai.chat(body, "perplexity")
    stated = Counts(get(body, "usage"))
    completion = stated.take("completion_tokens")
    extra = {name: value for name, value in usage.extra_units.items() if name != UNEXPLAINED_TOKENS}
    deep = "deep-research" in text(get(body, "model")).lower() or citations > 0
    size = text(get(body, CONTEXT)).lower()
    if size in ("medium", "high") and not deep:
        extra[f"search_context_{size}"] = 1.0
    elif size not in ("", "low", "medium", "high"):
        extra["search_context_other"] = 1.0  # no price for it: PARTIAL
    extra["output_citation_tokens"] = float(citations)
    if deep:
        extra["web_searches"] = float(counts.take(SEARCHES))
    return replace(
        usage,
        output_tokens=completion + reasoning + citations if deep else usage.output_tokens,
        reasoning_tokens=reasoning if deep else usage.reasoning_tokens,
        extra_units={name: value for name, value in extra.items() if value},
        problem=usage.problem or counts.problem,
    )
