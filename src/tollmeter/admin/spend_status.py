"""Spend status: what a user spent today and this month against his limits, in integer micro-EUR.

One function for every place that shows it. Amounts come from the ledger and count as limits do: org-billed cost and,
where that is unknown, money at risk. They are summed in nano-EUR and rounded once: used up, so remaining goes down.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from tollmeter.admin.scope_use import FX_WORDS, Fx, Use, span, use_of
from tollmeter.admin.unrated import MARGIN_PCT, counted, is_unrated, last_rates
from tollmeter.broker.policies import Rules
from tollmeter.producers.guard.decision import CallRefused, CostLimitExceeded
from tollmeter.producers.guard.refusals import UNRATED, budget_unknown, limit_text
from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.limits.adjusted import in_force
from tollmeter.streams.rules.limits.periods import period_of
from tollmeter.streams.rules.limits.policies import Budget, effective, pool_limits

_LABEL_LENGTH = 8
_DEAREST = 20
"""So many keys have a row of their own."""
OTHER = "other"


class UserNotFoundError(LookupError):
    """Nobody knows the user: not in the membership, and never seen in an event."""

    def __init__(self) -> None:
        super().__init__("user not found")


class ProviderKey(BaseModel):
    """What one key took this month, apart by who pays."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    label: str
    cost_month_micro_eur: int
    cost_month_eur: float
    billing_scope: Literal["ORG", "USER"]


class BindingLimit(BaseModel):
    """One limit that binds the user's calls, in its own unit: nano-units of a currency, tokens or requests."""

    model_config = ConfigDict(frozen=True)

    policy_id: str
    applies: str
    scope: str
    name: str
    period: str
    unit: str
    limit: int
    used: int
    remaining: int
    percent: int
    fx: Fx | None = None


