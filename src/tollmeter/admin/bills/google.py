"""Google Cloud's billing export: rows of the BigQuery table, as JSON or CSV; due is cost with credits."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from tollmeter.admin.bills.pages import day_of, moment
from tollmeter.streams.rules.bills.lines import (
    EXACT,
    OTHER,
    Bill,
    BillError,
    Line,
    add,
    currency_of,
    get,
    make_bill,
    number,
    objects,
    shown,
    text,
)

PROVIDER, SOURCE = "google", "google.billing"
_AI = re.compile(r"vertex|gemini|generative language|ai platform|claude", re.IGNORECASE)
_KINDS = (
    ("cache_read", re.compile(r"cach\w* .*(?:token|input)|(?:token|input).* cach|cache read", re.IGNORECASE)),
    ("input", re.compile(r"input .*token|input token|prompt token|text input", re.IGNORECASE)),
    ("output", re.compile(r"output .*token|output token|response token|text output", re.IGNORECASE)),
)
_SKU_WORDS = re.compile(
    r"\b(?:input|output|token|tokens|count|text|cached|predictions?|for|generate content)\b.*$", re.IGNORECASE
)


def is_google(row: Mapping[str, object]) -> bool:
    return "usage_start_time" in row and "cost" in row and ("sku" in row or "sku.description" in row)


def read(where: str, rows: Iterable[dict[str, Any]]) -> Bill:
    """Return the lines of AI services. Raises `BillError`."""
    lines: list[Line] = []
    days: set[date] = set()
    accounts = set()
    for count, row in enumerate(rows, 1):
        at = f"{where}, row {count}"
        accounts.add(text(row, "billing_account_id"))
        day = day_of(moment(get(row, "usage_start_time", at), at))
        days.add(day)
        service = _inner(row, "service", "description")
        if _AI.search(service) or _AI.search(_inner(row, "sku", "description")):
            lines.append(_line(day, row, at))
    if not lines:
        raise BillError(f"{where}: no line of Vertex AI or the Gemini API in it")
    if len(accounts) != 1:
        raise BillError(f"{where}: several billing accounts ({', '.join(sorted(accounts))}): import them one by one")
    return make_bill(PROVIDER, SOURCE, lines, dict.fromkeys(sorted(days), True), accounts.pop())


def _line(day: date, row: dict[str, Any], at: str) -> Line:
    sku = _inner(row, "sku", "description")
    net: Decimal | None = number(get(row, "cost", at), f"{at}: cost")
    for credit in _list(row.get("credits"), at):
        net = add(net, number(get(credit, "amount", at), f"{at}: credits"))
    assert net is not None
    currency = currency_of(row, "currency", at)
    meter = next((name for name, pattern in _KINDS if pattern.search(sku)), OTHER)
    unit = _inner(row, "usage", "unit")
    quantity = _inner(row, "usage", "amount")
    return Line(
        day,
        meter,
        number(quantity, f"{at}: usage.amount") if quantity else None,
        net,
        currency,
        _usd(net, currency, row, at),
        project=_inner(row, "project", "id"),
        model=_SKU_WORDS.sub("", sku).strip(" -") if meter != OTHER else "",
        line_item=sku,
        unit="tokens" if meter != OTHER else unit,
    )


def _usd(net: Decimal, currency: str, row: dict[str, Any], at: str) -> Decimal | None:
    """Return the amount in USD by the rate that the row states: units of the currency for one USD."""
    if currency == "USD":
        return net
    rate = row.get("currency_conversion_rate")
    if rate in (None, ""):
        return None
    per_usd = number(rate, f"{at}: currency_conversion_rate")
    if per_usd <= 0:
        raise BillError(f"{at}: currency_conversion_rate {per_usd} cannot be")
    return EXACT.divide(net, per_usd)


def _inner(row: Mapping[str, object], outer: str, name: str) -> str:
    """Return a field of a record, nested as in JSON or flat as in CSV (`sku.description`, `sku_description`)."""
    inside = row.get(outer)
    if isinstance(inside, str) and inside.startswith("{"):
        try:
            inside = json.loads(inside, parse_float=Decimal)
        except (ValueError, RecursionError):
            raise BillError(f"{outer}: {shown(inside)} is no JSON object") from None
    if isinstance(inside, dict):
        return text(inside, name)
    return text(row, f"{outer}.{name}", f"{outer}_{name}")


def _list(value: object, at: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(value, parse_float=Decimal) if isinstance(value, str) and value.strip() else value or []
    except (ValueError, RecursionError):
        found = value
    return objects(found, f"{at}: credits")
