"""A policy tried out on what was: which calls its limits would have refused, when, and for whom.

A limit refuses a call once what was used of its period before that call has reached it; what was refused would have
used nothing. Estimates of calls in flight are not known afterwards, so a guard may refuse a little earlier. The periods
are whole: the first one begins before the days that are asked about.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.limits.periods import period_of


class CannotTryError(Exception):
    """A policy that cannot be held against the ledger; the text says why, and what can."""


@dataclass(frozen=True, slots=True)
class Period:
    """One period of one limit: what would have been used and refused. Amounts are nano-units of a currency, or counts.

    `who`: the user, key ..., where each has a limit of its own. `spared_nano` is nano-USD of the refused calls of known
    cost.
    """

    period: str
    who: str
    calls: int
    used: int
    refused: int
    first_refused: datetime | None
    spared_nano: int
    spared_unpriced: int


@dataclass(frozen=True, slots=True)
class Trial:
    """A limit beside the periods in which there was traffic."""

    limit: Limit
    unit: str
    amount: int
    periods: Sequence[Period]
    each: str = "user"
    """The kind of whoever `who` names."""

    @property
    def highest(self) -> Period | None:
        """The period that used most, had nothing been refused; None without traffic."""
        return max(self.periods, key=lambda one: one.used, default=None)

    @property
    def reached(self) -> bool:
        """Whether any traffic would have come up against it."""
        return self.highest is not None and self.highest.used >= self.amount

    def document(self) -> dict[str, Any]:
        """Return the trial as JSON carries it."""
        highest = self.highest
        refusals = [one for one in self.periods if one.refused]
        return {
            "limit": self.limit.key,
            "unit": self.unit,
            "amount": self.amount,
            "periods": len(self.periods),
            "calls": sum(one.calls for one in self.periods),
            "refused": sum(one.refused for one in refusals),
            "spared_nano": sum(one.spared_nano for one in refusals),
            "spared_unpriced": sum(one.spared_unpriced for one in refusals),
            "can_be_reached": self.reached,
            "highest": None if highest is None else _document(highest, self.each),
            "refusals": [_document(one, self.each) for one in refusals],
        }


def try_policy(
    ledger: ClickHouse, policy: Policy, since: datetime, until: datetime, others: Iterable[Policy] = ()
) -> list[Trial]:
    """Return what each limit of a policy would have done. Raises `CannotTryError`, `Unavailable`, `Rejected`.

    `others` are the policies in force: a default does not concern whoever has one of his own.
    """
    if policy.applies == "each_member" and policy.scope == "group":
        raise CannotTryError("who was in a group then is not kept: try the limit with --scope user --name NAME")
    each = "" if policy.applies == "pool" else policy.scope if policy.is_default else "user"
    exempt = sorted({one.name for one in others if (one.org_id, one.scope) == (policy.org_id, each) and one.name})
    parameters: dict[str, str | list[str]] = {
        "org": policy.org_id,
        "scope": "org" if each else policy.scope,
        "name": policy.name,
        "each": each,
        "exempt": exempt if each else [],
        "zone": policy.timezone,
        "until": moment(until),
    }
    return [_trial(ledger, policy, limit, since, parameters) for limit in policy.all_limits]


def _trial(
    ledger: ClickHouse, policy: Policy, limit: Limit, since: datetime, about: Mapping[str, str | list[str]]
) -> Trial:
    if limit.period == "rolling":
        raise CannotTryError(f"{limit.key}: rolling limits cannot be tried out; try a day with the same amount")
    begin = datetime.fromtimestamp(period_of(limit.period, policy.timezone, int(since.timestamp()))[0], UTC)
    unit = policy.currency if limit.measure == "money" else limit.measure
    amount = limit.amount * NANO_PER_MICRO if limit.measure == "money" else limit.amount
    asked = {**about, "window": limit.period, "unit": unit, "amount": amount, "since": moment(begin)}
    rows = ledger.query(load("policy_trial"), asked)
    return Trial(limit, unit, amount, [_period(row) for row in rows], str(about["each"]) or "user")


def _period(row: dict[str, Any]) -> Period:
    first = row["first_refused"].astimezone(UTC) if row["refused"] else None
    return Period(**{**row, "first_refused": first})


def _document(period: Period, each: str) -> dict[str, Any]:
    first = period.first_refused
    return {
        "period": period.period,
        each: period.who or None,
        "calls": period.calls,
        "used": period.used,
        "refused": period.refused,
        "first_refused": None if first is None else first.isoformat(),
        "spared_nano": period.spared_nano,
        "spared_unpriced": period.spared_unpriced,
    }
