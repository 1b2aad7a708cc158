"""OpenAI's organisation usage and costs: pages of buckets, or the bare list of buckets; amounts digit by digit.

Shapes: openapi 2.3.0, `organization.usage.*.result` and `organization.costs.result`. Input tokens are inclusive there.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from tollmeter.admin.bills.pages import Days, Document, buckets, moment
from tollmeter.streams.rules.bills.lines import (
    OTHER,
    REQUESTS,
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

PROVIDER = "openai"
COSTS = "organization.costs.result"
USAGE = "organization.usage."
TOKEN_USAGE = ("completions", "embeddings", "moderations")
UNITS = {
    "images": "images",
    "audio_speeches": "characters",
    "audio_transcriptions": "seconds",
    "vector_stores": "usage_bytes",
    "code_interpreter_sessions": "num_sessions",
    "file_search_calls": "num_requests",
    "web_search_calls": "num_requests",
}
"""Usage that is not counted in tokens, and the field that counts it."""
_METER = re.compile(r"^(?P<model>.+?),? (?P<meter>cached input|cache write|input|output)(?: tokens)?$")
_METERS = {"input": "input", "cached input": "cache_read", "cache write": "cache_write", "output": "output"}


def is_openai(bucket: dict[str, Any]) -> bool:
    return isinstance(bucket.get("start_time"), int)


def read(documents: Sequence[Document]) -> Bill:
    """Return the bill of one report. Raises `BillError`."""
    days, lines, kinds = Days(), [], set()
    for where, bucket in buckets(documents, "start_time"):
        begin = moment(bucket["start_time"], where)
        at = f"{where}, {begin:%Y-%m-%d}"
        day = days.cover(begin, moment(get(bucket, "end_time", at), at), at)
        for result in once(objects(get(bucket, "results", at), f"{at}: 'results'"), at):
            kind = str(get(result, "object", at))
            kinds.add(kind)
            lines += [line._replace(day=day) for line in _lines(kind, result, at, day)]
    if len(kinds) != 1:
        found = " and ".join(sorted(kinds)) if kinds else "no result in any bucket"
        raise BillError(f"{documents[0][0]}: {found}: import the results of one report at a time")
    (kind,) = kinds
    source = "openai.costs" if kind == COSTS else "openai.usage." + kind.removeprefix(USAGE).removesuffix(".result")
    return make_bill(PROVIDER, source, lines, days.all())


def _lines(kind: str, result: dict[str, Any], at: str, day: date) -> Iterator[Line]:
    about = Line(
        day,
        OTHER,
        key_ref=text(result, "api_key_id"),
        principal=text(result, "user_id"),
        project=text(result, "project_id"),
        model=text(result, "model"),
    )
    if kind == COSTS:
        yield _cost(about, result, at)
        return
    name = kind.removeprefix(USAGE).removesuffix(".result")
    if name in TOKEN_USAGE:
        yield from _tokens(about, result, at, answers=name == "completions")
    elif name in UNITS:
        field = UNITS[name]
        yield about._replace(line_item=name, unit=field, quantity=counted(get(result, field, at), f"{at}: {field}"))
    else:
        raise BillError(f"{at}: results of kind {shown(kind)} are not known here: costs and usage.* are")


def _cost(about: Line, result: dict[str, Any], at: str) -> Line:
    amount = get(result, "amount", at)
    if not isinstance(amount, dict):
        raise BillError(f"{at}: 'amount' is no object with value and currency")
    currency = text(amount, "currency").upper()
    if not currency:
        raise BillError(f"{at}: an amount without a currency")
    value = number(get(amount, "value", at), f"{at}: amount")
    item = text(result, "line_item")
    model, meter = split(item)
    quantity, unit = result.get("quantity"), text(result, "quantity_unit")
    if meter != OTHER and unit.lower() not in ("token", "tokens"):
        quantity = None  # of tokens only what says so: the usage report has the counts
    return about._replace(
        line_item=item,
        model=model,
        meter=meter,
        amount=value,
        currency=currency,
        amount_usd=value if currency == "USD" else None,
        quantity=None if quantity is None else number(quantity, f"{at}: quantity"),
        unit=unit,
    )


def split(item: str) -> tuple[str, str]:
    """Return model and meter of a line item like "gpt-4o-2024-08-06, cached input"; another one is no tokens."""
    found = _METER.match(item)
    return (found["model"].strip(), _METERS[found["meter"]]) if found else ("", OTHER)


def _tokens(about: Line, result: dict[str, Any], at: str, *, answers: bool) -> Iterator[Line]:
    def count(name: str, default: int | None = None) -> Decimal:
        value = result.get(name) if default is not None else get(result, name, at)
        return counted(default if value is None and default is not None else value, f"{at}: {name}")

    total, read_, write = count("input_tokens"), count("input_cached_tokens", 0), count("input_cache_write_tokens", 0)
    if read_ + write > total:
        raise BillError(f"{at}: {read_ + write} cached input tokens of {total}: the report contradicts itself")
    requests = count("num_model_requests")
    output = count("output_tokens", None if answers else 0)
    yield about._replace(meter="input", quantity=total - read_ - write, unit="tokens")
    yield about._replace(meter="cache_read", quantity=read_, unit="tokens")
    yield about._replace(meter="cache_write", quantity=write, unit="tokens")
    yield about._replace(meter="output", quantity=output, unit="tokens")
    yield about._replace(meter=REQUESTS, quantity=requests, unit="requests")
