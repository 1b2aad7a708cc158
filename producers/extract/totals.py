"""Counters made whole: parents hold their children, parts of one session add up, and no sum leaves its bounds."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tollmeter.producers.extract.usage import OTHER_TOKENS, UNEXPLAINED_TOKENS, Counts, Part, Usage
from tollmeter.schemas.event import MAX_TOKENS

DRAWN = "generated_images"
"""Unit of images that another model drew within a call, at nobody knows what."""
_COUNTERS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
)


def usage_of(
    counts: Counts,
    extra: dict[str, float] | None = None,
    *,
    input_tokens: int = 0,
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
    cache_write_1h_tokens: int = 0,
    output_tokens: int = 0,
    reasoning_tokens: int = 0,
    operation: str = "chat",
) -> Usage:
    """Return the usage that was read; nothing was stated where the reader found nothing."""
    held = input_tokens if cache_read_tokens + cache_write_tokens <= input_tokens else input_tokens + cache_read_tokens
    kinds = _cached_kinds(extra or {}, held, cache_read_tokens)
    units = {name: value for name, value in kinds.items() if value}
    return Usage(
        input_tokens,
        cache_read_tokens,
        cache_write_tokens,
        cache_write_1h_tokens,
        output_tokens,
        reasoning_tokens,
        units,
        stated=counts.found or bool(units),
        operation=operation,
        problem=counts.problem,
    )


def _cached_kinds(extra: dict[str, float], input_: int, read: int) -> dict[str, float]:
    """Return the units with what of sound and images was cached, where the answer does not say it.

    As much of the cached input is sound as finds no room in the rest. What may be either is unexplained: cached sound
    and cached text have prices of their own.
    """
    heard = extra.get("input_audio_tokens", 0.0)
    if not read or "cache_audio_read_tokens" in extra or not (heard or extra.get("input_image_tokens")):
        return extra
    short = max(heard + extra.get("input_image_tokens", 0.0) + read - input_, 0.0)
    sound = min(max(heard + read - input_, 0.0), heard)
    seen = min(max(short - sound, 0.0), extra.get("input_image_tokens", 0.0))
    made = {"cache_audio_read_tokens": sound, "cache_image_read_tokens": seen, **extra}
    doubtful = min(heard, float(read)) - sound
    return made | ({UNEXPLAINED_TOKENS: extra.get(UNEXPLAINED_TOKENS, 0.0) + doubtful} if doubtful > 0 else {})


def whole(usage: Usage) -> Usage:
    """Make parents hold their children: a child above its parent can only mean that the parent leaves it out."""
    input_, output = usage.input_tokens, usage.output_tokens
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    if cached > input_:
        input_ += cached
    if usage.reasoning_tokens > output:
        output += usage.reasoning_tokens
    hour = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
    extra = {name: float(value) for name, value in usage.extra_units.items() if value}
    made = replace(
        usage, input_tokens=input_, output_tokens=output, cache_write_1h_tokens=hour, extra_units=_within(extra, input_)
    )
    return _bounded(made)


def _within(extra: dict[str, float], input_: int) -> dict[str, float]:
    """Leave cached audio and the like out where their whole does not hold them: the difference would be a credit."""
    kept = dict(extra)
    for kind in ("audio", "image", "video"):
        cached = f"cache_{kind}_read_tokens"
        if kept.get(cached, 0) > kept.get(f"input_{kind}_tokens", 0):
            del kept[cached]
        if kept.get(f"input_{kind}_tokens", 0) > input_:
            kept[f"input_{kind}_tokens"] = float(input_)
    return kept


def _bounded(usage: Usage) -> Usage:
    for name in _COUNTERS:
        if getattr(usage, name) > MAX_TOKENS and not usage.problem:
            return replace(usage, problem=f"{name}: too large")
    return usage


def overlapping(input_: int, read: int, write: int) -> int:
    """Return what was newly written where a longer write to the cache includes the prefix that was read from it."""
    if read + write <= input_:
        return write
    return write - read if write >= read else input_ - read


def summed(usages: Sequence[Usage]) -> Usage:
    """Return the usage of several answers of one session, model and tier."""
    if len(usages) == 1:
        return usages[0]
    extra: dict[str, float] = {}
    for usage in usages:
        for name, value in usage.extra_units.items():
            extra[name] = extra.get(name, 0.0) + value
    costs = [usage.reported_cost_nano for usage in usages if usage.stated]
    first = next((usage for usage in usages if usage.stated), usages[0])
    return _bounded(
        Usage(
            **{name: sum(getattr(usage, name) for usage in usages) for name in _COUNTERS},
            extra_units=extra,
            reported_cost_nano=None if None in costs else sum(cost or 0 for cost in costs),
            stated=any(usage.stated for usage in usages),
            operation=first.operation,
            problem=next((usage.problem for usage in usages if usage.problem), ""),
            others=tuple(part for usage in usages for part in usage.others),
        )
    )


def with_others(usage: Usage, others: Iterable[Part]) -> Usage:
    """Return the usage of one event for a call of several models: what others did makes its cost PARTIAL, not more."""
    others = list(others)
    tokens = sum(part.usage.input_tokens + part.usage.output_tokens or 1 for part in others)
    drawn = sum(part.usage.extra_units.get(DRAWN, 0.0) for part in others)
    found = {OTHER_TOKENS: float(tokens), DRAWN: usage.extra_units.get(DRAWN, 0.0) + drawn}
    return (
        usage if not tokens else replace(usage, extra_units=usage.extra_units | {k: v for k, v in found.items() if v})
    )
