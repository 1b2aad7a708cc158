"""Azure's cost export or Cost Details (EA and MCA): rows of Azure OpenAI and Foundry models, by resource and meter."""

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from tollmeter.streams.rules.bills.lines import EXACT, OTHER, Bill, BillError, Line, make_bill, number, shown, text

PROVIDER, SOURCE = "azure", "azure.cost"
_AI = re.compile(r"openai|foundry|cognitive|azure ai", re.IGNORECASE)
_KINDS = (
    ("cache_read", re.compile(r"cach|cchd", re.IGNORECASE)),
    ("input", re.compile(r"\binp(?:ut)?\b|prompt", re.IGNORECASE)),
    ("output", re.compile(r"\b(?:outp(?:ut)?|opt|outpt)\b|completion", re.IGNORECASE)),
)
_UNIT = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)\s*(?P<scale>[KM])?", re.IGNORECASE | re.ASCII)
_TIME = re.compile(r"[T ]\d\d:\d\d.*$")
_CENT = Decimal("0.01")
_SCALES = {"": 1, "K": 1_000, "M": 1_000_000}
_WORDS = re.compile(
    r"[ -](?:inp|input|prompt|cach|cchd|out|opt|completion|glbl|global|regnl|regional|dz|data zone).*$", re.IGNORECASE
)


def is_azure(row: Mapping[str, object]) -> bool:
    names = {name.lower() for name in row}
    return "metername" in names and bool(names & {"costinbillingcurrency", "costinusd", "pretaxcost"})


def read(where: str, rows: Iterable[dict[str, Any]]) -> Bill:
    """Return the lines of AI services. Raises `BillError`."""
    lines: list[Line] = []
    days: set[date] = set()
    accounts = set()
    for count, raw in enumerate(rows, 1):
        at = f"{where}, row {count}"
        row = {name.lower(): value for name, value in raw.items()}
        accounts.add(text(row, "billingaccountid", "billingaccountname", "subscriptionid", "subscriptionguid"))
        day = _day(text(row, "date", "usagedatetime", "usagedate"), at)
        _check_period(day, row, at)
        days.add(day)
        if _AI.search(text(row, "metercategory") + text(row, "metersubcategory")):
            lines.append(_line(day, row, at))
    if not lines:
        raise BillError(f"{where}: no line of Azure OpenAI or Foundry models in it")
    if len(accounts) != 1:
        raise BillError(f"{where}: several billing accounts ({', '.join(sorted(accounts))}): import them one by one")
    return make_bill(PROVIDER, SOURCE, lines, dict.fromkeys(sorted(days), True), accounts.pop())


def _day(value: str, at: str) -> date:
    """Return a day written as 2026-11-30 or 11/30/2026, the two ways of the exports."""
    written = _TIME.sub("", value)
    for form in ("%Y-%m-%d", "%m/%d/%Y", "%Y%m%d"):
        try:
            return datetime.strptime(written, form).date()  # noqa: DTZ007 - a day, no time
        except ValueError:
            continue
    raise BillError(f"{at}: {shown(value)} is no date: expected 2026-11-30 or 11/30/2026")


def _check_period(day: date, row: Mapping[str, object], at: str) -> None:
    """Raise `BillError` for a day that its billing period has not: days may be written before months."""
    first, last = (text(row, name) for name in ("billingperiodstartdate", "billingperiodenddate"))
    if first and last and not _day(first, at) <= day <= _day(last, at):
        raise BillError(f"{at}: {day} is not in the billing period from {first} to {last}")


def _line(day: date, row: dict[str, Any], at: str) -> Line:
    name = text(row, "metername")
    cost = text(row, "costinbillingcurrency", "pretaxcost")
    currency = text(row, "billingcurrency", "billingcurrencycode", "currency").upper() or ("USD" if not cost else "")
    if cost and not currency:
        raise BillError(f"{at}: an amount without BillingCurrency")
    usd = text(row, "costinusd")
    amount = number(cost or usd, f"{at}: cost")
    if currency == "USD" and usd and abs(amount - number(usd, f"{at}: CostInUsd")) > max(_CENT, abs(amount) / 1_000):
        raise BillError(f"{at}: {amount} and {usd} are both in USD: the row contradicts itself")
    meter = next((kind for kind, pattern in _KINDS if pattern.search(name)), OTHER)
    quantity, unit = text(row, "quantity", "usagequantity"), text(row, "unitofmeasure")
    return Line(
        day,
        meter,
        _tokens(quantity, unit, at) if meter != OTHER else (number(quantity, at) if quantity else None),
        amount,
        currency,
        amount if currency == "USD" else number(usd, f"{at}: CostInUsd") if usd else None,
        project=text(row, "resourceid", "instanceid", "resourcename"),
        model=_WORDS.sub("", name) if meter != OTHER else "",
        line_item=name,
        unit="tokens" if meter != OTHER else unit,
    )


def _tokens(quantity: str, unit: str, at: str) -> Decimal | None:
    if not quantity:
        return None
    found = _UNIT.fullmatch(unit.strip())
    if not found or not Decimal(found["count"]):
        raise BillError(f"{at}: unit {shown(unit)}: expected a number of tokens such as 1K or 1M")
    factor = EXACT.multiply(Decimal(found["count"]), Decimal(_SCALES[(found["scale"] or "").upper()]))
    return EXACT.multiply(number(quantity, f"{at}: quantity"), factor)
