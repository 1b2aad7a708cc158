"""The page Prices: what a model costs, since when and by which source, and what a call would cost, as the commands say.

The book is that of this server's settings; where PRICE has published another one, the page says so first.
"""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.schemas.event import UsageEvent
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.line import book_of, line_of
from tollmeter.server.pages.site import KEYS, page, reader
from tollmeter.server.problems import Problem

if TYPE_CHECKING:
    from tollmeter.streams.price.book.book import PriceBook

PATH = "/dashboard/prices"
COUNTS = {
    "in": ("Tokens in, cached ones with them", "1000"),
    "cached": ("of them from the cache", "0"),
    "out": ("Tokens out", "200"),
}
"""Counts of the call that is priced, by their names in the address: what people call it, and what is meant at first."""
_TEXTS = ("model", "provider", "tier", "at")
_NOBODY = "00000000-0000-0000-0000-000000000000"


async def prices(request: Request) -> Response:
    """Show the rules of a model on a day, and the cost of one call; without a model how old the book is."""
    session = await reader(request, KEYS)
    if isinstance(session, Response):
        return session
    given = {name: request.query_params.get(name, "").strip()[:256] for name in _TEXTS}
    counts = {name: request.query_params.get(name, "").strip()[:20] or first for name, (_, first) in COUNTS.items()}
    at = _at(given["at"])
    book = await book_of(request)
    values: dict[str, Any] = {"book": book.id, "rows": [], "nearest": [], "priced": None, "partial": False}
    if given["model"]:
        async with line_of(request).pricing:
            values |= await asyncio.to_thread(_answer, book, given, counts, at)
    published = await _published(request)
    fields = [(name, label, counts[name]) for name, (label, _) in COUNTS.items()]
    shown = {"given": given, "counts": fields, "at": at, **published, **values}
    return page(request, "prices.html", session, **shown)


async def _published(request: Request) -> dict[str, Any]:
    """Return which book PRICE has published, and how old its rates of exchange are; None where Kafka does not say."""
    from tollmeter.admin.verify.position import LogUnreadableError

    try:
        found = await line_of(request).published.get()
    except (LogUnreadableError, TimeoutError):
        return {"published": None, "kafka": False, "rates": []}
    today, most = datetime.now(UTC).date(), parts_of(request).line.fx_max_age_days
    rates = (
        [(name, day, day is None or (today - day).days > most) for name, day in found.rates.items()] if found else []
    )
    return {"published": found, "kafka": True, "rates": rates}


def _answer(book: "PriceBook", given: dict[str, str], counts: dict[str, str], at: datetime) -> dict[str, Any]:
    """Return the rules of a model and the price of a call. Raises `Problem` 400 for counts that no call has."""
    from tollmeter.admin.price_rows import rule_row
    from tollmeter.admin.quote import SERVICE, price_events
    from tollmeter.streams.price.book.lookup import lookup, nearest

    found = lookup(book, given["model"], given["provider"], at)
    told = [{"rule": one.band.rule_id, "source": one.band.source, "now": one.in_force} for one in found]
    rows = [rule_row(one) | more for one, more in zip(found, told, strict=True)]
    try:
        event = UsageEvent(
            event_id=_NOBODY,
            occurred_at=at,
            service=SERVICE,
            provider=given["provider"],
            model_sent=given["model"],
            service_tier="" if given["tier"] == "batch" else given["tier"],
            processing="BATCH" if given["tier"] == "batch" else "REALTIME",
            status="OK",
            usage_source="PROVIDER",
            input_tokens=_count("in", counts["in"]),
            cache_read_tokens=_count("cached", counts["cached"]),
            output_tokens=_count("out", counts["out"]),
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Problem(400, "counts", first["msg"].removeprefix("Value error, ")) from None
    (priced,) = price_events(book, [event])
    parts = [(name, nano) for name, nano in priced.components_nano.items() if nano]
    close = [] if rows else nearest(given["model"])
    some = {"rows": rows, "nearest": close, "partial": any(one.partial for one in found)}
    return {**some, "priced": priced, "parts": parts}


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Problem(400, name, f"{name}={text!r}: a whole number from 0 on")
    return int(text)


def _at(text: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(400, "at", f"at={text[:40]!r}: write it like 2026-11-22 or 2026-11-22T10:00") from None
    if not 1970 < at.year < 2200:
        raise Problem(400, "at", f"at={text[:40]!r}: years 1971 to 2199")
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


ROUTES = [Route(PATH, prices)]
