"""What changed: a period beside the same hours before, names that are new, services that fell silent."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.questions import BY
from tollmeter.admin.reports.rows import Row, plain
from tollmeter.schemas.money import NANO_PER_USD
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

AGAINST = {"before": None, "day": timedelta(days=1), "week": timedelta(days=7)}
"""What a period is held against: as long a time just before it, or its own hours a day or a week ago."""


def changes(ledger: ClickHouse, asked: Asked, by: Sequence[str], against: str, top: int, now: datetime) -> Row:
    """Return movers, new names and silent services as JSON carries them. Raises `Unavailable`, `Rejected`."""
    back = AGAINST[against] or asked.until - asked.since
    earlier = asked._replace(since=asked.since - back, until=asked.until - back)
    here, there = (questions.spend(ledger, period, by) for period in (asked, earlier))
    return {
        **asked.document(),
        "against": earlier.document(),
        "totals": here.totals(now),
        "totals_before": there.totals(now),
        "movers": movers(here.rows, there.rows, [BY[name] for name in by])[:top],
        "new": [_new(row) for row in ledger.query(load("new_names"), {**asked.parameters(), "top": top})],
        "silent": [plain(row) for row in ledger.query(load("silent_services"))],
    }


def movers(here: Sequence[Row], there: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """Return the rows of both periods by how much their known cost differs; a cost that is not known is None."""
    both: dict[tuple[Any, ...], list[Row | None]] = {}
    for place, rows in enumerate((here, there)):
        for row in rows:
            both.setdefault(tuple(row[name] for name in columns), [None, None])[place] = row
    found = []
    for names, (now, before) in both.items():
        more = _known(now) - _known(before)
        found.append(
            {
                **dict(zip(columns, names, strict=True)),
                "usd_est": _usd(now),
                "usd_before": _usd(before),
                "usd_more": more / NANO_PER_USD,
                "calls": now["calls"] if now else 0,
                "calls_before": before["calls"] if before else 0,
                "unpriced": now["unpriced"] if now else 0,
                "usd_at_risk": _at_risk(now),
                "more_nano": more,
            }
        )
    return sorted(found, key=lambda row: (-abs(row["more_nano"]), str(row)))


def _known(row: Row | None) -> int:
    return int(row["known_nano"]) if row else 0


def _usd(row: Row | None) -> float | None:
    """Return the known cost: 0 without a call, None where there were calls and nothing is known of them."""
    return 0.0 if row is None else None if row["total_nano"] is None else int(row["total_nano"]) / NANO_PER_USD


def _at_risk(row: Row | None) -> float | None:
    """Return what calls without a price may cost: None where there are some and nothing is known of them."""
    risk = int(row["risk_nano"]) if row else 0
    return None if row and row["unpriced"] and not risk else risk / NANO_PER_USD


def _new(row: Row) -> Row:
    shown = {name: row[name] for name in ("kind", "name", "first_seen", "calls", "unpriced")}
    unknown = row["unpriced"] and not row["known_nano"]
    return plain({**shown, "usd_est": None if unknown else int(row["known_nano"]) / NANO_PER_USD})
