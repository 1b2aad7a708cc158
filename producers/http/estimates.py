"""What a provider leaves unsaid about its usage is estimated from characters, and marked as an estimate.

Pure. Four characters are a token, as in the check before the call, unless a tokenizer is given. What the provider did
state stays: an estimate only fills what is missing, and never lowers a count.
"""

from typing import Any

from tollmeter.producers.extract.asked import of_variant
from tollmeter.producers.extract.openai_media import UNSTATED
from tollmeter.producers.extract.usage import get, items
from tollmeter.schemas.event import MAX_TOKENS, UsageEvent

CHARS_PER_TOKEN = 4
SPOKEN_TOKENS, SPOKEN_CHARS = 1_250, 900
"""Tokens of audio in a minute (0.015 USD at 12 USD per million: https://developers.openai.com/api/docs/pricing, read
2026-11-29), and the characters that are spoken in it."""


def tokens(chars: int) -> int:
    """Return how many tokens so many characters are, rounded up."""
    return min(-(-chars // CHARS_PER_TOKEN), MAX_TOKENS)


def reply_chars(part: object) -> int:
    """Return how many characters of answer stand in a whole answer or one chunk of a stream."""
    found = 0
    for choice in items(part, "choices"):
        found += _len(get(choice, "text"))
        for name in ("message", "delta"):
            found += _said(get(choice, name))
    for candidate in items(part, "candidates"):
        found += sum(_len(get(piece, "text")) for piece in items(candidate, "content.parts"))
    for block in items(part, "content", "output"):
        found += _said(block)
    found += _said(get(part, "message"))  # Ollama; Anthropic's message_start holds no text yet
    found += _len(get(part, "response"))  # Ollama's generate
    found += _delta(part)
    return found


def _delta(part: object) -> int:
    delta = get(part, "delta")
    if isinstance(delta, str):  # response.output_text.delta and its like
        return len(delta)
    return sum(_len(get(delta, name)) for name in ("text", "partial_json", "thinking"))


def _said(block: object) -> int:
    """Return the characters of one message or block, its thoughts and the arguments of its tool calls."""
    found = sum(_len(get(block, name)) for name in ("content", "text", "reasoning_content", "thinking", "arguments"))
    found += sum(_len(get(inner, "text")) for inner in items(block, "content"))
    calls = items(block, "tool_calls")
    return found + sum(_len(get(call, "function.arguments")) for call in calls)


def _len(value: object) -> int:
    return len(value) if isinstance(value, str) else 0


def with_variant(event: UsageEvent, variant: str | None) -> UsageEvent:
    """Return the event of images with the quality and size that were asked for, where the answer does not say them."""
    if UNSTATED not in event.extra_units:
        return event
    return event.model_copy(update={"extra_units": of_variant(event.extra_units, variant)})


def filled(event: UsageEvent, input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """Return the fields that turn an event's counters into an estimate, given guesses of the whole input and output."""
    if event.operation == "speech":  # the sound that is the answer cannot be read: the text tells its length
        output_tokens = -(-(event.prompt_chars or 0) * SPOKEN_TOKENS // SPOKEN_CHARS)
    return {
        "usage_source": "ESTIMATED",
        "input_tokens": event.input_tokens or min(input_tokens, MAX_TOKENS),
        "output_tokens": max(event.output_tokens, min(output_tokens, MAX_TOKENS)),
    }
