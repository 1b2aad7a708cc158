"""DeepSeek: like OpenAI, with the prompt split into what the cache held and what it did not.

Where its documentation puts usage: https://api-docs.deepseek.com/api/create-chat-completion (read 2026-11-29).
"""

from dataclasses import replace

from tollmeter.producers.extract import openai
from tollmeter.producers.extract.usage import Counts, Usage, get

HIT, MISS = "usage.prompt_cache_hit_tokens", "usage.prompt_cache_miss_tokens"


def is_own(body: object) -> bool:
    return get(body, HIT, MISS) is not None


def read(body: object, _provider: str) -> Usage:
    """The parts stand for the prompt where it is left out."""
    usage, counts = openai.chat(body, "deepseek"), Counts(body)
    parts = counts.take(HIT) + counts.take(MISS)
    return replace(
        usage,
        input_tokens=max(usage.input_tokens, parts),
        stated=usage.stated or counts.found,
        problem=usage.problem or counts.problem,
    )
