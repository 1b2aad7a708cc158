"""Fields of an event out of an application's hands: what fits is kept, what cannot is left out and named, never raised.

Pure. A value is cleaned to what the event takes: texts are cut and lone surrogates replaced, times without a zone are
UTC, numbers out of bounds and unknown words are left out.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, get_args

from tollmeter.producers.extract.usage import amount
from tollmeter.schemas import event as schema
from tollmeter.schemas.event import MAX_TAG_CHARS, MAX_TAGS, UsageEvent
from tollmeter.schemas.money import MAX_EVENT_NANO

MAX_CHARS = 256
MAX_INT = 2**31 - 1
LEFT_OUT = "left_out_fields"
"""Tag of an event: names of the fields whose values no event takes."""

_WORDS = {
    "billing_scope": frozenset(get_args(schema.BillingScope)),
    "processing": frozenset(get_args(schema.Processing)),
    "status": frozenset(get_args(schema.CallStatus)),
    "usage_source": frozenset(get_args(schema.UsageSource)),
}
_COUNTS = (
    *("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
_INTEGERS = {
    **dict.fromkeys(("http_status", "latency_ms", "ttft_ms", "prompt_chars"), MAX_INT),
    **dict.fromkeys(("est_cost_nano", "reported_cost_nano"), MAX_EVENT_NANO),
    **dict.fromkeys(_COUNTS, schema.MAX_TOKENS),
}


def cleaned(fields: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields that an event takes; the names of the others stand in the tag `left_out_fields`.

    Raises `ValueError` for a name that no event has: that is a mistake in the program, not in its data.
    """
    unknown = sorted(fields.keys() - UsageEvent.model_fields.keys())
    if unknown:
        raise ValueError(f"no such field of a usage event: {', '.join(map(str, unknown))}")
    kept: dict[str, Any] = {}
    left_out = []
    for name, value in fields.items():
        if value is None:
            continue
        try:
            clean = _cleaner(name)(value)
        except Exception:  # a value may do anything when it is looked at
            clean = None
        if clean is None:
            left_out.append(name)
        else:
            kept[name] = clean
    if left_out:
        kept["tags"] = with_tag(kept.get("tags", {}), LEFT_OUT, ",".join(sorted(left_out)))
    return kept


def with_tag(tags: Mapping[str, str], name: str, value: str) -> dict[str, str]:
    """Return the tags with one of our own, which takes the place of the last where there are too many."""
    others = [(key, one) for key, one in tags.items() if key != name][: MAX_TAGS - 1]
    return {**dict(others), name: value[:MAX_TAG_CHARS]}


def clean_text(value: object, most: int = MAX_CHARS) -> str | None:
    """Return a value as text that UTF-8 can hold, cut; None for what has no text of its own."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        kind = type(value)
        if kind.__str__ is object.__str__ or isinstance(value, Mapping | list | tuple | set):
            return None
        value = str(value)
    return str(value)[:most].encode("utf-8", "replace").decode("utf-8")


@lru_cache(maxsize=256)
def _cleaner(name: str) -> Callable[[object], object]:
    if name in _WORDS:
        return lambda value: word if (word := str(value).upper()) in _WORDS[name] else None
    if name in _INTEGERS:
        return lambda value: _integer(value, _INTEGERS[name])
    special: dict[str, Callable[[Any], Any]] = {
        "occurred_at": clean_time,
        "stream": lambda value: value if isinstance(value, bool) else None,
        "tags": _tags,
        "extra_units": _units,
    }
    return special.get(name, clean_text)


def _integer(value: object, most: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(value) if 0 <= value <= most else None


def clean_time(value: object) -> datetime | None:
    """Return an aware UTC time; one without a zone is UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _tags(value: object) -> dict[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    pairs = ((clean_text(name, MAX_TAG_CHARS), clean_text(item, MAX_TAG_CHARS)) for name, item in value.items())
    return dict([(name, item) for name, item in pairs if name and item is not None][:MAX_TAGS])


def _units(value: object) -> dict[str, float] | None:
    if not isinstance(value, Mapping):
        return None
    pairs = ((clean_text(name), amount(item)) for name, item in value.items())
    return {name: float(item) for name, item in pairs if name and item is not None}
