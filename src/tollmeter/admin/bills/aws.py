"""AWS Cost and Usage Report 2.0: the lines of Amazon Bedrock, replaced whole until AWS closes the billing period.

Models are named in usage types: `USE1-Claude4.6Sonnet-input-tokens`, or `USE1-MP:USE1_InputTokenCount-Units` beside a
product whose name is the model. Amounts are unblended costs.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from tollmeter.admin.bills.pages import day_of, moment
from tollmeter.streams.rules.bills.lines import (
    EXACT,
    OTHER,
    Bill,
    BillError,
    Line,
    currency_of,
    get,
    make_bill,
    number,
    shown,
    text,
)

PROVIDER, SOURCE = "aws", "aws.cur"
MARK = "line_item_usage_start_date"
COLUMNS = (
    "identity_line_item_id",
    "identity_time_interval",
    "bill_billing_period_start_date",
    "bill_payer_account_id",
    "bill_bill_type",
    "bill_invoice_id",
    MARK,
    "line_item_line_item_type",
    "line_item_product_code",
    "line_item_usage_account_id",
    "line_item_usage_type",
    "line_item_usage_amount",
    "line_item_unblended_cost",
    "line_item_currency_code",
    "line_item_resource_id",
    "line_item_iam_principal",
    "line_item_line_item_description",
    "pricing_unit",
    "product_servicename",
    "product",
)
"""What is read of a file, as far as it is there."""
_ITEM = ("identity_line_item_id", "identity_time_interval", MARK)
UNITS = {"1k tokens": 1_000, "1m tokens": 1_000_000, "tokens": 1, "token": 1}
_MARKET = re.compile(r"(?:input|output|cache)_?(?:token|read|write|tokens)", re.IGNORECASE)
_KINDS = (
    ("cache_read", re.compile(r"cache[-_]?read", re.IGNORECASE)),
    ("cache_write", re.compile(r"cache[-_]?write", re.IGNORECASE)),
    ("input", re.compile(r"input[-_]?token", re.IGNORECASE)),
    ("output", re.compile(r"output[-_]?token", re.IGNORECASE)),
)


def is_aws(row: Mapping[str, object]) -> bool:
    return MARK in row


def read(where: str, rows: Iterable[dict[str, Any]]) -> Bill:
    """Return the Bedrock lines of one billing period. Raises `BillError`."""
    lines: list[Line] = []
    days: set[date] = set()
    accounts, periods, invoiced, items = set(), set(), True, Items()
    for count, row in enumerate(rows, 1):
        at = f"{where}, row {count}"
        period = day_of(moment(get(row, "bill_billing_period_start_date", at), at))
        periods.add(f"{period:%Y-%m}")
        accounts.add(text(row, "bill_payer_account_id", "line_item_usage_account_id"))
        items.add(row, at)
        day = _day(row, period, at)
        days.add(day)
        if not _bedrock(row):
            continue
        invoiced = invoiced and bool(text(row, "bill_invoice_id"))
        lines.append(_line(day, row, at))
    if not lines:
        raise BillError(f"{where}: no line of Amazon Bedrock in it")
    if len(periods) != 1 or len(accounts) != 1:
        found = sorted(periods if len(periods) != 1 else accounts)
        raise BillError(f"{where}: several billing periods or payers ({', '.join(found)}): import them one by one")
    final = invoiced and len({line.currency for line in lines}) == 1
    first, last = min(days), max(days)
    every = [date.fromordinal(number_) for number_ in range(first.toordinal(), last.toordinal() + 1)]
    return make_bill(PROVIDER, SOURCE, lines, dict.fromkeys(every, True), accounts.pop(), final=final)


class Items:
    """The line items so far: one that is there twice would be paid twice."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def add(self, row: dict[str, Any], at: str) -> None:
        """Note an item. Raises `BillError`."""
        item = tuple(text(row, name) for name in _ITEM)
        if item[0] and item in self._seen:
            raise BillError(f"{at}: line item {item[0]} is there twice")
        self._seen.add(item)


def _day(row: dict[str, Any], period: date, at: str) -> date:
    """Return the day of a row. Credits and fees of other months are of the first or last day of the one they bill."""
    day = day_of(moment(get(row, MARK, at), at))
    last = (period.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    if period <= day <= last:
        return day
    if _is_usage(row):
        raise BillError(f"{at}: usage of {day} in the bill of {period:%Y-%m}")
    return min(max(day, period), last)


def _is_usage(row: dict[str, Any]) -> bool:
    return text(row, "line_item_line_item_type") in ("Usage", "")


def _bedrock(row: dict[str, Any]) -> bool:
    words = text(row, "line_item_product_code") + text(row, "product_servicename") + str(row.get("product") or "")
    return "bedrock" in words.lower() or bool(_MARKET.search(text(row, "line_item_usage_type")))


def _line(day: date, row: dict[str, Any], at: str) -> Line:
    usage_type = text(row, "line_item_usage_type")
    cost = number(get(row, "line_item_unblended_cost", at), f"{at}: line_item_unblended_cost")
    currency = currency_of(row, "line_item_currency_code", at)
    meter = next((name for name, pattern in _KINDS if pattern.search(usage_type)), OTHER) if _is_usage(row) else OTHER
    amount = row.get("line_item_usage_amount")
    unit = text(row, "pricing_unit")
    factor = UNITS.get(unit.lower())
    if meter != OTHER and factor is None:
        raise BillError(f"{at}: {usage_type} in unit {shown(unit)}: expected 1K tokens, 1M tokens or tokens")
    return Line(
        day,
        meter,
        None if amount in (None, "") else EXACT.multiply(number(amount, f"{at}: amount"), Decimal(factor or 1)),
        cost,
        currency,
        cost if currency == "USD" else None,
        principal=text(row, "line_item_iam_principal"),
        project=text(row, "line_item_usage_account_id"),
        model=_model(usage_type, row) if meter != OTHER else "",
        line_item=usage_type or text(row, "line_item_line_item_description", "line_item_line_item_type"),
        unit="tokens" if meter != OTHER else unit,
    )


def _model(usage_type: str, row: dict[str, Any]) -> str:
    """Return the words that name the model: between region and kind of token, else the product's name."""
    if "MP:" in usage_type:
        name = text(row, "product_servicename") or _product(row.get("product"))
        return name.partition(" (Amazon Bedrock")[0]
    plain = re.sub(r"[-_](?:input|output|cache).*$", "", usage_type, flags=re.IGNORECASE)
    return re.sub(r"^[A-Z]{2,4}\d?-", "", plain)


def _product(product: object) -> str:
    """Return the service's name of a `product` map: pairs, a dict, or its JSON text."""
    if isinstance(product, str):
        found = re.search(r"servicename\W+([^\"'}]+)", product)
        return found[1].strip() if found else ""
    pairs = product.items() if isinstance(product, dict) else _pairs(product)
    return next((str(value) for key, value in pairs if key == "servicename"), "")


def _pairs(product: object) -> Iterable[tuple[str, object]]:
    return [(one["key"], one["value"]) for one in product] if isinstance(product, list) else []
