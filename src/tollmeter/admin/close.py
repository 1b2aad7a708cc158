"""The month close: a statement is frozen once; what changes of its month later is an adjustment in the next one.

A statement and its hash are one row, written at once: whoever dies before it has closed nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from tollmeter.admin import cost_lines
from tollmeter.admin.kept import kept_from
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment

CLOSED, REOPENED = "closed", "reopened"
NAMES = ("org_id", "provider", "model", "api_key_id", "billing_scope")
SUMS = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cost_nano",
    "cost_eur_nano",
    "cost_rub_nano",
    "without_eur",
    "without_rub",
    "unpriced",
    "at_risk_nano",
    "estimated",
    "estimated_nano",
    "corrected",
)
Row = dict[str, Any]
Key = tuple[str, ...]


class CloseError(Exception):
    """The month cannot be closed or reopened: one line says why and what to do."""


@dataclass(frozen=True)
class Statement:
    """A statement as it was frozen, and its state."""

    month: str
    number: int
    state: str
    reason: str
    content: Row
    hash: str


def statements(client: ClickHouse, org: str) -> list[Statement]:
    """Return all statements. Raises `CloseError` when one is not what was frozen."""
    found = []
    for row in client.query(load("statements"), {"org_id": org}):
        if hash_of(row["content"]) != row["hash"]:
            raise CloseError(f"the statement {row['month']} number {row['number']} was changed after it was frozen")
        content = json.loads(row["content"])
        found.append(Statement(row["month"], row["number"], row["state"], row["reason"], content, row["hash"]))
    return found


def standing(all_: Iterable[Statement]) -> dict[str, Statement]:
    """Return the statement that stands of each closed month."""
    latest = {one.month: one for one in all_}
    return {month: one for month, one in latest.items() if one.state == CLOSED}


def close(
    client: ClickHouse, month: date, org: str, now: datetime, reason: str = "", stored_until: datetime | None = None
) -> tuple[Statement, bool]:
    """Return the month's statement, frozen now unless it stands already, and whether it was.

    `stored_until`: all that was sent before is in the ledger; None = not known, which the statement then says. Raises
    `CloseError` for a month that is not over or not stored, and for an organisation nobody has heard of.
    """
    known = statements(client, org)
    name = f"{month:%Y-%m}"
    stands = standing(known)
    if name in stands:
        return stands[name], False
    following = _next(month)
    if now.astimezone(UTC).date() < following:
        raise CloseError(f"{name} is not over: it ends with {following}, 00:00 UTC")
    if stored_until is not None and stored_until < _midnight(following):
        waits = stored_until.astimezone(UTC).isoformat(timespec="seconds")
        raise CloseError(f"not all of {name} is stored: calls sent at {waits} wait; see 'tollmeter status', then again")
    number = 1 + max((one.number for one in known if one.month == name), default=0)
    kept = kept_from(client, now)
    rows, beside = current(client, month, org), _beside(client, name, org, stands, now)
    if not rows and not beside["cost_lines"]:
        _require_calls(client, month, org)
    content = {
        "month": name,
        "zone": "UTC",
        "org_id": org,
        "number": number,
        "closed_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "stored_until": stored_until and stored_until.astimezone(UTC).isoformat(timespec="seconds"),
        **_sums(rows),
        "adjustments": _adjustments(client, name, org, known, kept),
        "calls_kept_from": kept and kept.astimezone(UTC).isoformat(timespec="seconds"),
        **beside,
    }
    made = Statement(name, number, CLOSED, reason, content, hash_of(_text(content)))
    _write(client, org, made, now)
    return made, True


def _sums(rows: Sequence[Row]) -> Row:
    return {
        "rows": rows,
        "totals": totals(rows),
        "price_books": sorted({book for row in rows for book in row["price_books"]}),
        "fx_first": min((row["fx_first"] for row in rows if row["fx_first"]), default=None),
        "fx_last": max((row["fx_last"] for row in rows if row["fx_last"]), default=None),
    }


def reopen(client: ClickHouse, month: date, org: str, now: datetime, reason: str) -> Statement:
    """Take back the close of a month; its statement is kept. Raises `CloseError`."""
    name = f"{month:%Y-%m}"
    stands = standing(statements(client, org)).get(name)
    if stands is None:
        raise CloseError(f"{name} is not closed: there is nothing to reopen")
    if not reason.strip():
        raise CloseError("say why: --reason TEXT is kept with the statement")
    made = Statement(name, stands.number, REOPENED, reason, stands.content, stands.hash)
    _write(client, org, made, now)
    return made


def drift(client: ClickHouse, stands: Statement, org: str, now: datetime) -> list[Row] | None:
    """Return what has changed of a closed month and is booked nowhere yet: the next statement's adjustments of it.

    None: not known any more, calls of the month may have been deleted for their age.
    """
    if not _is_whole(stands, kept_from(client, now)):
        return None
    return _change(client, stands, org, statements(client, org))


def current(client: ClickHouse, month: date, org: str) -> list[Row]:
    """Return the rows of a month as the ledger has them now. Raises `Unavailable`."""
    span = {"since": moment(_midnight(month)), "until": moment(_midnight(_next(month)))}
    return client.query(load("statement_rows"), {**span, "org_id": org})


def _require_calls(client: ClickHouse, month: date, org: str) -> None:
    """Tell a month without calls from one that the ledger knows nothing of. Raises `CloseError`."""
    if not current(client, month, ""):
        raise CloseError(f"no call of {month:%Y-%m} is stored, of anybody: there is nothing to close")
    if not client.query("SELECT 1 AS there FROM usage_events WHERE org_id = {org:String} LIMIT 1", {"org": org}):
        raise CloseError(f"no call of organisation {org!r} was ever stored: see 'tollmeter report spend'")


def totals(rows: Iterable[Row]) -> dict[str, int]:
    """Return the sums over rows."""
    sums = dict.fromkeys(SUMS, 0)
    for row in rows:
        for name in SUMS:
            sums[name] += row[name]
    return sums


MONEY = {
    "cost_nano": ("unpriced",),
    "cost_eur_nano": ("unpriced", "without_eur"),
    "cost_rub_nano": ("unpriced", "without_rub"),
}
"""The amounts, and which calls are in none of them. Frozen as sums, so that changes can be taken from them."""


def told(row: Row) -> Row:
    """Return a row, or totals, as it is shown: an amount that is known of no call is None, for 0 would say free."""
    return row | {name: None for name, lacking in MONEY.items() if not row[name] and any(map(row.__getitem__, lacking))}


def hash_of(text: str) -> str:
    """Return the hash of a statement's JSON."""
    return hashlib.sha256(text.encode()).hexdigest()


