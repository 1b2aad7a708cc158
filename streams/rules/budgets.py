"""Budgets: a threshold fires on the one addition that carries the spend from below it to at or above it.

Spend is org-billed cost plus at-risk money in the policy's currency; calls on a user's own key never count.
The period is part of the alert's identity, so nothing is ever reset.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tollmeter.schemas.alert import Severity
from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import Policy
from tollmeter.streams.rules.totals import AT_RISK, COST, SPEND_EUR, SPEND_RUB, Matrix, Vector

_MEASURES = {"USD": (COST, AT_RISK), "EUR": (SPEND_EUR,), "RUB": (SPEND_RUB,)}


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of one policy: money of a scope in a day or a month."""

    policy_id: str
    scope: int
    level: str
    limit_nano: int
    currency: str
    alert_pcts: tuple[int, ...]


def limits_of(policy: Policy, scope: int) -> tuple[Limit, ...]:
    """Return the limits that a policy sets."""
    micros = {"day": policy.daily_limit_micro, "month": policy.monthly_limit_micro}
    return tuple(
        Limit(policy.policy_id, scope, level, micro * NANO_PER_MICRO, policy.currency, policy.alert_pcts)
        for level, micro in micros.items()
        if micro is not None
    )


def spent(values: Matrix, currency: str) -> Vector:
    """Return what counts toward limits of a currency, nano-units, for each row of totals."""
    total: Vector = values[:, list(_MEASURES[currency])].sum(axis=1)
    return total


def crossed(limit: Limit, before_nano: int, after_nano: int) -> list[int]:
    """Return the thresholds (percent) that lie in (before, after], in ascending order; exact integer arithmetic."""
    return [
        pct
        for pct in sorted(set(limit.alert_pcts))
        if before_nano * 100 < pct * limit.limit_nano <= after_nano * 100
    ]  # fmt: skip


def severity(pct: int) -> Severity:
    """Return how urgent a threshold is: the whole budget is critical, from 80 % on a warning."""
    if pct >= 100:
        return "critical"
    return "warning" if pct >= 80 else "info"


class Budgets:
    """The policies of one partition; `watched` tells by scope number who has one."""

    def __init__(self) -> None:
        self.policies: dict[str, Policy] = {}
        self._limits: dict[int, dict[str, tuple[Limit, ...]]] = {}
        self._scope_of: dict[str, int] = {}
        self._watched = np.zeros(64, dtype=bool)

    def set(self, policy: Policy, scope: int) -> tuple[Limit, ...]:
        """Take over a policy and return its limits, which are to be evaluated at once."""
        limits = limits_of(policy, scope)
        self.policies[policy.policy_id] = policy
        self._scope_of[policy.policy_id] = scope
        self._limits.setdefault(scope, {})[policy.policy_id] = limits
        if scope >= self._watched.size:
            grown = np.zeros(max(scope + 1, 2 * self._watched.size), dtype=bool)
            grown[: self._watched.size] = self._watched
            self._watched = grown
        self._watched[scope] = True
        return limits

    def delete(self, policy_id: str) -> None:
        """Forget a policy; an unknown one is no error."""
        if self.policies.pop(policy_id, None) is None:
            return
        scope = self._scope_of.pop(policy_id)
        del self._limits[scope][policy_id]
        if not self._limits[scope]:
            del self._limits[scope]
            self._watched[scope] = False

    def watched(self, scopes: Vector) -> Vector:
        """Return the positions in `scopes` of those that have a policy."""
        inside = scopes < self._watched.size
        mask = np.zeros(scopes.size, dtype=bool)
        mask[inside] = self._watched[scopes[inside]]
        return np.flatnonzero(mask)

    def limits(self, scope: int, level: str) -> Iterator[Limit]:
        """Yield the limits of a scope for one kind of period."""
        for limits in self._limits.get(scope, {}).values():
            yield from (limit for limit in limits if limit.level == level)
