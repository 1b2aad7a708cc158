"""Odd months closed by the command line, as finance does: every sum and every change is what plain Python adds up.

A month in which a clock is put on or back, one whose first calls are corrected later, one with nothing but a seat, one
that is reopened; and when all is told, what was booked is what the ledger holds.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from tests.priced_rows import insert, row
from tollmeter.cli.close import close
from tollmeter.schemas.registry import CostLine
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = pytest.mark.stack

MONEY = ("cost_nano", "cost_eur_nano", "cost_rub_nano")
BERLIN = ZoneInfo("Europe/Berlin")
Row = dict[str, Any]


def after(month: date, months: int = 1) -> date:
    number = month.year * 12 + month.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def border_month() -> date:
    """Return the latest March or October behind which four months are over."""
    month = after(datetime.now(UTC).date(), -4)
    while month.month not in (3, 10):
        month = after(month, -1)
    return month


BORDER = border_month()
CORRECTED, EMPTY, LAST = (after(BORDER, number) for number in (1, 2, 3))


def begin(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)


def call(number: int, at: datetime, **more: Any) -> Row:
    usd = 10**9 // (number + 1) + number
    fields = {
        "event_time": at,
        "received_at": at,
        "org_id": f"o{number % 2}",
        "provider": "openai",
        "model": f"m{number % 3}",
        "api_key_id": "k",
        "status": "OK",
        "price_status": "PRICED",
        "input_tokens": number,
        "cost_nano": usd,
        "cost_eur_nano": usd * 86 // 100,
        "cost_rub_nano": usd * 8_153 // 100 if number % 7 else None,
        "revision": 0,
    }
    return row(number, **fields | more)


def calls() -> list[Row]:
    """Calls at every border: of months in UTC and in Berlin, and of the hour that is left out or comes twice."""
    last = begin(CORRECTED) - timedelta(days=1)
    change = last - timedelta(days=(last.weekday() + 1) % 7)
    shift = [change.replace(hour=0, minute=30) + timedelta(minutes=20 * number) for number in range(9)]
    assert len({at.astimezone(BERLIN).utcoffset() for at in shift}) == 2, "the clock changes here"
    edges = [begin(month) + timedelta(microseconds=less) for month in (BORDER, CORRECTED, EMPTY) for less in (-1, 0)]
    early = [begin(CORRECTED) + timedelta(minutes=7 * number) for number in range(20)]
    late = [begin(LAST) + timedelta(hours=5 * number) for number in range(20)]
    kept = [at for at in [*shift, *edges, *early, *late] if not begin(EMPTY) <= at < begin(LAST)]
    return [call(number, at) for number, at in enumerate(kept, 1)]


def sums(rows: Iterable[Row], *, of: date | None = None, org: str = "") -> tuple[int, ...]:
    """Calls and money in USD, EUR and RUB, added up in Python."""
    ours = [
        one
        for one in rows
        if org in ("", one["org_id"]) and (of is None or begin(of) <= one["event_time"] < begin(after(of)))
    ]
    return (len(ours), *(sum(one[name] or 0 for one in ours) for name in MONEY))


def booked(line: Row) -> tuple[int, ...]:
    return (line["calls"], *(line[name] for name in MONEY))


def added(lines: Iterable[Row]) -> tuple[int, ...]:
    return tuple(map(sum, zip((0, 0, 0, 0), *map(booked, lines), strict=True)))


@pytest.fixture(name="client")
def connected(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    for table in ("usage_events", "statements", "registry"):
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()


def run(settings: Settings, month: date, *words: str) -> Any:
    return CliRunner().invoke(close, [f"{month:%Y-%m}", *words], obj=settings)


def said(settings: Settings, month: date, *words: str) -> Row:
    done = run(settings, month, *words, "--json")
    assert done.exit_code == 0, done.output
    found: Row = json.loads(done.stdout)
    return found


def corrected(client: ClickHouse, rows: list[Row], numbers: Sequence[int], offset: int) -> list[Row]:
    """Have these calls cost half of what they did; return all rows as they are now."""
    now = list(rows)
    for at in numbers:
        half = {name: None if rows[at][name] is None else rows[at][name] // 2 for name in MONEY}
        now[at] = {**rows[at], **half, "revision": rows[at]["revision"] + 1}
    insert(client, [now[at] for at in numbers], offset=offset)
    return now


def test_odd_months_are_what_plain_python_adds_up(client: ClickHouse, ledger_settings: Settings) -> None:
    rows = calls()
    insert(client, rows, offset=1)
    border = said(ledger_settings, BORDER)
    assert booked(border["totals"]) == sums(rows, of=BORDER)
    assert booked(said(ledger_settings, BORDER, "--org", "o1")["totals"]) == sums(rows, of=BORDER, org="o1")
    first = said(ledger_settings, CORRECTED)
    assert (booked(first["totals"]), first["adjustments"]) == (sums(rows, of=CORRECTED), [])

    of_month = [at for at, one in enumerate(rows) if begin(CORRECTED) <= one["event_time"] < begin(EMPTY)]
    before = sums(rows)
    rows = corrected(client, rows, of_month[:5], 2)
    frozen = said(ledger_settings, CORRECTED)
    assert (frozen["hash"], booked(frozen["totals"])) == (first["hash"], booked(first["totals"]))
    change = tuple(now - was for now, was in zip(sums(rows), before, strict=True))
    assert added(frozen["not_booked_yet"]) == change

    refused = run(ledger_settings, EMPTY)
    assert (refused.exit_code, "there is nothing to close" in refused.output) == (2, True)
    seat = CostLine(org_id="o1", name="seats", provider="openai", quantity=3, unit_nano=7, since=f"{EMPTY:%Y-%m}")
    client.insert_rows("registry", ("key", "value", "version"), [(seat.key, seat.model_dump_json(), 1 << 20)])
    empty = said(ledger_settings, EMPTY)
    assert (booked(empty["totals"]), added(empty["adjustments"])) == ((0, 0, 0, 0), change)
    assert [line["amount_nano"] for line in empty["cost_lines"]] == [21]
    assert said(ledger_settings, CORRECTED)["not_booked_yet"] == []

    last = said(ledger_settings, LAST)
    assert (booked(last["totals"]), last["adjustments"]) == (sums(rows, of=LAST), [])
    assert run(ledger_settings, LAST, "--reopen").exit_code == 2, "a reason is wanted"
    said(ledger_settings, LAST, "--reopen", "--reason", "an invoice came late")
    late = call(900, begin(LAST) + timedelta(days=2))
    insert(client, [late], offset=3)
    rows.append(late)
    again = said(ledger_settings, LAST)
    assert (again["number"], booked(again["totals"])) == (2, sums(rows, of=LAST))
    assert again["adjustments"] == []

    every = [border, first, empty, again]
    whole = [booked(one["totals"]) for one in every] + [added(one["adjustments"]) for one in every]
    outside = sums(one for one in rows if one["event_time"] < begin(BORDER))
    assert tuple(map(sum, zip(*whole, outside, strict=True))) == sums(rows)
