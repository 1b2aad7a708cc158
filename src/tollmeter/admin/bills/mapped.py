"""A bill as CSV of anybody else: the user says which column is what."""

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from tollmeter.admin.bills.pages import day_of, moment
from tollmeter.streams.rules.bills.lines import (
    ALL,
    METERS,
    OTHER,
    PROMPT,
    REQUESTS,
    TOKENS,
    Bill,
    BillError,
    Line,
    make_bill,
    number,
    text,
)

SOURCE = "csv"
ABOUT = ("key_ref", "principal", "project", "model", "line_item")
COUNTS = (*TOKENS, PROMPT, REQUESTS)
FIELDS = ("day", "amount", "currency", *ABOUT, "meter", "quantity", *COUNTS)
"""What a column can be: one line may have a meter and its quantity, or a column for each count and one amount."""


def mapping(texts: Iterable[str]) -> dict[str, str]:
    """Return {field: column} of FIELD=COLUMN texts. Raises `BillError`."""
    found: dict[str, str] = {}
    for part in texts:
        name, equals, column = part.partition("=")
        if not equals or name not in FIELDS or not column:
            raise BillError(f"--map {part}: write FIELD=COLUMN; fields are {', '.join(FIELDS)}")
        found[name] = column
    if "day" not in found or not found.keys() & {"amount", "quantity", *COUNTS}:
        raise BillError("--map: day=COLUMN and amount=COLUMN (or counts) are needed")
    return found


def read(where: str, rows: Iterable[dict[str, Any]], provider: str, columns: Mapping[str, str]) -> Bill:
    """Return the bill that the columns say. Raises `BillError`."""
    lines: list[Line] = []
    for count, row in enumerate(rows, 1):
        at = f"{where}, row {count}"
        absent = [column for column in columns.values() if column not in row]
        if absent:
            raise BillError(f"{where}: no column {absent[0]!r}; it has {', '.join(row)}")
        lines += _lines({name: row[column] for name, column in columns.items()}, at)
    days = dict.fromkeys(sorted({line.day for line in lines}), True)
    if not days:
        raise BillError(f"{where}: no row in it")
    return make_bill(provider, SOURCE, lines, days)


def _lines(row: Mapping[str, object], at: str) -> Iterable[Line]:
    day = _day(text(row, "day"), at)
    key_ref, principal, project, model, item = (text(row, name) for name in ABOUT)
    about = Line(day, OTHER, key_ref=key_ref, principal=principal, project=project, model=model, line_item=item)
    currency = text(row, "currency").upper() or "USD"
    amount = number(row["amount"], f"{at}: amount") if text(row, "amount") else None
    counts = [name for name in COUNTS if text(row, name)]
    meter = text(row, "meter") or (ALL if counts or about.model else OTHER)
    if meter not in METERS:
        raise BillError(f"{at}: meter {meter!r}: one of {', '.join(METERS)}")
    quantity = number(row["quantity"], f"{at}: quantity") if text(row, "quantity") else None
    if amount is not None or quantity is not None:
        usd = amount if currency == "USD" else None
        yield about._replace(meter=meter, quantity=quantity, amount=amount, currency=currency, amount_usd=usd)
    for name in counts:
        yield about._replace(meter=name, quantity=_count(row[name], f"{at}: {name}"), unit="tokens")


def _count(value: object, at: str) -> Decimal:
    found = number(value, at)
    if found < 0:
        raise BillError(f"{at}: {value!r} is no count")
    return found


def _day(value: str, at: str) -> date:
    return day_of(moment(value, at))
