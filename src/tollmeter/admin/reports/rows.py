"""Rows of a report: what is not known stands beside each sum, names stand beside key ids, values are ready for JSON."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from uuid import UUID

from tollmeter.schemas.money import NANO_PER_USD

Row = dict[str, Any]
PLACES = 4
DOUBTS = ("unpriced", "usd_at_risk")
REFUSED = ("refused",)
"""Of `calls` those that were refused before they were made; they cost nothing."""
SUBSCRIBED = ("subscription_calls", "usd_subscription_value")
"""Calls that subscriptions paid, and what they would have cost by the list: apart from every cost."""
NAMES = ("label", "owner", "cost_centre")


def plain(row: Mapping[str, object]) -> Row:
    """Return a row as JSON carries it: money as a number, times as text in UTC."""
    return {name: _plain(value) for name, value in row.items()}


def pick(row: Mapping[str, object], columns: Sequence[str]) -> Row:
    """Return these columns of a row, in their order."""
    return {name: row[name] for name in columns}


def document(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> list[Row]:
    """Return rows as JSON carries them; a key that has a name with it, an unknown cost with its calls and risk.

    Calls that were refused, and those that subscriptions paid with their worth, stand with it where there are any.
    """
    found = []
    for row in rows:
        named = [name for name in NAMES if row.get(name) and name not in columns]
        paid = SUBSCRIBED if row.get("subscription_calls") else ()
        refused = REFUSED if row.get("refused") else ()
        doubts = DOUBTS if row["unpriced"] or row.get("usd_at_risk") else ()
        found.append(plain(pick(row, [*columns, *refused, *named, *doubts, *paid])))
    return found


def usd(nano: int | None, places: int = PLACES, rounding: str = ROUND_HALF_EVEN) -> str | None:
    """Return nano-USD as USD with so many decimals; what is there but would read 0 is "<0.01"."""
    if nano is None:
        return None
    unit = Decimal(1).scaleb(-places)
    amount = (Decimal(int(nano)) / NANO_PER_USD).quantize(unit, rounding)
    return f"<{unit}" if nano > 0 and amount == 0 else f"{amount}"


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    return value
