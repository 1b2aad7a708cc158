"""What an organisation sees of statements: its own, or its part of one of all together, and nothing else."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tollmeter.admin import close as closing
from tollmeter.admin import cost_lines
from tollmeter.sinks.clickhouse.client import ClickHouse

Row = dict[str, Any]
LISTED = ("month", "number", "closed_at", "reason", "totals")


def months(client: ClickHouse, org: str, orgs: Sequence[str]) -> list[Row]:
    """Return the closed months, the newest first. `orgs`: whose rows are seen, none = all. Raises `CloseError`."""
    found = {one["month"]: one for one in _standing(client, org, orgs)}
    return [{name: found[month][name] for name in LISTED} for month in sorted(found, reverse=True)]


def statement(client: ClickHouse, month: str, org: str, orgs: Sequence[str], now: datetime) -> Row | None:
    """Return the statement that stands of a month, None where there is none. Raises `CloseError`.

    `hash` is that of the whole statement; `part` tells whether this is a part of it. `not_booked_yet`: what has changed
    since then, the next statement's adjustments; None where the calls are too old to be compared.
    """
    own = closing.standing(closing.statements(client, org)).get(month)
    stands = own or closing.standing(closing.statements(client, "")).get(month)
    if stands is None:
        return None
    whose = org if own else ""
    changes = closing.drift(client, stands, whose, now)
    seen = None if changes is None else [row for row in changes if _seen(row, orgs)]
    return {**_part(stands, orgs), "hash": stands.hash, "not_booked_yet": seen}


def _standing(client: ClickHouse, org: str, orgs: Sequence[str]) -> list[Row]:
    """Return parts of the statements of all together, then the organisation's own, which count before them."""
    found = [*closing.standing(closing.statements(client, "")).values()] if org else []
    found += closing.standing(closing.statements(client, org)).values()
    return [_part(one, orgs) for one in found]


def _part(stands: closing.Statement, orgs: Sequence[str]) -> Row:
    content = stands.content
    part = bool(orgs) and not content["org_id"]
    rows = [row for row in content["rows"] if _seen(row, orgs)]
    days = [row for row in rows if row["fx_first"]]
    return {
        **content,
        "part": part,
        "rows": [closing.told(row) for row in rows],
        "totals": closing.told(closing.totals(rows)),
        "price_books": sorted({book for row in rows for book in row["price_books"]}),
        "fx_first": min((row["fx_first"] for row in days), default=None),
        "fx_last": max((row["fx_last"] for row in days), default=None),
        "adjustments": [closing.told(row) for row in content["adjustments"] if _seen(row, orgs)],
        **_beside(content, orgs),
    }


def _beside(content: Row, orgs: Sequence[str]) -> Row:
    """Return the costs that no call shows; a statement that is older than they are says nothing of them."""
    if "cost_lines" not in content:
        return {}
    lines = [row for row in content["cost_lines"] if _seen(row, orgs)]
    changes = [row for row in content["cost_line_adjustments"] if _seen(row, orgs)]
    return {"cost_lines": lines, "cost_line_totals": cost_lines.totals(lines), "cost_line_adjustments": changes}


def _seen(row: Row, orgs: Sequence[str]) -> bool:
    return not orgs or row["org_id"] in orgs
