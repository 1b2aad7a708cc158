"""A bill as lines of one form, whoever wrote it: a day of UTC, what it names, tokens or units, and exact money."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple

from tollmeter.schemas.escapes import one_line

TOKENS = ("input", "cache_read", "cache_write", "output")
"""Meters that count tokens, each token once: input is what was neither read from nor written to a cache."""
REQUESTS = "requests"
OTHER = "other"
"""Anything else: searches, images, storage, taxes, credits."""
ALL = "all"
"""An amount for all tokens of a call together, where a bill does not split it."""
PROMPT = "prompt"
"""All input tokens together, where a bill does not tell apart what a cache held."""
METERS = (*TOKENS, REQUESTS, OTHER, ALL, PROMPT)
MAX_AMOUNT, MAX_QUANTITY = Decimal(10) ** 12, Decimal(10) ** 24
YEARS = range(2001, 2149)
EXACT = Context(prec=76, rounding=ROUND_HALF_EVEN)
"""Sums of amounts lose nothing in it: the usual 28 digits are too few."""
PLACES, QUANTITY_PLACES = 18, 9
"""Decimals that an amount and a quantity are kept with; what has more is rounded there, half to even."""
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,80}(?:\.[0-9]{0,80})?|\.[0-9]{1,80})(?:[eE][-+]?[0-9]{1,4})?")
_LONGEST = 400


class BillError(ValueError):
    """The bill cannot be taken: one line says which file, what is wrong and what to do. Nothing was changed."""

    def __init__(self, said: str) -> None:
        super().__init__(one_line(" ".join(said.split()), _LONGEST))


class Line(NamedTuple):
    """One line of a bill. `quantity` and `amount` None = the line does not say."""

    day: date
    meter: str
    quantity: Decimal | None = None
    amount: Decimal | None = None
    """In `currency`, as billed, credits negative."""
    currency: str = "USD"
    amount_usd: Decimal | None = None
    key_ref: str = ""
    """The provider's name of the key; never the key."""
    principal: str = ""
    project: str = ""
    model: str = ""
    line_item: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Bill:
    """What one import brings: it replaces all that is known of `provider`, `account`, `source` on these days."""

    provider: str
    source: str
    lines: tuple[Line, ...]
    days: Mapping[date, bool]
    """Every day that the bill speaks of, also those without a line; False = not the whole day."""
    account: str = ""
    final: bool = True
    notes: tuple[str, ...] = field(default=())


def make_bill(
    provider: str,
    source: str,
    lines: Iterable[Line],
    days: Mapping[date, bool],
    account: str = "",
    *,
    final: bool = True,
) -> Bill:
    """Return the bill with lines of the same description added up. Raises `BillError`."""
    sums: dict[tuple[object, ...], list[Decimal | None]] = {}
    kept: dict[tuple[object, ...], Line] = {}
    if odd := [day for day in days if day.year not in YEARS]:
        raise BillError(f"{odd[0]} cannot be a day of this bill")
    for line in lines:
        if line.quantity is not None and abs(line.quantity) > MAX_QUANTITY:
            raise BillError(f"{line.day}: {line.quantity} {line.unit} cannot be")
        if line.amount is not None and abs(line.amount) > MAX_AMOUNT:
            raise BillError(f"{line.day}: an amount of {line.amount} {line.currency} cannot be")
        if line.quantity is not None and not (line.meter == OTHER or line.quantity >= 0):
            raise BillError(f"{line.day}: {line.quantity} {line.meter} cannot be")
        key = line._replace(quantity=None, amount=None, amount_usd=None)
        total = sums.setdefault(key, [None, None, None])
        kept.setdefault(key, line)
        for place, value in enumerate((line.quantity, line.amount, line.amount_usd)):
            total[place] = add(total[place], value)
    made = tuple(
        kept[key]._replace(quantity=rounded(q, QUANTITY_PLACES), amount=rounded(a), amount_usd=rounded(usd))
        for key, (q, a, usd) in sums.items()
    )
    return Bill(provider, source, made, dict(days), account, final)


def add(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    """Add what is known; unknown and unknown is unknown."""
    return right if left is None else left if right is None else EXACT.add(left, right)


def rounded(amount: Decimal | None, places: int = PLACES) -> Decimal | None:
    """Return an amount with at most so many decimals."""
    if amount is None:
        return None
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)
    return EXACT.quantize(amount, Decimal(1).scaleb(-places)) if -exponent > places else amount


def number(value: object, what: str) -> Decimal:
    """Return a number as it is written, never through a float's digits. Raises `BillError`."""
    written = "" if value is None else str(value).strip()
    if not _NUMBER.fullmatch(written):
        comma = ": expected a decimal point and no separator of thousands" if "," in written else ""
        raise BillError(f"{what}: {shown(value)} is no number{comma}")
    return Decimal(written)


def shown(value: object) -> str:
    """Return a value as a message says it: what is long is cut."""
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:60]} ..."


def counted(value: object, what: str) -> Decimal:
    """Return a whole count of at least 0. Raises `BillError`."""
    found = number(value, what)
    if found < 0 or found != found.to_integral_value():
        raise BillError(f"{what}: {shown(value)} is no count")
    return found


def objects(value: object, what: str) -> list[dict[str, object]]:
    """Return a list of JSON objects. Raises `BillError`."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BillError(f"{what}: {shown(value)} is no list of objects")
    return value


def currency_of(row: Mapping[str, object], name: str, where: str) -> str:
    """Return the currency that a row states; where it does not say so, nobody knows. Raises `BillError`."""
    found = text(row, name).upper()
    if not found:
        raise BillError(f"{where}: an amount without {name}")
    return found


def once(rows: list[dict[str, object]], where: str) -> list[dict[str, object]]:
    """Return the rows of a report, each the sum of all that it names. Raises `BillError` where two are alike."""
    seen: set[str] = set()
    for row in rows:
        content = repr(sorted(row.items()))
        if content in seen:
            raise BillError(f"{where}: {shown(row)} is there twice")
        seen.add(content)
    return rows


def get(row: Mapping[str, object], name: str, where: str) -> object:
    """Return a field that must be there: an absent one is never read as zero. Raises `BillError`."""
    if name not in row:
        raise BillError(f"{where}: no {name!r} in it")
    return row[name]


def text(row: Mapping[str, object], *names: str) -> str:
    """Return the first of these fields that says something."""
    for name in names:
        value = row.get(name)
        if value is not None and str(value).strip():
            return str(value).strip()[:400]
    return ""


def one_currency(lines: Sequence[Line]) -> str:
    """Return the currency of all lines. Raises `BillError` when there are several."""
    found = sorted({line.currency for line in lines if line.amount is not None})
    if len(found) > 1:
        raise BillError(f"amounts in {' and '.join(found)}: import a file for each currency")
    return found[0] if found else "USD"
