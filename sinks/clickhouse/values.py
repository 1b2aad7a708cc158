"""What a column takes of Python's values, said before they are sent: ClickHouse's reader of JSON refuses too little.

Without a word it makes 0 of null, of "" and of what is no number, another number of one that is too large, fewer digits
of a decimal, and 1970 of a day that it does not know; no setting of it helps.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from uuid import UUID

NO_NULL, OUT_OF_RANGE = 349, 321
"""ClickHouse's own numbers for a NULL and for a value that a column does not take."""
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2149, 6, 6)
_TIMES = datetime(1970, 1, 1, tzinfo=UTC), datetime(2106, 2, 7, tzinfo=UTC)
_LONG_TIMES = datetime(1900, 1, 1, tzinfo=UTC), datetime(2299, 12, 31, tzinfo=UTC)
_WRAPPED = re.compile(r"^(Nullable|LowCardinality)\((.*)\)$")
_INTEGER = re.compile(r"^(U?)Int(\d+)$")
_DECIMAL = re.compile(r"^Decimal\((\d+), (\d+)\)$")
_SECONDS = range(1_000_000_000, 10_000_000_000)
"""Whole seconds since 1970 that are read as such: ten digits."""
Fits = Callable[[object], bool]


class Misfit(ValueError):  # noqa: N818 - a verdict
    """A value that its column does not take; `code` is what ClickHouse would call it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def check(types: Mapping[str, str], columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Return when each value can be read back as it is. `types`: of the table's columns. Raises `Misfit`."""
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        if column in types:
            _check_column(column, types[column], values)


def _check_column(column: str, declared: str, values: Sequence[object]) -> None:
    kind, takes_null = declared, False
    while wrapped := _WRAPPED.match(kind):
        takes_null |= wrapped[1] == "Nullable"
        kind = wrapped[2]
    fits = fits_of(kind)
    for value in values:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            if not takes_null or value is not None:
                raise Misfit(f"column {column} ({declared}) takes no {value if value is not None else 'NULL'}", NO_NULL)
        elif not fits(value):
            raise Misfit(f"column {column} ({declared}) takes no {value!r:.60}", OUT_OF_RANGE)


def fits_of(kind: str) -> Fits:
    """Return what tells whether a value that is not NULL can be read back of a type. Raises `ValueError`."""
    if number := _INTEGER.match(kind):
        bits = int(number[2]) - (not number[1])
        least, most = (0 if number[1] else -(1 << bits)), (1 << bits) - 1
        return lambda value: isinstance(value, int) and least <= value <= most
    if number := _DECIMAL.match(kind):
        digits, scale = int(number[1]), int(number[2])
        return lambda value: _is_decimal(value, digits, scale)
    if kind.startswith("DateTime"):
        return _is_long_time if kind.startswith("DateTime64(") else _is_time
    if kind in _OTHERS:
        return _OTHERS[kind]
    raise ValueError(f"nobody has said what a column of type {kind} takes: say it here")


def _is_decimal(value: object, digits: int, scale: int) -> bool:
    try:
        number = Decimal(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    except InvalidOperation:
        return False
    if number is None or not number.is_finite():
        return False
    _, coefficient, exponent = number.normalize().as_tuple() if number else (0, (0,), 0)
    assert isinstance(exponent, int)
    return exponent >= -scale and len(coefficient) + exponent <= digits - scale


def _is_day(value: object) -> bool:
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return False
    return isinstance(day, date) and not isinstance(day, datetime) and _FIRST_DAY <= day <= _LAST_DAY


def _is_time(value: object, span: tuple[datetime, datetime] = _TIMES) -> bool:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return False
    if type(value) is int and value in _SECONDS:
        time = datetime.fromtimestamp(value, UTC)
    return isinstance(time, datetime) and span[0] <= (time if time.tzinfo else time.replace(tzinfo=UTC)) < span[1]


def _is_long_time(value: object) -> bool:
    return _is_time(value, _LONG_TIMES)


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(UUID(value))
    except ValueError:
        return False


_OTHERS: Mapping[str, Fits] = {
    "String": lambda value: isinstance(value, str),
    "Bool": lambda value: isinstance(value, bool),
    "Date": _is_day,
    "UUID": _is_uuid,
}
