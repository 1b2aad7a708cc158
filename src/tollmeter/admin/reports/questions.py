"""What reports ask the ledger. Each answer has rows and the totals of the whole period, with what in them is doubtful.

Every function raises `Unavailable` or `Rejected` when ClickHouse cannot answer.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tollmeter.admin.kept import kept_within
from tollmeter.admin.reports import minutes
from tollmeter.admin.reports.asked import FIRST_YEAR, LAST_YEAR, NO_FILTER, Asked
from tollmeter.admin.reports.labels import name_keys
from tollmeter.admin.reports.minutes import ALL
from tollmeter.admin.reports.rows import SUBSCRIBED, Row, pick, plain
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

BY = {
    "model": "model",
    "key": "api_key_id",
    "label": "label",
    "user": "user_id",
    "org": "org_id",
    "group": "group_id",
    "agent": "agent",
    "session": "session_id",
    "repository": "repository",
    "ip": "client_ip",
    "provider": "provider",
    "operation": "operation_name",
    "feature": "operation_name",
    "service": "service",
    "status": "status",
    "hour": "hour",
    "day": "day",
    "week": "week",
    "month": "month",
}
"""What spend is grouped by, and the column each becomes."""
CALL = ("ts", "model_sent", "model_used", "pt", "ot", "est_cost", "client_ip", "request_id", "api_key_id")
SPEND = ("calls", "prompt_tokens", "output_tokens", "usd_est")
OPERATION = ("operation_name", "calls", "total_tokens", "cost_usd")
SOURCES = ("price_books", "fx_from", "fx_until")
TOTALS = (*SPEND, "refused", "unpriced", "usd_at_risk", "estimated", "corrected", *SUBSCRIBED, *SOURCES)
_RECENT_DAYS, _EVER_DAYS = 2, 40_000
_EVER = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR, 1, 1, tzinfo=UTC)


class Answered(NamedTuple):
    """Rows, the totals of the whole period as `spend_total` has them, and when the newest event known was received."""

    rows: list[Row]
    total: Row
    as_of: datetime | None
    kept: datetime | None = None
    """From when on no call was deleted for its age, of a period that begins before it."""
    why_none: Sequence[str] = ()
    """Of a report without calls: names that no stored call has, or that the period is before the first."""

    def totals(self, now: datetime) -> Row:
        """Return the totals as JSON carries them; their age is seconds since the newest event came, None: none did.

        `calls` counts `refused` ones, too, which cost nothing.
        """
        age = None if self.as_of is None else max(0, int((now - self.as_of).total_seconds()))
        said = {**pick(self.total, TOTALS), "as_of": self.as_of, "calls_kept_from": self.kept}
        return {**plain(said), "age_s": age}


def top_calls(ledger: ClickHouse, asked: Asked, top: int) -> Answered:
    """Return the dearest calls."""
    rows = name_keys(ledger, ledger.query(load("top_calls"), {**asked.parameters(), "top": top}), asked.orgs)
    return _answered(ledger, asked, rows)


def spend(ledger: ClickHouse, asked: Asked, by: Sequence[str], top: int = ALL, step: str = "") -> Answered:
    """Return spend by some of `BY`, dearest first; the total says in `groups` of how many rows.

    With a `step` (hour, day) rows and total have their `course`: the steps with calls, and the known cost in nano-USD,
    the unpriced and all calls of each; price books and exchange rates are not named then.
    """
    if minutes.answer(asked, by):
        rows, total = minutes.spend(ledger, asked, by, top, step)
    else:
        parameters = {**asked.parameters(), "zone": asked.zone.key, "by": list(by), "steps": step, "top": top + 1}
        rows, total = minutes.apart(ledger, asked, ledger.query(load("spend"), parameters))
    named = name_keys(ledger, rows, asked.orgs) if "key" in by else rows
    return _told(ledger, asked, named, total)


def costs(ledger: ClickHouse, asked: Asked) -> Answered:
    """Return the period's cost per model and key, dearest first; rows and totals are of one reading."""
    if minutes.answer(asked, ("model", "key")):
        return spend(ledger, asked, ("model", "key"))
    rows, total = minutes.apart(ledger, asked, ledger.query(load("costs_today"), asked.parameters()))
    return _told(ledger, asked, name_keys(ledger, rows, asked.orgs), total)


def operations(ledger: ClickHouse, asked: Asked) -> Answered:
    """Return calls, tokens and cost per operation, dearest first."""
    rows, total = minutes.apart(ledger, asked, ledger.query(load("operations"), asked.parameters()))
    return _told(ledger, asked, rows, total)


def total(ledger: ClickHouse, asked: Asked) -> Answered:
    """Return the totals of a period alone."""
    if minutes.answer(asked, ()):
        return _told(ledger, asked, [], minutes.spend(ledger, asked, ())[1])
    return _answered(ledger, asked, [])


def newest(ledger: ClickHouse, orgs: Sequence[str] = ()) -> datetime | None:
    """Return when the newest event of organisations, or of all, was received; None: the ledger has none."""
    for days in (_RECENT_DAYS, _EVER_DAYS):
        (row,) = ledger.query(load("freshness"), {"orgs": list(orgs), "days": days})
        at: datetime | None = row["as_of"]
        if at is not None:
            return at.astimezone(UTC)
    return None


def explained(ledger: ClickHouse, asked: Asked, answered: Answered) -> Answered:
    """Return the answer with what may be why it has no call."""
    return answered if answered.total["calls"] else answered._replace(why_none=_why_none(ledger, asked))


def _why_none(ledger: ClickHouse, asked: Asked) -> list[str]:
    ever = asked._replace(since=_EVER[0], until=_EVER[1])

    def first(**named: str) -> datetime | None:
        filters = {**NO_FILTER, "org_id": asked.filters["org_id"], **named}
        at: datetime | None = ledger.query(load("first_call"), ever._replace(filters=filters).parameters())[0]["first"]
        return at

    unknown = [(name, value) for name, value in asked.filters.items() if value and first(**{name: value}) is None]
    if unknown:
        return [f"no stored call has {name.removesuffix('_id')} {value!r}" for name, value in unknown]
    begin = first()
    if begin is not None and asked.until <= begin:
        return [f"the first stored call was made {begin.astimezone(asked.zone):%Y-%m-%d %H:%M} {asked.zone.key}"]
    return []


def document(answered: Answered, asked: Asked, rows: list[Row], now: datetime) -> dict[str, Any]:
    """Return a report as JSON carries it: the period with its zone, the rows, the totals."""
    return {**asked.document(), "rows": rows, "totals": answered.totals(now)}


def _answered(ledger: ClickHouse, asked: Asked, rows: list[Row]) -> Answered:
    (total,) = ledger.query(load("spend_total"), asked.parameters())
    return _told(ledger, asked, rows, total)


def _told(ledger: ClickHouse, asked: Asked, rows: list[Row], total: Row) -> Answered:
    kept = kept_within(ledger, asked.since, datetime.now(UTC))
    return Answered(rows, total, newest(ledger, asked.orgs), kept)
