"""The page Calls: each call with its cost, filtered and summed up; CSV of exactly these; one call's whole story."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.admin.reports.rows import plain
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.filters import CALENDAR, PRESETS, Filters, filters_of
from tollmeter.server.pages.lives import lives_of
from tollmeter.server.pages.session import Session
from tollmeter.server.pages.site import HEADERS, Text, looker, page, reader, sent, standing, text
from tollmeter.server.problems import Problem
from tollmeter.sinks.clickhouse.queries import moment

PAGE_ROWS, CSV_ROWS = 100, 100_000
FRESH_S = 2.0
COLUMNS = (
    *(
        "at",
        "org_id",
        "user_id",
        "group_id",
        "api_key_id",
        "client_ip",
        "provider",
        "model",
        "operation_name",
        "service",
    ),
    *("status", "input_tokens", "cache_read_tokens", "output_tokens", "cost_usd", "at_risk_usd", "price_status"),
    *("usage_source", "request_id", "event_id"),
)
"""Of the CSV: the table, with what it leaves out for width."""
SORTS = {"time": 0, "cost": 1}
NEWEST = (timedelta(minutes=15), timedelta(hours=4))
"""The ends of a period that are looked at before all of it."""


async def calls(request: Request) -> Response:
    """Show the calls; `?part=rows` is the table alone, made once for all who look at the same."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    if request.query_params.get("part") != "rows":
        return page(request, "calls.html", session, **await _values(request, session))

    async def make() -> Text:
        return text(request, "calls_rows.html", session, **await _values(request, session))

    key = ("calls", session.sees, session.user, session.role, request.url.query)
    return sent(request, await lives_of(request).of(key, make, FRESH_S))


async def _values(request: Request, session: Session) -> dict[str, Any]:
    """Return what the page shows: a page of calls, and the totals of all of them."""
    now = datetime.now(UTC)
    shown = filters_of(request, session, now)
    number = _page_number(request)
    rows, answered = await asyncio.gather(
        _rows(request, shown, PAGE_ROWS + 1, number * PAGE_ROWS),
        parts_of(request).ledger.answer(lambda ledger: questions.total(ledger, shown.asked)),
    )
    return {
        "filters": shown,
        "presets": PRESETS,
        "calendar": CALENDAR,
        "rows": [_row(one, shown) for one in rows[:PAGE_ROWS]],
        **standing(answered, now),
        "sort": request.query_params.get("sort", "time"),
        "earlier": shown.link(page=str(number + 1)) if len(rows) > PAGE_ROWS else "",
        "later": shown.link(page=str(number - 1) if number > 1 else "") if number else "",
        "number": number,
    }


async def csv(request: Request) -> Response:
    """Return the calls of the same address as CSV."""
    session = await looker(request)
    shown = filters_of(request, session, datetime.now(UTC))
    rows = await _rows(request, shown, CSV_ROWS + 1, 0)
    if len(rows) > CSV_ROWS:
        raise Problem(400, "too_many", f"more than {CSV_ROWS:,} calls: choose a shorter period, or `tollmeter export`")
    text = csv_text(COLUMNS, [_cells(one) for one in rows])
    kind = {"content-type": "text/csv; charset=utf-8", "content-disposition": 'attachment; filename="calls.csv"'}
    return Response(text, headers={**HEADERS, **kind})


async def call(request: Request) -> Response:
    """Show one call: what was sent, what it cost and by which rule, where it went."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    parts, id_ = parts_of(request), request.path_params["id"]
    rows = await parts.ledger.ask("find_call", id=id_, orgs=session.orgs(parts.line.org), user_id=session.user)
    facts = [_story(plain(row)) for row in rows]
    return page(request, "call.html", session, 200 if facts else 404, id=id_, facts=facts)


async def _rows(request: Request, shown: Filters, top: int, skip: int) -> list[dict[str, Any]]:
    """Return the newest or dearest calls of a period; the newest mostly stand in its last minutes or hours."""
    by_cost = SORTS.get(request.query_params.get("sort", "time"), 0)
    ledger, asked = parts_of(request).ledger, shown.asked
    for span in () if by_cost else NEWEST:
        if asked.until - asked.since <= 2 * span:
            break
        since = moment(asked.until - span)
        found = await ledger.ask("call_list", **{**_list(asked, by_cost, top, skip), "since": since})
        if len(found) == top:
            return found
    return await ledger.ask("call_list", **_list(asked, by_cost, top, skip))


def _list(asked: Asked, by_cost: int, top: int, skip: int) -> dict[str, object]:
    return {**asked.parameters(), "by_cost": by_cost, "top": top, "skip": skip}


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise Problem(400, "page", f"page={text[:20]!r}: a number from 0 on")
    return int(text)


def _row(one: dict[str, Any], shown: Filters) -> dict[str, Any]:
    local = one["at"].astimezone(shown.asked.zone)
    return {**one, "local": local.strftime("%Y-%m-%d %H:%M:%S"), "event_id": str(one["event_id"])}


def _cells(one: dict[str, Any]) -> dict[str, Any]:
    cost, risk = one["cost_nano"], one["at_risk_nano"]
    money = {"cost_usd": None if cost is None else cost / 1e9, "at_risk_usd": None if risk is None else risk / 1e9}
    return plain({**one, **money})


def _story(row: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the fields of a call in the order of its way, the empty ones left out."""
    rule = str(row.pop("price_rule", "") or "")
    groups: dict[str, list[tuple[str, str]]] = {"Sent": [], "Priced": [], "In the ledger": []}
    for name, value in row.items():
        if value in ("", None, [], {}):
            continue
        kind = "Sent"
        if name.startswith(("cost_", "price_", "rule_", "fx_", "at_risk_", "model_id", "provider_id")):
            kind = "Priced"
        elif name.startswith(("src_", "priced_", "version", "inserted_at", "revision", "received_at", "flags")):
            kind = "In the ledger"
        groups[kind].append((name, str(value)))
    if rule:
        groups["Priced"].append(("rule", rule))
    return list(groups.items())


ROUTES = [
    Route("/dashboard/calls", calls),
    Route("/dashboard/calls.csv", csv),
    Route("/dashboard/calls/{id}", call),
]
