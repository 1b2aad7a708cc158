"""Costs that no call shows, such as seats, fees, credits: by month, with their value in USD where there is a rate."""

from collections.abc import Iterable
from datetime import date
from typing import Any

from tollmeter.admin.reports.asked import Asked
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

MAX_AGE_DAYS = 10
"""An older rate says nothing: the value in USD is unknown then."""
NAMES = ("org_id", "provider", "name", "currency")
Row = dict[str, Any]


def of_month(client: ClickHouse, month: str, org: str, today: date) -> list[Row]:
    """Return the lines of a month like 2026-11; `cost_nano` is in USD, None without a rate. Raises `Unavailable`."""
    return [
        {name: value for name, value in row.items() if name != "month"} for row in _of(client, month, 1, org, today)
    ]


def of_period(client: ClickHouse, asked: Asked, today: date) -> list[Row]:
    """Return the lines of the months that begin in the period, each with its month. Raises `Unavailable`.

    Whoever asks for a user, a model or a key asks for calls alone.
    """
    filters, months = asked.filters, list(asked.months())
    if not months or any(filters[name] for name in filters if name not in ("org_id", "provider")):
        return []
    rows = _of(client, months[0], len(months), filters["org_id"], today)
    return [row for row in rows if filters["provider"] in ("", row["provider"])]


def _of(client: ClickHouse, month: str, months: int, org: str, today: date) -> list[Row]:
    """Return the lines of so many months from one on: decades are one question, too."""
    asked = {"month": month, "months": months, "org_id": org, "today": today, "max_age_days": MAX_AGE_DAYS}
    rows = client.query(load("cost_lines"), asked)
    return [{**row, "fx_date": None if row["fx_date"] is None else f"{row['fx_date']}"} for row in rows]


def totals(lines: Iterable[Row]) -> Row:
    """Return the sum in USD of the lines whose value is known, and how many are not."""
    rows = list(lines)
    known = [row["cost_nano"] for row in rows if row["cost_nano"] is not None]
    return {"lines": len(rows), "cost_nano": sum(known), "without_usd": len(rows) - len(known)}


def changes(now: Iterable[Row], booked: Iterable[Row]) -> list[Row]:
    """Return by how much the lines of a month differ from what was booked of them, in their own currency and in USD.

    Of lines whose value in USD is unknown on either side the change in USD is None.
    """
    left, right = _by_name(now), _by_name(booked)
    found = []
    for name in sorted({*left, *right}):
        one, other = left.get(name, (0, 0)), right.get(name, (0, 0))
        amount = one[0] - other[0]
        if amount:
            usd = None if one[1] is None or other[1] is None else one[1] - other[1]
            found.append({**dict(zip(NAMES, name, strict=True)), "amount_nano": amount, "cost_nano": usd})
    return found


def _by_name(rows: Iterable[Row]) -> dict[tuple[str, ...], tuple[int, int | None]]:
    sums: dict[tuple[str, ...], tuple[int, int | None]] = {}
    for row in rows:
        name = tuple(str(row[one]) for one in NAMES)
        amount, usd = sums.get(name, (0, 0))
        sums[name] = (
            amount + row["amount_nano"],
            None if usd is None or row["cost_nano"] is None else usd + row["cost_nano"],
        )
    return sums
