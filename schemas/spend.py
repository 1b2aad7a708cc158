"""Spend rows and `as_of`: what `usage.spend` tells guards. Stamped: of two values of one key the higher stamp is right.

A row says how much of one scope's limit is used in one period. A scope without a row in the current period has used
nothing that counts. Amounts are nano-units of `unit` when that is a currency, else plain counts.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FORMAT = 1
Unit = Literal["USD", "EUR", "RUB", "tokens", "requests"]


def period_key(window: str, zone: str) -> str:
    """Return the name of a kind of period: "day@UTC", "rolling24h@UTC"."""
    return f"{window}@{zone}"


def spend_key(org_id: str, scope: str, name: str, period: str, unit: str) -> str:
    """Return the Kafka key of a spend row; "/" inside a part is escaped, so no two scopes collide."""
    parts = (org_id, scope, name, period, unit)
    return "spend/" + "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


class Spend(BaseModel):
    """The state of one scope's tightest limit of one unit in one period. `starts_s` <= charged time < `ends_s`."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    partition: int
    stamp: int
    """Offset of usage.priced up to which the log is counted."""
    org_id: str
    scope: str
    name: str
    period: str
    starts_s: int
    ends_s: int
    unit: Unit
    spent: int
    """What counts toward the limit: org-billed cost and at-risk money, tokens, or requests."""
    at_risk_nano: int
    """The part of it that is an estimate, nano-USD; 0 for tokens and requests."""
    limit: int
    policy_id: str
    """The policy that set the limit."""
    remaining: int
    """Never below 0."""
    percent: int
    """Rounded down."""
    forecast: int | None
    """Expected at the period's end at the mean pace so far; None while too little of the period has passed."""
    usd_nano: int | None = None
    """What these calls cost in USD, of a limit in another currency: `spent` lacks those without an exchange rate."""

    @property
    def key(self) -> str:
        return spend_key(self.org_id, self.scope, self.name, self.period, self.unit)


class AsOf(BaseModel):
    """All events appended to usage.events before `as_of_ms` whose organisation is in this partition are in its rows."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    partition: int
    stamp: int
    as_of_ms: int

    @property
    def key(self) -> str:
        return f"as_of/{self.partition}"
