"""When an alert is over: a budget's with its period or its limit, an anomaly's after quiet."""

from collections.abc import Iterable, Mapping

from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.rules.limits.periods import period_name, period_of

Changes = Mapping[str, Policy | None]
"""Policies by id as they are now; None for one that is gone."""
STEPS = frozenset({"budget", "remaining"})
"""Kinds whose alerts are steps of a limit: each counts for itself, none repeats another, all end with the period."""
MOMENTS = frozenset(
    {
        "late_spend",
        "cap_refused",
        "rate_limited",
        "blocked",
        "model_not_allowed",
        "gap",
        "new_epoch",
        "storm",
        "report",
        "digest",
    }
)
"""Kinds that tell of something that happened: nothing to recover from, they close without a word."""

CHANGED = "the limit was changed"
PERIOD_OVER = "its period is over"


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


def ended(notices: Iterable[Notice], changes: Changes) -> list[tuple[Notice, str, bool]]:
    """Return the notices whose limit is not in force any more, why, and if people hear: once per limit, of its top."""
    over: dict[tuple[str, ...], list[tuple[int, Notice, str]]] = {}
    for notice in _about(notices, changes):
        if resolution := changed_limit(notice, changes[_policy_id(notice)]):
            over.setdefault(_limit(notice), []).append((_step(notice), notice, resolution))
    return [
        (notice, resolution, step == max(entry[0] for entry in steps))
        for steps in over.values()
        for step, notice, resolution in steps
    ]


def in_force_again(notices: Iterable[Notice], changes: Changes, now_s: float) -> list[Notice]:
    """Return of each limit that was gone, and is back within its period, the last notice of the highest step.

    What was used in a period only grows, so that the step is still crossed. That of rolling hours falls, too.
    """
    tops: dict[tuple[str, ...], tuple[tuple[int, int], Notice]] = {}
    for notice in _about(notices, changes):
        if changed_limit(notice, changes[_policy_id(notice)]) or is_rolling(notice) or ends_s(notice) <= now_s:
            continue
        rank, limit = (_step(notice), notice.opening), _limit(notice)
        if limit not in tops or rank > tops[limit][0]:
            tops[limit] = rank, notice
    return [notice for _, notice in tops.values() if lost_its_limit(notice)]


def lost_its_limit(notice: Notice) -> bool:
    """Tell whether a step of a limit was resolved because the limit was changed or gone."""
    return notice.kind in STEPS and notice.state == "resolved" and notice.resolution != PERIOD_OVER


def is_rolling(notice: Notice) -> bool:
    """Tell whether a notice is about rolling hours."""
    return str(notice.facts.get("window")).startswith("rolling")


def _about(notices: Iterable[Notice], changes: Changes) -> list[Notice]:
    return [notice for notice in notices if notice.kind in STEPS and _policy_id(notice) in changes]


def _policy_id(notice: Notice) -> str:
    return str(notice.facts.get("policy_id"))


def _limit(notice: Notice) -> tuple[str, ...]:
    facts = notice.facts
    return (_policy_id(notice), notice.kind, *notice.scope, str(facts.get("window")), str(facts.get("period")))


def _step(notice: Notice) -> int:
    step = notice.facts.get("threshold_pct")
    return step if isinstance(step, int) else 0


def _amount(limit: Limit) -> int:
    return limit.amount * NANO_PER_MICRO if limit.measure == "money" else limit.amount
