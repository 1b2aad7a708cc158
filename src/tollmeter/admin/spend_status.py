"""Spend status: what a user spent today and this month against his limits, in integer micro-EUR.

One function for every place that shows it. Amounts come from the ledger and count as limits do: org-billed cost and,
where that is unknown, money at risk. They are summed in nano-EUR and rounded once: used up, so remaining goes down.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from tollmeter.broker.policies import Rules
from tollmeter.producers.guard.decision import CostLimitExceeded
from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.limits.periods import period_of
from tollmeter.streams.rules.limits.policies import Budget, effective

_LABEL_LENGTH = 8


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


class SpendStatus(BaseModel):
    """The fields that clients know; `document` leaves out what is absent."""

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

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON carries them."""
        return self.model_dump(mode="json", exclude_none=True)


class Use(NamedTuple):
    """What the calls of a scope used of a period: nano-units of each currency, and counts."""

    usd_nano: int
    eur_nano: int
    rub_nano: int
    tokens: int
    requests: int

    def of(self, unit: str) -> int:
        """Return what counts toward a limit of this unit."""
        known = {
            "USD": self.usd_nano,
            "EUR": self.eur_nano,
            "RUB": self.rub_nano,
            "tokens": self.tokens,
            "requests": self.requests,
        }
        return known[unit]


class _Window(NamedTuple):
    use: Use
    period: tuple[int, int]
    used_micro: int
    limit_micro: int | None
    remaining_micro: int | None


def use_of(
    ledger: ClickHouse, org: str, scope: str, name: str, period: tuple[int, int], *, own_keys: bool = False
) -> Use:
    """Return what a scope used of a period, from the ledger. Raises `Unavailable`."""
    wanted = {"org": org, "scope": scope, "name": name, "own": int(own_keys), **_span(period)}
    (row,) = ledger.query(load("budget_use"), wanted)
    return Use(**{field: int(row[field]) for field in Use._fields})


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

    With `billing_scope_org` false it tells what the user spent on his own keys, which no limit concerns. Of limits in
    several time zones the one with the least remaining is shown, with its own day or month; without a limit it is UTC.
    """
    if not is_known(ledger, rules, org, user):
        raise UserNotFoundError
    found = effective(rules.policies.values(), org, user, rules.groups.of(org, user))
    budgets = found.budgets if billing_scope_org else ()
    at_s = int(now.timestamp())

    def window(kind: str) -> _Window:
        limits = [budget for budget in budgets if budget.unit == "EUR" and budget.limit.window == kind]
        return _tightest(ledger, (org, user), kind, limits, at_s, own_keys=not billing_scope_org)

    today, month = window("day"), window("month")
    return SpendStatus(
        cost_used_today_micro_eur=today.used_micro,
        cost_limit_today_micro_eur=today.limit_micro,
        cost_used_month_micro_eur=month.used_micro,
        cost_limit_month_micro_eur=month.limit_micro,
        cost_remaining_today_micro_eur=today.remaining_micro,
        cost_remaining_month_micro_eur=month.remaining_micro,
        warn_threshold_pct=found.warn_threshold_pct,
        billing_scope_org=billing_scope_org,
        by_provider_keys=_provider_keys(ledger, org, user, month.period) or None,
        requests_used_today=today.use.requests,
        tokens_used_month=month.use.tokens,
    )


def assert_available(
    ledger: ClickHouse, rules: Rules, org: str, user: str, now: datetime, *, billing_scope: str = "ORG"
) -> None:
    """Return when the user may spend. Raises `CostLimitExceeded`, `UserNotFoundError`, `Unavailable`.

    A call on the user's own key passes before anybody asks who the user is.
    """
    if billing_scope == "USER":
        return
    status = spend_status(ledger, rules, org, user, now)
    if status.cost_remaining_today_micro_eur == 0:
        raise CostLimitExceeded("llm cost limit exceeded: daily cost limit reached")
    if status.cost_remaining_month_micro_eur == 0:
        raise CostLimitExceeded("llm cost limit exceeded: monthly cost limit reached")


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
    rows = ledger.query(load("provider_keys"), {"org": org, "user": user, **_span(month)})
    return tuple(_provider_key(row) for row in rows)


def _provider_key(row: dict[str, Any]) -> ProviderKey:
    micro = -(-int(row["eur_nano"]) // NANO_PER_MICRO)
    return ProviderKey(
        fingerprint=row["fingerprint"],
        label=f"{row['provider']} ···{row['fingerprint'][-_LABEL_LENGTH:]}",
        cost_month_micro_eur=micro,
        cost_month_eur=micro / 1_000_000,
        billing_scope=row["billing_scope"],
    )


def _span(period: tuple[int, int]) -> dict[str, str]:
    start, end = (moment(datetime.fromtimestamp(at_s, UTC)) for at_s in period)
    return {"since": start, "until": end}
