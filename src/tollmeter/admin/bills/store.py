"""The imported bills in ClickHouse. An import replaces whole days: first its lines, then, in one piece, the days."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.bills.lines import Bill, BillError, Line

COLUMNS = (
    "provider",
    "account",
    "source",
    "day",
    "revision",
    "line",
    *(name for name in Line._fields if name != "day"),
)
DAY_COLUMNS = (
    "provider",
    "account",
    "source",
    "day",
    "revision",
    "lines",
    "content",
    "is_whole",
    "is_final",
    "file_name",
    "fetched_at",
)
INSERTED_AT_ONCE = 20_000
ALWAYS = {"since": date(1970, 1, 2), "until": date(2149, 1, 1)}
NO_ACCOUNT = "default"


@dataclass(frozen=True)
class Stored:
    """What an import did: days by what became of them."""

    provider: str
    account: str
    source: str
    new: tuple[date, ...] = ()
    replaced: tuple[date, ...] = ()
    unchanged: tuple[date, ...] = ()
    kept: tuple[date, ...] = ()
    """Days of which the bill has a part and the whole was known: left as they are."""
    lines: int = 0


def account_of(client: ClickHouse, bill: Bill, stated: str) -> str:
    """Return the account whose bill this is. Raises `BillError` for one that contradicts what is known."""
    if stated and bill.account and stated != bill.account:
        raise BillError(f"this is a bill of account {bill.account}, not of {stated}")
    account = stated or bill.account or NO_ACCOUNT
    known = sorted({row["account"] for row in days(client, bill.provider)})
    if known and account not in known and not stated:
        raise BillError(
            f"this is a bill of account {account}; bills of {bill.provider} so far are of {', '.join(known)}: "
            f"--account {account} takes it as one more"
        )
    if known and not stated:
        _refuse_strangers(client, bill, account)
    return account


def _refuse_strangers(client: ClickHouse, bill: Bill, account: str) -> None:
    """Raise `BillError` for a bill that names none of the keys, nor of the projects, known of its days.

    Reports of an organisation do not say whose they are: another one's would take the place of what is there.
    """
    span = {"since": min(bill.days), "until": max(bill.days) + timedelta(days=1)}
    rows = client.query(load("bill_names"), {"provider": bill.provider, "account": account, **span})
    pairs = [
        ({row[name] for row in rows} - {""}, {getattr(line, name) for line in bill.lines} - {""})
        for name in ("key_ref", "project")
    ]
    told = [(known, named) for known, named in pairs if known and named]
    if told and all(known.isdisjoint(named) for known, named in told):
        known, named = (min(names) for names in told[0])
        raise BillError(
            f"this bill speaks of {named}, which the bill of {bill.provider} for these days does not know ({known}): "
            f"--account NAME takes it as another organisation's, --account {account} as the same one's"
        )


def days(client: ClickHouse, provider: str = "", account: str = "", **span: date) -> list[dict[str, Any]]:
    """Return what is known of each day; `span` = since, until."""
    return client.query(load("bill_days"), {"provider": provider, "account": account, **(span or ALWAYS)})


def replace(client: ClickHouse, bill: Bill, account: str, file: str, fetched_at: datetime) -> Stored:
    """Store a bill. Whoever dies in between has changed nothing, and may do it again. Raises `Unavailable`."""
    known = {row["day"]: row for row in days(client, bill.provider, account) if row["source"] == bill.source}
    revision = max(time.time_ns() // 1_000, 1 + max((row["revision"] for row in known.values()), default=0))
    by_day: dict[date, list[Line]] = defaultdict(list)
    for line in bill.lines:
        by_day[line.day].append(line)
    groups: dict[str, list[date]] = {"new": [], "replaced": [], "unchanged": [], "kept": []}
    rows, heads = [], []
    for day, is_whole in bill.days.items():
        before, content = known.get(day), _hash(by_day[day])
        same = before is not None and (before["content"], before["is_whole"]) == (content, is_whole)
        group = "new" if before is None else "unchanged" if same else "replaced"
        if before is not None and before["is_whole"] and not is_whole:
            group = "kept"
        groups[group].append(day)
        if group == "kept":
            continue
        number = before["revision"] if same and before is not None else revision
        at = (bill.provider, account, bill.source, day, number)
        if not same:
            rows += [(*at, place, *_values(line)) for place, line in enumerate(by_day[day])]
        is_final = bill.final and is_whole
        heads.append((*at, len(by_day[day]), content, is_whole, is_final, file, fetched_at.astimezone(UTC)))
    for begin in range(0, len(rows), INSERTED_AT_ONCE):
        client.insert_rows("provider_costs", COLUMNS, rows[begin : begin + INSERTED_AT_ONCE])
    client.insert_rows("provider_cost_days", DAY_COLUMNS, heads)
    _tidy(client, bill, account, groups["replaced"], revision)
    found = {name: tuple(days_) for name, days_ in groups.items()}
    return Stored(bill.provider, account, bill.source, **found, lines=len(rows))


def _tidy(client: ClickHouse, bill: Bill, account: str, replaced: Sequence[date], revision: int) -> None:
    if replaced:
        about = {"provider": bill.provider, "account": account, "source": bill.source}
        client.command(load("bill_replaced"), {**about, "days": list(replaced), "revision": revision})


def _values(line: Line) -> list[object]:
    values = line._asdict()
    del values["day"]
    return [f"{value:f}" if isinstance(value, Decimal) else value for value in values.values()]


def _hash(lines: Sequence[Line]) -> str:
    """Return a hash that does not depend on the order of the lines, nor on how an amount is written."""
    texts = sorted(
        repr([str(value.normalize()) if isinstance(value, Decimal) else str(value) for value in line]) for line in lines
    )
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def lines_of(
    client: ClickHouse, provider: str, account: str, since: date, until: date
) -> tuple[dict[str, list[Line]], list[dict[str, Any]]]:
    """Return the lines in [since, until) by account and source ("ACCOUNT/SOURCE"), and what is known of each day.

    Raises `BillError` when a day has not the lines that it shall have.
    """
    heads = days(client, provider, account, since=since, until=until)
    asked = {"provider": provider, "account": account, "since": since, "until": until}
    found: dict[str, list[Line]] = {f"{head['account']}/{head['source']}": [] for head in heads}
    counts: dict[tuple[str, date], int] = defaultdict(int)
    for row in client.query(load("bill_lines"), asked):
        name = f"{row.pop('account')}/{row.pop('source')}"
        counts[name, row["day"]] += 1
        found.setdefault(name, []).append(Line(**row))
    for head in heads:
        name = f"{head['account']}/{head['source']}"
        if counts[name, head["day"]] != head["lines"]:
            raise BillError(
                f"{name} of {head['day']}: {counts[name, head['day']]} of {head['lines']} lines are there: "
                f"import {head['file'] or 'the bill'} again"
            )
    return found, heads
