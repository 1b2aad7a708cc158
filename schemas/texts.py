"""Values from outside, made fit for an event and for a comparison: as text, clean, and no longer than it may be.

Whoever passes on what his users sent must not lose an event, or slip past a block, because of it.
"""

import math
from collections.abc import Mapping

from tollmeter.schemas.event import MAX_TAG_CHARS, MAX_TAGS, MAX_TOKENS

MAX_TEXT_CHARS = 256


def clean_text(value: object, most: int = MAX_TEXT_CHARS) -> str:
    """Return a value as text of at most so many characters; a lone surrogate is a question mark. Never raises."""
    try:
        text = value if type(value) is str else "" if value is None else str(value)
    except Exception:  # a value whose own code fails is no name
        return ""
    text = text[:most]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def clean_tags(tags: object) -> dict[str, str]:
    """Return the first tags, as many and as long as an event holds; what is no mapping has none. Never raises."""
    if not isinstance(tags, Mapping):
        return {}
    kept: dict[str, str] = {}
    for name, value in tags.items():
        if len(kept) == MAX_TAGS:
            break
        kept[clean_text(name, MAX_TAG_CHARS)] = clean_text(value, MAX_TAG_CHARS)
    return kept


def worst_count(value: object) -> int | None:
    """Return a count of tokens for limits: None stays None, and what is no count is the most that an event holds.

    A negative count would be a credit, and one that cannot be read must not be taken for nothing.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:20])
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != value:
        return MAX_TOKENS
    return MAX_TOKENS if value >= MAX_TOKENS else math.ceil(value)
