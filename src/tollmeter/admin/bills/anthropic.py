"""Anthropic's usage and cost reports. Amounts are text in cents ("123.45" = 1.23 USD); Priority Tier is not in them."""

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from tollmeter.admin.bills.pages import Days, Document, buckets, moment
from tollmeter.streams.rules.bills.lines import (
    EXACT,
    OTHER,
    Bill,
    BillError,
    Line,
    counted,
    get,
    make_bill,
    number,
    objects,
    once,
    shown,
    text,
)

PROVIDER = "anthropic"
CENTS = Decimal(100)
NOTE = "Anthropic's reports leave out Priority Tier: what was spent there is on the invoice alone"
_METERS = {
    "uncached_input_tokens": "input",
    "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write",
    "output_tokens": "output",
}


def is_anthropic(bucket: dict[str, Any]) -> bool:
    return "starting_at" in bucket


def read(documents: Sequence[Document]) -> Bill:
    """Return the bill of one report. Raises `BillError`."""
    days, sources = Days(), set()
    lines: list[Line] = []
    for where, bucket in buckets(documents, "starting_at"):
        begin = moment(bucket["starting_at"], where)
        at = f"{where}, {begin:%Y-%m-%d}"
        day = days.cover(begin, moment(get(bucket, "ending_at", at), at), at)
        for result in once(objects(get(bucket, "results", at), f"{at}: 'results'"), at):
            is_cost = "amount" in result
            sources.add("anthropic.cost" if is_cost else "anthropic.usage")
            lines += _cost(day, result, at) if is_cost else _usage(day, result, at)
    if len(sources) != 1:
        found = "usage and costs together" if sources else "no result in any bucket"
        raise BillError(f"{documents[0][0]}: {found}: import the results of one report at a time")
    return make_bill(PROVIDER, sources.pop(), lines, days.all())


def _about(day: date, result: dict[str, Any]) -> Line:
    return Line(
        day,
        OTHER,
        key_ref=text(result, "api_key_id"),
        principal=text(result, "account_id", "service_account_id"),
        project=text(result, "workspace_id"),
        model=text(result, "model"),
    )


def _cost(day: date, result: dict[str, Any], at: str) -> Iterator[Line]:
    raw = result["amount"]
    if not isinstance(raw, str):
        raise BillError(
            f"{at}: amount {shown(raw)} is no text: Anthropic states cents as text, so this may be other units"
        )
    currency = text(result, "currency").upper()
    if not currency:
        raise BillError(f"{at}: an amount without a currency")
    amount = EXACT.divide(number(raw, f"{at}: amount"), CENTS)
    meter = _METERS.get(text(result, "token_type"), OTHER)
    yield _about(day, result)._replace(
        meter=meter,
        amount=amount,
        currency=currency,
        amount_usd=amount if currency == "USD" else None,
        line_item=text(result, "description", "cost_type"),
    )


def _usage(day: date, result: dict[str, Any], at: str) -> Iterator[Line]:
    about = _about(day, result)
    made = get(result, "cache_creation", at)
    if not isinstance(made, dict) or not made:
        raise BillError(f"{at}: 'cache_creation' is no object with counts")
    tokens = {
        "input": counted(get(result, "uncached_input_tokens", at), f"{at}: uncached_input_tokens"),
        "cache_read": counted(get(result, "cache_read_input_tokens", at), f"{at}: cache_read_input_tokens"),
        "cache_write": sum((counted(count, f"{at}: cache_creation") for count in made.values()), Decimal(0)),
        "output": counted(get(result, "output_tokens", at), f"{at}: output_tokens"),
    }
    for meter, count in tokens.items():
        yield about._replace(meter=meter, quantity=count, unit="tokens")
    used = result.get("server_tool_use") or {}
    if not isinstance(used, dict):
        raise BillError(f"{at}: 'server_tool_use' is no object")
    for name, count in used.items():
        yield about._replace(line_item=name, unit=name, quantity=counted(count, f"{at}: {name}"))
