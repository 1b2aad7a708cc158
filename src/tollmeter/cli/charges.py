"""Exports for finance: charges as FOCUS, a journal by cost centre, and a file for each day."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import click

from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, err
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

VERSIONS = ("1.2", "1.0")
JOURNAL = ("period", "org_id", "cost_centre", "provider", "currency", "amount", "calls", "fx_first", "fx_last")


def charges(settings: Settings, asked: Asked, form: str, focus: str | None, output: Path | None) -> None:
    """Write the FOCUS file of a version, or the journal; what is left out is said on stderr."""
    if form not in ("csv", "parquet") or (focus is None and form != "csv"):
        raise UserError("--focus comes as --format csv or parquet, --journal as --format csv")
    with reading(settings) as ledger:
        count, content = _journal(ledger, asked) if focus is None else _focus(ledger, asked, form, focus)
        (left,) = ledger.query(load("focus_left_out"), asked.parameters())
    _write(content, output)
    err.print(f"{count:,} lines, {asked.said()}")
    if left["unpriced"]:
        err.print(
            f"left out: {left['unpriced']:,} calls of unknown cost; 'tollmeter reprice --unpriced' after new prices"
        )
    if left["own_key"]:
        err.print(f"left out: {left['own_key']:,} calls on users' own keys, which they pay themselves")


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        click.get_binary_stream("stdout").write(content)
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None


def _focus(ledger: ClickHouse, asked: Asked, form: str, version: str) -> tuple[int, bytes]:
    from tollmeter.admin import focus

    frame = focus.rows(ledger, asked, version)
    broken = focus.failures(frame, version)
    if broken:
        raise UserError(f"the file would break FOCUS {version}: {broken[0]}; nothing is written")
    return frame.height, focus.csv_text(frame).encode() if form == "csv" else focus.parquet(frame)


def _journal(ledger: ClickHouse, asked: Asked) -> tuple[int, bytes]:
    rows = ledger.query(load("journal"), {**asked.parameters(), "zone": asked.zone.key})
    rows = sorted([*rows, *_beside(ledger, asked)], key=lambda row: [str(row[name]) for name in JOURNAL[:5]])
    return len(rows), csv_text(JOURNAL, rows).encode()


def _beside(ledger: ClickHouse, asked: Asked) -> Iterator[dict[str, object]]:
    """Yield a line for each cost without calls of the months that begin in the period, in its own currency and in USD.

    Whoever asks for a user, a model or a key asks for calls alone.
    """
    from tollmeter.admin import cost_lines

    filters, today = asked.filters, datetime.now(UTC).date()
    if any(filters[name] for name in filters if name not in ("org_id", "provider")):
        return
    for month in _months(asked):
        for row in cost_lines.of_month(ledger, month, filters["org_id"], today):
            if filters["provider"] not in ("", row["provider"]):
                continue
            head = {name: row[name] for name in ("org_id", "cost_centre", "provider")} | {"period": month, "calls": 0}
            own = {"currency": row["currency"], "amount": _units(row["amount_nano"])}
            yield {**head, **own, "fx_first": None, "fx_last": None}
            if row["currency"] != "USD" and row["cost_nano"] is not None:
                in_usd = {"currency": "USD", "amount": _units(row["cost_nano"])}
                yield {**head, **in_usd, "fx_first": row["fx_date"], "fx_last": row["fx_date"]}


def _units(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)


def _months(asked: Asked) -> Iterator[str]:
    """Yield the local months whose first moment is in the period."""
    start = asked.since.astimezone(asked.zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    while start.astimezone(UTC) < asked.until:
        if start.astimezone(UTC) >= asked.since:
            yield f"{start:%Y-%m}"
        start = (start.replace(day=28) + timedelta(days=4)).replace(day=1)


Pages = Callable[[ClickHouse, Asked], Iterator[str]]


def write_days(settings: Settings, asked: Asked, where: str, pages: Pages) -> None:
    """Write a CSV of each whole day of the period that the folder or bucket lacks."""
    from tollmeter.admin.day_store import DayStoreError, day_store

    try:
        store = day_store(where)
        with reading(settings) as ledger:
            for day in _days(asked):
                name = f"calls-{day.since.astimezone(day.zone):%Y-%m-%d}.csv"
                if not store.has(name):
                    err.print(f"{name}: {store.put(name, pages(ledger, day)):,} bytes")
    except DayStoreError as problem:
        raise UserError(str(problem)) from None


def _days(asked: Asked) -> Iterator[Asked]:
    """Yield the whole local days of the period that are over."""
    local = asked.since.astimezone(asked.zone)
    start = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if start < local:
        start = (start + timedelta(days=1)).replace(fold=0)
    last = min(asked.until, datetime.now(UTC))
    while (following := (start + timedelta(days=1)).replace(fold=0)).astimezone(UTC) <= last:
        yield asked._replace(since=start.astimezone(UTC), until=following.astimezone(UTC))
        start = following
