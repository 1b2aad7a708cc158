"""Limits in a currency of whose calls some have no exchange rate: these count by the last one known and a margin."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from tollmeter.admin.scope_use import Use
from tollmeter.schemas.money import NANO_PER_MICRO, NANO_PER_USD
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.limits.policies import Budget

MARGIN_PCT = 5
Used = Sequence[tuple[Budget, Use]]
Rates = Mapping[str, int]


def last_rates(ledger: ClickHouse, used: Used, now: datetime) -> Rates:
    """Return the last rate of each currency that has one, in nano-units for one USD; asked where a limit needs one.

    Raises `Unavailable`.
    """
    if not _foreign(used):
        return {}
    rows = ledger.query(load("fx_known"), {"day": now.astimezone(UTC).date().isoformat()})
    return {row["currency"]: int(row["per_usd_nano"]) for row in rows}


def is_unrated(used: Used, rates: Rates) -> bool:
    """Tell whether some limit of money cannot be applied: what was used, or what comes next, has no exchange rate."""
    return not _foreign(used) <= rates.keys() or any(use.fx(one.unit) == "none" for one, use in used)


def counted(budget: Budget, use: Use, rates: Rates, margin_pct: int) -> int:
    """Return what was used in the unit of the limit; money rounded up to micro-units, as everywhere it is shown."""
    used = use.of(budget.unit)
    if budget.limit.measure != "money":
        return used
    late = use.unrated_nano(budget.unit) * rates.get(budget.unit, 0) * (100 + margin_pct)
    return -(-(used * NANO_PER_USD * 100 + late) // (NANO_PER_MICRO * NANO_PER_USD * 100))


def _foreign(used: Used) -> set[str]:
    return {str(one.unit) for one, _ in used if one.limit.measure == "money"} - {"USD"}
