"""Exports for finance: charges as FOCUS, a journal by cost centre, and a file for each day."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from tollmeter.admin import cost_lines
from tollmeter.admin.kept import kept_within
from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, err
from tollmeter.cli.report_rows import tell_kept
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

VERSIONS = ("1.2", "1.0")
Row = dict[str, Any]
JOURNAL = ("period", "org_id", "cost_centre", "provider", "currency", "amount", "calls", "fx_first", "fx_last")


def charges(settings: Settings, asked: Asked, form: str, focus: str | None, output: Path | None) -> None:
    """Write the FOCUS file of a version, or the journal; what is left out is said on stderr."""
    if form not in ("csv", "parquet") or (focus is None and form != "csv"):
        raise UserError("--focus comes as --format csv or parquet, --journal as --format csv")
    with reading(settings) as ledger:
        beside = cost_lines.of_period(ledger, asked, datetime.now(UTC).date())
        count, content = (
            _journal(ledger, asked, beside) if focus is None else _focus(ledger, asked, form, focus, beside)
        )
        (left,) = ledger.query(load("focus_left_out"), asked.parameters())
        kept = kept_within(ledger, asked.since, datetime.now(UTC))
    _write(content, output)
    err.print(f"{count:,} lines, {asked.said()}")
    tell_kept(kept, asked.zone)
    if left["unpriced"]:
        err.print(
            f"left out: {left['unpriced']:,} calls of unknown cost; 'tollmeter reprice --unpriced' after new prices"
        )
    if focus is not None and (unknown := sum(row["cost_nano"] is None for row in beside)):
        err.print(
            f"left out: {unknown} costs without calls whose value in USD is not known; 'tollmeter bills cost list'"
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


def _focus(ledger: ClickHouse, asked: Asked, form: str, version: str, beside: Iterable[Row]) -> tuple[int, bytes]:
    from tollmeter.admin import focus
    from tollmeter.admin.focus_costs import charges as costs

    frame = focus.rows(ledger, asked, version)
    frame = frame.vstack(costs(beside, frame.schema))
    broken = focus.failures(frame, version)
    if broken:
        raise UserError(f"the file would break FOCUS {version}: {broken[0]}; nothing is written")
    return frame.height, focus.csv_text(frame).encode() if form == "csv" else focus.parquet(frame)


def _journal(ledger: ClickHouse, asked: Asked, beside: Iterable[Row]) -> tuple[int, bytes]:
    rows = ledger.query(load("journal"), {**asked.parameters(), "zone": asked.zone.key})
    rows = sorted([*rows, *_booked(beside)], key=lambda row: [str(row[name]) for name in JOURNAL[:5]])
    return len(rows), csv_text(JOURNAL, rows).encode()


def _booked(beside: Iterable[Row]) -> Iterator[Row]:
    """Yield a line for each cost without calls, in its own currency and in USD."""
    for row in beside:
        head = {name: row[name] for name in ("org_id", "cost_centre", "provider")} | {
            "period": row["month"],
            "calls": 0,
        }
        own = {"currency": row["currency"], "amount": _units(row["amount_nano"])}
        yield {**head, **own, "fx_first": None, "fx_last": None}
        if row["currency"] != "USD" and row["cost_nano"] is not None:
            in_usd = {"currency": "USD", "amount": _units(row["cost_nano"])}
            yield {**head, **in_usd, "fx_first": row["fx_date"], "fx_last": row["fx_date"]}


def _units(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)


Pages = Callable[[ClickHouse, Asked], Iterator[str]]


def write_days(settings: Settings, asked: Asked, where: str, pages: Pages) -> None:
    """Write a CSV of each whole day of the period that the folder or bucket lacks."""
    from tollmeter.admin.day_store import DayStoreError, day_store

    try:
        store = day_store(where)
        with reading(settings) as ledger:
            tell_kept(kept_within(ledger, asked.since, datetime.now(UTC)), asked.zone)
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
