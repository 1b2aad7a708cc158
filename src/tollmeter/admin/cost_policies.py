"""Cost policies as clients of the API know them: one of each organisation, group and user, in integer micro-EUR.

They limit each member. A limit of zero or less is no limit, a warn threshold of zero or less is the default: both are
mended here, once, and never enter the resolution. What a policy holds beyond these fields is kept.
"""

from typing import Literal

from pydantic import ValidationError

from tollmeter.broker.policies import PolicyError, Rules, delete_policy, read_rules, set_policy
from tollmeter.schemas.policy import DEFAULT_WARN_PCT, Applies, Policy
from tollmeter.settings import Settings

CURRENCY: Literal["EUR"] = "EUR"
Scope = Literal["org", "group", "user"]


def upsert_cost_policy(
    settings: Settings,
    org_id: str,
    scope: Scope,
    name: str = "",
    *,
    daily_limit_micro_eur: int | None = None,
    monthly_limit_micro_eur: int | None = None,
    warn_threshold_pct: int = 0,
) -> Policy:
    """Put the limits in force and return the policy as it is kept. Raises `PolicyError`."""
    before = find_cost_policy(read_rules(settings), org_id, scope, name)
    fields = {
        "daily_limit_micro": _limit(daily_limit_micro_eur),
        "monthly_limit_micro": _limit(monthly_limit_micro_eur),
        "warn_threshold_pct": warn_threshold_pct if warn_threshold_pct > 0 else DEFAULT_WARN_PCT,
    }
    try:
        policy = Policy.model_validate(before.model_dump() | fields)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise PolicyError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    set_policy(settings, policy)
    return policy


def get_cost_policy(settings: Settings, org_id: str, scope: Scope = "org", name: str = "") -> Policy:
    """Return the policy in force; where none is, one without limits. Raises `PolicyError`."""
    return find_cost_policy(read_rules(settings), org_id, scope, name)


def delete_cost_policy(settings: Settings, org_id: str, scope: Scope, name: str = "") -> None:
    """Return when the policy is gone; an absent one is no error. Raises `PolicyError`, always for an organisation's."""
    if scope == "org":
        raise PolicyError("cannot delete org policy")
    delete_policy(settings, org_id, _empty(org_id, scope, name).policy_id)


def find_cost_policy(rules: Rules, org_id: str, scope: Scope, name: str) -> Policy:
    """Return the policy of a scope among the rules; where none is, one without limits. Raises `PolicyError`."""
    default = _empty(org_id, scope, name)
    return rules.policies.get(default.policy_id, default)


def _empty(org_id: str, scope: Scope, name: str) -> Policy:
    """Return the policy of a scope without limits; a user's own one needs no members to apply to."""
    applies: Applies = "pool" if scope == "user" else "each_member"
    try:
        return Policy(org_id=org_id, scope=scope, name=name, currency=CURRENCY, applies=applies)
    except ValidationError as error:
        raise PolicyError(error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")) from None


def _limit(micro_eur: int | None) -> int | None:
    return micro_eur if micro_eur is not None and micro_eur > 0 else None
