"""A bill as CSV of anybody else: the user says which column is what, and in which currency and digits amounts are.

What would be a guess is refused: a currency that the file names beside, a comma or a point that may group thousands.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from tollmeter.admin.bills.pages import day_of, moment
from tollmeter.admin.bills.tables import Numbered
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
    counted,
    make_bill,
    number,
    shown,
    text,
)

SOURCE = "csv"
ABOUT = ("key_ref", "principal", "project", "model", "line_item")
COUNTS = (*TOKENS, PROMPT, REQUESTS)
FIELDS = ("day", "amount", "currency", *ABOUT, "meter", "quantity", *COUNTS)
"""What a column can be: one line may have a meter and its quantity, or a column for each count and one amount."""
_CURRENCY = re.compile(r"curr|wahrung|währung|devise|divisa|moneda|valuta|валют", re.IGNORECASE)
_STATED = re.compile(r"\b(?:EUR|RUB|GBP|CHF|JPY|CNY|INR|CAD|AUD|cents?|ct|kop)\b|[€₽£¥₹]", re.IGNORECASE)
_GROUPED = re.compile(r"[-+]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?")
_DOTTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")
COMMA, POINT = "comma", "point"
Row = Mapping[str, object]


@dataclass(frozen=True)
class Columns:
    """Which column is what: {field: column}. `currency` of amounts, where no column says; `decimal` comma or point."""

    fields: Mapping[str, str]
    currency: str = ""
    decimal: str = ""


def mapping(texts: Iterable[str], currency: str = "", decimal: str = "") -> Columns:
    """Return what FIELD=COLUMN texts say. Raises `BillError`."""
    found: dict[str, str] = {}
    for part in texts:
        name, equals, column = part.partition("=")
        if not equals or name not in FIELDS or not column:
            raise BillError(f"--map {part}: write FIELD=COLUMN; fields are {', '.join(FIELDS)}")
        if name in found:
            raise BillError(f"--map {part}: {name} is {found[name]!r} already")
        found[name] = column
    if "day" not in found or not found.keys() & {"amount", "quantity", *COUNTS}:
        raise BillError("--map: day=COLUMN and amount=COLUMN (or counts) are needed")
    if currency and "currency" in found:
        raise BillError("--currency beside --map currency=COLUMN: one of them says it")
    return Columns(found, currency.upper(), decimal)


def read(tables: Sequence[tuple[str, Numbered]], provider: str, columns: Columns) -> Bill:
    """Return the bill that the columns say. Raises `BillError`."""
    lines: list[Line] = []
    days: dict[date, str] = {}
    for where, rows in tables:
        here: set[date] = set()
        for line, row in rows:
            if not here:
                _check_head(row, columns, where)
            made = list(_lines({name: row[column] for name, column in columns.fields.items()}, columns, where, line))
            if not made:
                raise BillError(f"{where}, line {line}: neither an amount nor a count in it")
            here.add(made[0].day)
            lines += made
        for day in sorted(here & days.keys()):
            raise BillError(f"{days[day]} and {where}: both have {day}: import one file that has all of a day")
        days |= dict.fromkeys(here, where)
    if not days:
        raise BillError(f"{tables[0][0]}: no row in it")
    return make_bill(provider, SOURCE, lines, dict.fromkeys(sorted(days), True))


def _check_head(row: Row, columns: Columns, where: str) -> None:
    """Raise `BillError` when a column is not there, or another one says what amounts are."""
    absent = [column for column in columns.fields.values() if column not in row]
    if absent:
        raise BillError(f"{where}: no column {absent[0]!r}; it has {', '.join(row)}")
    amount = columns.fields.get("amount")
    if amount is None or columns.currency or "currency" in columns.fields:
        return
    if said := _STATED.search(amount):
        raise BillError(f"{where}: column {amount!r} speaks of {said[0]}: say --currency (amounts in whole units)")
    beside = [name for name in row if name and _CURRENCY.search(name)]
    if beside:
        raise BillError(f"{where}: say --map currency={beside[0]}, or --currency USD if that is what amounts are in")


def _lines(row: Row, columns: Columns, where: str, line: int) -> Iterator[Line]:
    at = f"{where}, line {line}"
    day = _day(text(row, "day"), at)
    key_ref, principal, project, model, item = (text(row, name) for name in ABOUT)
    about = Line(day, OTHER, key_ref=key_ref, principal=principal, project=project, model=model, line_item=item)
    currency = text(row, "currency").upper() or columns.currency or "USD"
    counts = [name for name in COUNTS if text(row, name)]
    meter = text(row, "meter") or (ALL if counts or about.model else OTHER)
    if meter not in METERS:
        raise BillError(f"{at}: meter {shown(meter)}: one of {', '.join(METERS)}")
    amount, quantity = (
        number(_pointed(row[name], columns.decimal, f"{at}: {name}"), f"{at}: {name}") if text(row, name) else None
        for name in ("amount", "quantity")
    )
    if amount is not None or quantity is not None:
        usd = amount if currency == "USD" else None
        yield about._replace(meter=meter, quantity=quantity, amount=amount, currency=currency, amount_usd=usd)
    for name in counts:
        count = counted(_pointed(row[name], columns.decimal, f"{at}: {name}"), f"{at}: {name}")
        yield about._replace(meter=name, quantity=count, unit=REQUESTS if name == REQUESTS else "tokens")


def _pointed(value: object, decimal: str, at: str) -> object:
    """Return a number with a point for its decimals. Raises `BillError`."""
    if not isinstance(value, str):
        return value
    written = value.strip()
    if decimal == COMMA:
        if not _GROUPED.fullmatch(written):
            raise BillError(f"{at}: {shown(written)} is no number with a decimal comma such as 1.234,56")
        return written.replace(".", "").replace(",", ".")
    if "," in written and not decimal:
        raise BillError(
            f"{at}: {shown(written)}: say --decimal comma if that is 1,5 for one and a half, else write 1.5"
        )
    return written


def _day(value: str, at: str) -> date:
    dotted = _DOTTED.fullmatch(value)
    if dotted:
        value = f"{dotted[3]}-{int(dotted[2]):02}-{int(dotted[1]):02}"
    elif "/" in value:
        raise BillError(f"{at}: {shown(value)} may be two days: write it as 2026-11-30")
    return day_of(moment(value, at))
