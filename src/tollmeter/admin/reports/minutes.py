"""Spend of long periods from the rollup by minute, exactly: minutes that are stale are read from the ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.rows import Row
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

ALL = 2**32 - 1
"""As a LIMIT: everything."""
LONG = timedelta(hours=2)
"""Shorter periods are read from the ledger alone."""
_BY = frozenset({"org", "provider", "model", "key", "label", "hour", "day", "week", "month"})
_FILTERS = frozenset({"org_id", "api_key_id", "label"})
"""What minutes can be filtered by; a provider and a model have more than one name, which they do not know."""
_WHOLE_PART = 0.9


def whole_from(retention_days: int, now: datetime) -> datetime:
    """Return from when on every minute is computed: what retention may have begun to delete is not computed again."""
    return now - timedelta(days=retention_days * _WHOLE_PART)


def answer(asked: Asked, by: Sequence[str]) -> bool:
    """Tell whether the rollup can answer this."""
    whole = asked.minutes_from is not None and asked.since >= asked.minutes_from
    filtered = {name for name, value in asked.filters.items() if value}
    return whole and asked.until - asked.since > LONG and {*by} <= _BY and filtered <= _FILTERS


def spend(ledger: ClickHouse, asked: Asked, by: Sequence[str], top: int = ALL, step: str = "") -> tuple[list[Row], Row]:
    """Return rows as `spend` gives them, and the total of the whole period. Raises `Unavailable`."""
    first, last = (_minute(at) for at in (asked.since + timedelta(minutes=1, microseconds=-1), asked.until))
    bounds = {"first": first, "last": last, "zone": asked.zone.key, "by": list(by), "steps": step, "top": top + 1}
    return apart(ledger, asked, ledger.query(load("spend_minutes"), {**asked.parameters(), **bounds}))


def apart(ledger: ClickHouse, asked: Asked, found: list[Row]) -> tuple[list[Row], Row]:
    """Return the rows of one reading, and its total."""
    totals = [row for row in found if row["total"] and row["calls"]]
    (total,) = totals or ledger.query(load("spend_total"), asked.parameters())  # no call at all: zeros have one shape
    return [row for row in found if not row["total"]], total


def _minute(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:00")
