"""OpenRouter's activity: whole days of UTC by model and endpoint, usage in USD; what runs on one's own key is apart."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

from tollmeter.admin.bills.pages import Document
from tollmeter.streams.rules.bills.lines import (
    ALL,
    OTHER,
    PROMPT,
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

PROVIDER, SOURCE = "openrouter", "openrouter.activity"


def is_openrouter(row: dict[str, Any]) -> bool:
    return "date" in row and "usage" in row and "model" in row


def read(documents: Sequence[Document]) -> Bill:
    """Return the bill of all files. Raises `BillError`."""
    lines: list[Line] = []
    seen: dict[date, str] = {}
    for where, document in documents:
        rows = objects(get(document, "data", where) if isinstance(document, dict) else document, f"{where}: 'data'")
        once(rows, where)
        here = set()
        for number_, row in enumerate(rows, 1):
            at = f"{where}, entry {number_}"
            day = _day(get(row, "date", at), at)
            here.add(day)
            lines += _lines(day, row, at)
        for day in sorted(here & seen.keys()):
            raise BillError(f"{seen[day]} and {where}: both have {day}: import one of them")
        seen |= dict.fromkeys(here, where)
    return make_bill(PROVIDER, SOURCE, lines, dict.fromkeys(sorted(seen), True))


def _day(value: object, at: str) -> date:
    try:
        return datetime.fromisoformat(str(value)).date()
    except ValueError:
        raise BillError(f"{at}: {shown(value)} is no date") from None


def _lines(day: date, row: dict[str, Any], at: str) -> Iterator[Line]:
    about = Line(day, ALL, model=text(row, "model_permaslug", "model"), project=text(row, "provider_name"))
    for name, meter in (("prompt_tokens", PROMPT), ("completion_tokens", "output")):
        yield about._replace(meter=meter, quantity=counted(get(row, name, at), f"{at}: {name}"), unit="tokens")
    requests = counted(get(row, "requests", at), f"{at}: requests")
    yield about._replace(meter=REQUESTS, quantity=requests, unit="requests")
    usd = number(get(row, "usage", at), f"{at}: usage")
    yield about._replace(amount=usd, amount_usd=usd)
    byok = row.get("byok_usage_inference")
    if byok:
        cost = number(byok, f"{at}: byok_usage_inference")
        yield about._replace(meter=OTHER, line_item="inference on your own key (not billed here)", quantity=cost)