class SpendStatus(BaseModel):
    """The fields that clients know; `document` leaves out what is absent.

    Amounts in micro-EUR are compared with limits in EUR alone. `limits` are all that bind, in their own currencies, the
    one that is used most first; `applies` is that one's.
    """

    model_config = ConfigDict(frozen=True)

    cost_used_today_micro_eur: int
    cost_limit_today_micro_eur: int | None = None
    cost_used_month_micro_eur: int
    cost_limit_month_micro_eur: int | None = None
    cost_remaining_today_micro_eur: int | None = None
    cost_remaining_month_micro_eur: int | None = None
    warn_threshold_pct: int
    currency: Literal["EUR"] = "EUR"
    billing_scope_org: bool
    by_provider_keys: tuple[ProviderKey, ...] | None = None
    requests_used_today: int
    tokens_used_month: int
    # Deprecated: no limit of their kind exists here, and clients expect the fields.
    requests_limit: int = 0
    tokens_limit: int = 0
    requests_remaining: int = 0
    tokens_remaining: int = 0
    applies: str | None = None
    fx: Fx | None = None
    """Of the amounts in EUR."""
    limits: tuple[BindingLimit, ...] | None = None

    def fx_lines(self) -> list[str]:
        """Say what is to be said of the exchange rates in these amounts, a line for each currency."""
        marks = {limit.unit: limit.fx for limit in self.limits or ()} | ({"EUR": self.fx} if self.fx else {})
        return [f"{currency}: {FX_WORDS[mark]}" for currency, mark in marks.items() if mark]

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON carries them."""
        return self.model_dump(mode="json", exclude_none=True)


class _Window(NamedTuple):
    use: Use
    period: tuple[int, int]
    used_micro: int
    limit_micro: int | None
    remaining_micro: int | None


def is_known(ledger: ClickHouse, rules: Rules, org: str, user: str) -> bool:
    """Return whether the user is in the membership or was seen in an event. Raises `Unavailable`."""
    return rules.groups.knows(org, user) or bool(seen_users(ledger, org, [user]))


def seen_users(ledger: ClickHouse, org: str, users: Collection[str]) -> set[str]:
    """Return which of these users were seen in an event; who has no name is nobody. Raises `Unavailable`."""
    wanted = sorted(set(users) - {""})
    if not wanted:
        return set()
    rows = ledger.query(load("users_seen"), {"org": org, "users": wanted, "count": len(wanted)})
    return {row["user_id"] for row in rows}


def spend_status(
    ledger: ClickHouse, rules: Rules, org: str, user: str, now: datetime, *, billing_scope_org: bool = True
) -> SpendStatus:
    """Return the status of a user. Raises `UserNotFoundError`, `Unavailable`.

    With `billing_scope_org` false it tells what the user spent on his own keys: no limit concerns that, and what would
    remain of the limits is said all the same. Of limits in several time zones the one with the least remaining is
    shown, with its own day or month; without a limit it is UTC. Requests and tokens are all the user's, whoever pays.
    """
    if not is_known(ledger, rules, org, user):
        raise UserNotFoundError
    at_s = int(now.timestamp())
    found = effective(in_force(rules.policies.values(), at_s * 1_000), org, user, rules.groups.of(org, user))

    def window(kind: str) -> _Window:
        limits = [budget for budget in found.budgets if budget.unit == "EUR" and budget.limit.window == kind]
        return _tightest(ledger, (org, user), kind, limits, at_s, own_keys=not billing_scope_org)

    today, month = window("day"), window("month")
    limits = binding_limits(ledger, rules, org, user, at_s) if billing_scope_org else []
    others = {
        kind: use_of(ledger, org, "user", user, shown.period, own_keys=billing_scope_org)
        for kind, shown in (("day", today), ("month", month))
    }
    return SpendStatus(
        cost_used_today_micro_eur=today.used_micro,
        cost_limit_today_micro_eur=today.limit_micro if billing_scope_org else None,
        cost_used_month_micro_eur=month.used_micro,
        cost_limit_month_micro_eur=month.limit_micro if billing_scope_org else None,
        cost_remaining_today_micro_eur=today.remaining_micro,
        cost_remaining_month_micro_eur=month.remaining_micro,
        warn_threshold_pct=found.warn_threshold_pct,
        billing_scope_org=billing_scope_org,
        by_provider_keys=_provider_keys(ledger, org, user, month.period) or None,
        requests_used_today=today.use.requests + others["day"].requests,
        tokens_used_month=month.use.tokens + others["month"].tokens,
        applies=limits[0].applies if limits else None,
        fx=_worse(today.use.fx("EUR"), month.use.fx("EUR")),
        limits=tuple(limits) or None,
    )


def binding_limits(ledger: ClickHouse, rules: Rules, org: str, user: str, at_s: int) -> list[BindingLimit]:
    """Return what limits the user's calls on the organisation's keys, most used first. Raises `Unavailable`.

    Those are his own limits and the pools of the organisation and of his groups. Limits of a key, a model or an address
    depend on the call: `policy explain` shows them.
    """
    found = [_binding(budget, use) for budget, use in used_limits(ledger, rules, org, user, at_s)]
    return sorted(found, key=lambda limit: (-limit.percent, limit.policy_id, limit.period, limit.unit))


def used_limits(ledger: ClickHouse, rules: Rules, org: str, user: str, at_s: int) -> list[tuple[Budget, Use]]:
    """Return the limits of `binding_limits` as they were resolved, with all that is used. Raises `Unavailable`."""
    groups = rules.groups.of(org, user)
    policies = in_force(rules.policies.values(), at_s * 1_000)
    pools = pool_limits(policies, org, {("group", group) for group in groups})
    found = []
    for budget in (*effective(policies, org, user, groups).budgets, *pools):
        period = period_of(budget.limit.window, budget.timezone, at_s)
        found.append((budget, use_of(ledger, org, budget.scope, budget.name, period)))
    return found


def _worse(*marks: Fx | None) -> Fx | None:
    return "none" if "none" in marks else "stale" if "stale" in marks else None


def _binding(budget: Budget, use: Use) -> BindingLimit:
    used = use.of(budget.unit)
    return BindingLimit(
        policy_id=budget.policy_id,
        applies=budget.applies,
        scope=budget.scope,
        name=budget.name,
        period=budget.period,
        unit=budget.unit,
        limit=budget.amount,
        used=used,
        remaining=max(0, budget.amount - used),
        percent=used * 100 // budget.amount,
        fx=use.fx(budget.unit),
    )


def assert_available(
    ledger: ClickHouse,
    rules: Rules,
    org: str,
    user: str,
    now: datetime,
    *,
    billing_scope: str = "ORG",
    fail: Literal["open", "closed"] = "open",
    margin_pct: int = MARGIN_PCT,
) -> None:
    """Return when the user may spend. Raises `CostLimitExceeded`, `CallRefused`, `UserNotFoundError`, `Unavailable`.

    A call on the user's own key passes before anybody asks who the user is. Of several used-up limits the daily one of
    cost is named first, then the monthly one. Calls that miss in a currency for want of an exchange rate count by the
    last one known and `margin_pct`, as in the guard. `fail` is the guards' setting: a limit in a currency for which no
    rate is known, or of whose calls some miss, refuses with `budget_unknown` when `closed`.
    """
    if billing_scope == "USER":
        return
    if not is_known(ledger, rules, org, user):
        raise UserNotFoundError
    used = used_limits(ledger, rules, org, user, int(now.timestamp()))
    rates = last_rates(ledger, used, now)
    used_up = [one.limit for one, use in used if counted(one, use, rates, margin_pct) >= one.limit.amount]
    if used_up:
        raise CostLimitExceeded(limit_text(min(used_up, key=lambda limit: (limit.measure != "money", limit.period))))
    if fail == "closed" and is_unrated(used, rates):
        raise CallRefused(budget_unknown(None, UNRATED))


def _tightest(
    ledger: ClickHouse, who: tuple[str, str], kind: str, limits: Sequence[Budget], at_s: int, *, own_keys: bool
) -> _Window:
    def measured(zone: str, limit_micro: int | None) -> _Window:
        period = period_of(kind, zone, at_s)
        use = use_of(ledger, who[0], "user", who[1], period, own_keys=own_keys)
        used = -(-use.eur_nano // NANO_PER_MICRO)
        return _Window(use, period, used, limit_micro, None if limit_micro is None else max(0, limit_micro - used))

    if not limits:
        return measured("UTC", None)
    windows = [measured(budget.timezone, budget.limit.amount) for budget in limits]
    return min(windows, key=lambda window: (window.remaining_micro or 0, window.limit_micro))


def _provider_keys(ledger: ClickHouse, org: str, user: str, month: tuple[int, int]) -> tuple[ProviderKey, ...]:
    """Return the dearest keys, and as one more row what all the others took: the rows add up to the month."""
    rows = ledger.query(load("provider_keys"), {"org": org, "user": user, **span(month)})
    keys = [_provider_key(row["fingerprint"], _label(row), int(row["eur_nano"]), row) for row in rows[:_DEAREST]]
    others = rows[_DEAREST:]
    if others:
        payer = max(others, key=lambda row: int(row["eur_nano"]))
        keys.append(_provider_key("", OTHER, sum(int(row["eur_nano"]) for row in others), payer))
    return tuple(keys)


def _label(row: dict[str, Any]) -> str:
    end = row["fingerprint"][-_LABEL_LENGTH:]
    return f"{row['provider']} ···{end}" if end else str(row["provider"])


def _provider_key(fingerprint: str, label: str, eur_nano: int, row: dict[str, Any]) -> ProviderKey:
    micro = -(-eur_nano // NANO_PER_MICRO)
    return ProviderKey(
        fingerprint=fingerprint,
        label=label,
        cost_month_micro_eur=micro,
        cost_month_eur=micro / 1_000_000,
        billing_scope=row["billing_scope"],
    )