def _adjustments(
    client: ClickHouse, before: str, org: str, known: Sequence[Statement], kept: datetime | None
) -> list[Row]:
    """Return what has changed of earlier closed months and is in no statement; deleted for its age is not changed."""
    earlier = [one for month, one in sorted(standing(known).items()) if month < before and _is_whole(one, kept)]
    return [row for one in earlier for row in _change(client, one, org, known)]


def _is_whole(stands: Statement, kept: datetime | None) -> bool:
    return kept is None or kept <= _midnight(_first(stands.month))


def _beside(client: ClickHouse, month: str, org: str, stands: Mapping[str, Statement], now: datetime) -> Row:
    """Return the costs that no call shows, and by how much those of earlier closed months have changed since."""
    lines = cost_lines.of_month(client, month, org, now.astimezone(UTC).date())
    changes: list[Row] = []
    for earlier, one in sorted(stands.items()):
        if earlier < month:
            changes += [{"month": earlier, **row} for row in line_drift(client, one, org, stands.values(), now)]
    return {
        "cost_lines": lines,
        "cost_line_totals": cost_lines.totals(lines),
        "cost_line_adjustments": changes,
    }


def line_drift(client: ClickHouse, one: Statement, org: str, known: Iterable[Statement], now: datetime) -> list[Row]:
    """Return what has changed of a closed month's costs without calls and is booked in no statement that stands."""
    later = (row for other in known for row in other.content.get("cost_line_adjustments", ()))
    booked = [*one.content.get("cost_lines", ()), *(row for row in later if row["month"] == one.month)]
    return cost_lines.changes(cost_lines.of_month(client, one.month, org, now.astimezone(UTC).date()), booked)


def _change(client: ClickHouse, stands: Statement, org: str, known: Iterable[Statement]) -> list[Row]:
    booked = _by_key(stands.content["rows"])
    for one in standing(known).values():
        later = [row for row in one.content["adjustments"] if row["month"] == stands.month]
        for key, sums in _by_key(later).items():
            booked[key] = _plus(booked.get(key, _nothing()), sums)
    now = _by_key(current(client, _first(stands.month), org))
    return list(_differences(stands.month, now, booked))


def _differences(month: str, now: dict[Key, Row], booked: dict[Key, Row]) -> Iterator[Row]:
    for key in sorted({*now, *booked}):
        left, right = now.get(key, _nothing()), booked.get(key, _nothing())
        change = {name: left[name] - right[name] for name in SUMS}
        if any(change.values()):
            yield {"month": month, **dict(zip(NAMES, key, strict=True)), **change}


def _by_key(rows: Iterable[Row]) -> dict[Key, Row]:
    found: dict[Key, Row] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in NAMES)
        found[key] = _plus(found.get(key, _nothing()), row)
    return found


def _plus(left: Row, right: Row) -> Row:
    return {name: left[name] + right[name] for name in SUMS}


def _nothing() -> Row:
    return dict.fromkeys(SUMS, 0)


def _text(content: Row) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _write(client: ClickHouse, org: str, made: Statement, now: datetime) -> None:
    text = _text(made.content)
    columns = ("month", "org_id", "number", "state", "reason", "content", "hash", "written_at")
    row = (made.month, org, made.number, made.state, made.reason, text, made.hash, moment(now))
    client.insert_rows("statements", columns, [row])


def _first(month: str) -> date:
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).date()


def _next(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
