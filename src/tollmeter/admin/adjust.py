"""Limits raised for a time: what commands and pages make of a wish, held against the limits that the policy has now."""

from collections.abc import Iterable
from typing import NamedTuple

from tollmeter.admin.policy_text import amount_text
from tollmeter.broker.policies import PolicyError
from tollmeter.schemas.policy import Adjustment, Limit, Policy
from tollmeter.streams.rules.limits.adjusted import adjusted
from tollmeter.streams.rules.limits.periods import period_of


class Wish(NamedTuple):
    """Who wants limits otherwise, why, and from when until when (milliseconds since 1970 UTC)."""

    by: str
    reason: str
    now_ms: int
    until_ms: int


def raised(policy: Policy, wanted: Iterable[Limit], wish: Wish) -> list[Adjustment]:
    """Return the adjustments that raise these limits. Raises `PolicyError` for one that is none or not higher."""
    known = {limit.key: limit for limit in adjusted(policy, wish.now_ms).all_limits}
    return [
        Adjustment(
            limit=limit.key,
            amount=_higher(known, limit, policy),
            since_ms=wish.now_ms,
            until_ms=wish.until_ms,
            by=wish.by,
            reason=wish.reason,
        )
        for limit in wanted
    ]


def put_back(policy: Policy, wish: Wish) -> list[Adjustment]:
    """Return the adjustments that end now what is raised at present; none where nothing is. Resets stay."""
    raised_now = dict.fromkeys(one.limit for one in policy.adjustments if one.amount and one.until_ms > wish.now_ms)
    return [
        Adjustment(limit=limit, since_ms=wish.now_ms, until_ms=wish.now_ms, by=wish.by, reason=wish.reason)
        for limit in raised_now
    ]


def midnight_ms(policy: Policy, now_ms: int) -> int:
    """Return when the day of the policy's time zone ends, in milliseconds since 1970 UTC."""
    return period_of("day", policy.timezone, now_ms // 1_000)[1] * 1_000


def in_words(limit: Limit) -> str:
    """Return a limit's amount as people write it: an amount of currency, or a count."""
    return amount_text(limit.amount) if limit.measure == "money" else f"{limit.amount:,}"


def _higher(known: dict[str, Limit], wanted: Limit, policy: Policy) -> int:
    limit = known.get(wanted.key)
    if limit is None:
        have = ", ".join(known) or "none"
        raise PolicyError(f"{policy.policy_id} has no limit {wanted.key} to raise; it has {have}")
    if wanted.amount <= limit.amount:
        raise PolicyError(f"{wanted.key} is at {in_words(limit)} now: give more than that")
    return wanted.amount
