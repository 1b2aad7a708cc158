"""What a finding says, in plain words: what happened, how much more than before, and for how much money."""

from collections.abc import Mapping

from tollmeter.schemas.money import used_text

_CALLS = "{calls:,} calls for {cost} USD"
_SAID = {
    "fan_out": "is used from {about}{addresses:,} addresses within ten minutes, {past}: " + _CALLS,
    "error_storm": "had {errors:,} failed calls of {calls:,} within ten minutes, {past}: it looks like retries",
    "same_body": "sent one body about {repeats:,} times within ten minutes, {past}: " + _CALLS,
    "dominance": "takes {share_pct} % of what its organisation spends in this hour, {past}: {cost} of {org_cost} USD",
    "shared_address": "uses {about}{keys:,} keys within ten minutes, {past}: " + _CALLS,
    "new_model": "uses {model}, which it never did before and which is far dearer per token: {cost} USD within this "
    "hour, where a whole day usually costs {usual_day} USD",
    "new_network": "is used from {address}, a network it never was used from: {cost} USD within this hour, where a "
    "whole day usually costs {usual_day} USD",
    "woken": "was silent for {slept_days:,} days and spent {cost} USD within this hour",
    "new_hour": "spent {cost} USD between {hour_of_day}:00 and {hour_of_day}:59 UTC, an hour of the day "
    "in which it was silent for two weeks",
    "cache_lost": "has {cached_pct} % of its input from the cache, usually {usual_cached_pct} %: " + _CALLS,
    "unusual_use": "is beyond its last one to two weeks: {parts}; an hour of {hour} USD, where a whole day is usually "
    "{usual_day} USD",
    "clock_ahead": "has {ahead:,} of {calls:,} calls from the future: the clock of its service is more than five "
    "minutes ahead",
}
_PARTS = (
    "{cost} USD within ten minutes, usually at most {past_cost}",
    "{hour} USD within this hour, usually at most {past_hour}",
    "{per_call} USD a call, usually at most {past_per_call}",
    "{input_per_1000_output:,} input tokens per 1,000 of output, usually at most {past_input_per_1000_output:,}",
    "{cost} USD within ten minutes and more than usual for some time, usually {usual_window}",
    "{minute} USD within this minute, usually at most {past_minute}",
)
"""What is said of each part of a scope's statistics, by its bit in `signals`: of the past, what was learned of it."""
_EXACT = 20
_UNKNOWN = "; some of these calls have no known price and count as what they may cost at most"
KINDS = tuple(_SAID)
"""What WATCH finds."""
_HOURLY = {
    "off_season": "spent {cost} USD within this hour, where the same hour of the week was {usual} USD in four weeks",
    "unlike_peers": "paid {per_call} USD a call in a day, where {peers} other keys that mostly use {model} paid "
    "{peers_per_call}: " + _CALLS,
}
HOURLY = tuple(_HOURLY)
"""What is asked of the ledger once an hour."""
OF_HOURS = ("dominance", "new_model", "new_network", "woken", "new_hour")
"""Kinds whose money is that of an hour; that of the others is of ten minutes."""


def said(kind: str, figures: Mapping[str, object]) -> str:
    """Return what a scope did, to be read behind its name. Raises `KeyError` for a figure that is missing."""
    amounts = {
        name.removesuffix("_nano"): used_text(value)
        for name, value in figures.items()
        if name.endswith("_nano") and isinstance(value, int)
    }
    named = {**figures, **amounts}
    signals = figures.get("signals")
    bits = signals if isinstance(signals, int) else 0
    parts = "; ".join(part.format(**named) for at, part in enumerate(_PARTS) if bits >> at & 1)
    text = (_SAID | _HOURLY)[kind].format(**named, past=_past(figures), parts=parts, about=_about(figures))
    return text + _UNKNOWN if figures.get("unknown_price") else text


def _about(figures: Mapping[str, object]) -> str:
    """Names are counted by the bits that they set: a few are exact."""
    counted = figures.get("addresses", figures.get("keys"))
    return "about " if isinstance(counted, int) and counted > _EXACT else ""


def _past(figures: Mapping[str, object]) -> str:
    if "usual_share_pct" in figures:
        return f"usually {figures['usual_share_pct'] or 'less than 1'} %"
    past, known = figures.get("past_peak", 0), figures.get("has_past")
    if known:
        return f"usually at most {past:,}" if past else "usually none"
    if not past:
        return "with no past to compare"
    return f"at most {past:,} before" if known is None else f"at most {past:,} in its first hours"
