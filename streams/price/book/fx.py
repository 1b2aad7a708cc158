"""Dated exchange rates from a CSV file, as a bank quotes them.

Columns: day, currency, usd_per_unit or units_per_usd (one of the two, as the bank quotes it), source. A wrong file
raises `FxError`, which names file, line and column of every mistake.
"""

import csv
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

from tollmeter.schemas.money import FX_COLUMNS, NANO_PER_USD
from tollmeter.streams.rules.pricing.fx import CURRENCIES, MAX_PER_USD_NANO, Rate

SHIPPED = Path(__file__).with_name("fx_rates.csv")
COLUMNS = FX_COLUMNS


class FxError(ValueError):
    """The file of exchange rates is wrong; the text has one line per mistake."""


def read_lines(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    """Return the lines of a file and their numbers; each makes a rate. Raises `FxError`, one line per mistake."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FxError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise FxError(
            f"{path}:1: the first line must be {','.join(COLUMNS)} (a file of the ECB or the Bank of Russia is taken "
            "over by 'tollmeter prices fx update')"
        )
    rates: set[tuple[date, str]] = set()
    found: list[tuple[int, tuple[str, ...]]] = []
    problems: list[str] = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cells):
            continue
        try:
            rate = rate_of(cells)
            if (rate.day, rate.currency) in rates:
                raise FxError(f"day: a second {rate.currency} rate for {rate.day}")
            rates.add((rate.day, rate.currency))
            found.append((number, tuple(cells)))
        except FxError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        raise FxError("\n".join(problems))
    return found


def rate_of(cells: Sequence[str]) -> Rate:
    """Return the rate of one line. Raises `FxError`, which names the column."""
    if len(cells) != len(COLUMNS):
        raise FxError(f"{len(cells)} columns; expected {len(COLUMNS)}")
    row = dict(zip(COLUMNS, (cell.strip() for cell in cells), strict=True))
    try:
        day = date.fromisoformat(row["day"])
    except ValueError:
        raise FxError(f"day: {row['day']!r} is no date; write 2024-12-31") from None
    if row["currency"] not in CURRENCIES:
        raise FxError(f"currency: {row['currency']!r}; known are {', '.join(CURRENCIES)}")
    if not row["source"]:
        raise FxError("source: say where the rate comes from")
    return Rate(day, row["currency"], _per_usd_nano(row), row["source"])


def _per_usd_nano(row: Mapping[str, str]) -> int:
    given = [column for column in ("usd_per_unit", "units_per_usd") if row[column]]
    if len(given) != 1:
        raise FxError("usd_per_unit, units_per_usd: give exactly one of the two")
    try:
        value = Decimal(row[given[0]])
    except InvalidOperation:
        raise FxError(f"{given[0]}: {row[given[0]]!r} is no number") from None
    if not value.is_finite() or value <= 0:
        raise FxError(f"{given[0]}: {value} is no rate")
    per_usd = 1 / Fraction(value) if given[0] == "usd_per_unit" else Fraction(value)
    nano = round(per_usd * NANO_PER_USD)  # half to even
    if not 0 < nano <= MAX_PER_USD_NANO:
        raise FxError(f"{given[0]}: {value} is out of range")
    return nano
