"""Broken rules of defaults, sessions and runs."""

from typing import Any

from tollmeter.streams.rules.limits.bindings import Budgets
from tollmeter.streams.rules.limits.policies import Budget, budgets_of

_of_member = Budgets._of_member


def shared_alone(org: Any, kind: str) -> bool:
    """Only what an organisation or group sets for each user holds for members: defaults bind nobody."""
    return kind == "user" and bool(org.shared)


def both_hold(self: Budgets, org_id: str, kind: str, name: str) -> tuple[Budget, ...]:
    """A default holds beside the policy that a member has of its own."""
    defaults = self._org(org_id).defaults.get(kind, {}).values()
    more = tuple(budget for policy in defaults for budget in budgets_of(policy, kind, name, policy.warn_threshold_pct))
    own = _of_member(self, org_id, kind, name)
    return own if any(budget in own for budget in more) else own + more


def at_once(_level: str, _bucket: int, _sealed_s: int) -> bool:
    """Sessions are forgotten as soon as a checkpoint has them."""
    return True


def nobody_new(_backfill: Any, _totals: Any) -> set[Any]:
    """What a session used before its policy was set counts only if it calls again before the backfill."""
    return set()


def one_level(_budget: Budget) -> str:
    """Totals of sessions are looked for where those of keys are."""
    return "day"
