"""When an alert is over: a budget's with its period or its limit, an anomaly's after quiet."""

from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.rules.limits.periods import period_name, period_of

STEPS = frozenset({"budget", "remaining"})
"""Kinds whose alerts are steps of a limit: each counts for itself, none repeats another, all end with the period."""
MOMENTS = frozenset(
    {
        "late_spend",
        "cap_refused",
        "rate_limited",
        "blocked",
        "gap",
        "new_epoch",
        "storm",
        "report",
        "digest",
    }
)
"""Kinds that tell of something that happened: nothing to recover from, they close without a word."""

CHANGED = "the limit was changed"


def recovers(kind: str) -> bool:
    """Tell whether people are told when an alert of this kind is over."""
    return kind not in MOMENTS


def ends_s(notice: Notice) -> float:
    """Return when the period of a budget's alert is over."""
    facts = notice.facts
    if isinstance(facts.get("ends_s"), int):
        return float(facts["ends_s"])
    window, zone = str(facts.get("window", "")), str(facts.get("timezone") or "UTC")
    at = int(notice.raised_s)
    try:
        start, end = period_of(window, zone, at)
        if window.startswith("rolling"):
            return at + float(end - start)
        # received just behind midnight, but charged to the period before
        return float(end if facts.get("period") in ("", None, period_name(window, zone, at)) else start)
    except (LookupError, ValueError, OverflowError, OSError):  # a period or a zone that this version does not know
        return notice.raised_s + 31 * 86_400


def changed_limit(notice: Notice, policy: Policy | None) -> str:
    """Return what happened to the limit that an alert is about; empty while it is in force."""
    if policy is None:
        return "the policy is gone"
    facts = notice.facts
    key = f"{facts.get('window')}/{'money' if 'limit_nano' in facts else facts.get('unit')}"
    for limit in policy.all_limits:
        if limit.key == key:
            return "" if _amount(limit) == facts.get("limit_nano", facts.get(f"limit_{limit.measure}")) else CHANGED
    return f"there is no limit {key} any more"


def _amount(limit: Limit) -> int:
    return limit.amount * NANO_PER_MICRO if limit.measure == "money" else limit.amount
