"""Limits for a time: an adjustment holds until its end, by itself; what a policy says besides stays as it was written.

Of several amounts in place of a limit's own the last one counts, and so does the last addition.
"""

from collections.abc import Iterable

from tollmeter.schemas.policy import Adjustment, Limit, Policy

NEVER_MS = 1 << 62


def adjusted(policy: Policy, now_ms: int) -> Policy:
    """Return the policy with the limits that hold at a time (milliseconds since 1970 UTC)."""
    active = [adjustment for adjustment in policy.adjustments if now_ms < adjustment.until_ms]
    if not policy.adjustments:
        return policy
    limits = tuple(_adjusted(limit, active) for limit in policy.all_limits)
    plain = {"daily_limit_micro": None, "monthly_limit_micro": None, "adjustments": ()}
    return policy.model_copy(update={**plain, "limits": limits})


def in_force(policies: Iterable[Policy], now_ms: int) -> list[Policy]:
    """Return policies with the limits that hold at a time."""
    return [adjusted(policy, now_ms) for policy in policies]


def next_end_ms(policy: Policy, now_ms: int) -> int:
    """Return when the first of the adjustments that hold now is over."""
    return min((one.until_ms for one in policy.adjustments if now_ms < one.until_ms), default=NEVER_MS)


def _adjusted(limit: Limit, active: Iterable[Adjustment]) -> Limit:
    amount, added = limit.amount, 0
    for adjustment in active:
        if adjustment.limit == limit.key:
            amount = adjustment.amount or amount
            added = adjustment.added or added
    return limit if amount + added == limit.amount else limit.model_copy(update={"amount": amount + added})
