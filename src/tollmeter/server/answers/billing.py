"""A billing page's token usage: a summary, a paged list, by model, by agent, by day. A token sees its own user alone.

What is known is a number; where calls have a cost and their days no exchange rate, `fx` says "none", or "partial" if
some have one; `unpriced` counts calls whose cost is not known. Age and zone of the answer stand in its headers.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from math import ceil

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import Asked, midnight
from tollmeter.admin.reports.rows import Row, plain
from tollmeter.schemas.money import NANO_PER_USD
from tollmeter.server.asking import count, parts_of
from tollmeter.server.auth import Caller
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.problems import Problem
from tollmeter.server.query import EVER, PAGES, PERIOD, THIS_MONTH, asked_of, bad, checked, page_of, takes
from tollmeter.server.report_shapes import PERIOD as SAID
from tollmeter.server.shapes import Shape
from tollmeter.sinks.clickhouse.queries import load, moment

CURRENCIES = ("rub", "usd", "eur")
PERIODS = ("today", "this_month", "all_time")
GROUPS = {"model": ("provider", "model"), "agent": ("agent",), "day": ("day",)}

_COST = {f"cost_{currency}?": float | None for currency in CURRENCIES} | {"fx?": str}
"""Of the currency that was asked for."""
_SUMS = {"total_tokens": int, "requests_count": int, **_COST, "unpriced?": int}
_CALL = {
    **dict.fromkeys(("id", "user_id", "agent_id", "ai_provider", "ai_model", "created_at"), str),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), int),
    **_COST,
}
_PAGE = {"items": [_CALL], **dict.fromkeys(("total", "page", "limit", "pages"), int), "totals": _SUMS}


def _told(data: Shape) -> Shape:
    return {"success": bool, "data": data}


def _groups(*names: str) -> Shape:
    return _told({**SAID, "items": [{**dict.fromkeys(names, str), **_SUMS}], "totals": _SUMS})


@takes(*PERIOD, *PAGES, "currency", gives=_told(dict.fromkeys(PERIODS, _SUMS)))
async def summary(request: Request) -> Response:
    """Give tokens, cost and requests of today, this month and all time."""
    asked, currency = await _mine(request, EVER)
    start = midnight(datetime.now(UTC), asked.zone)
    starts = {"today": moment(start), "month": moment(start.replace(day=1))}
    rows = await _ask(request, "my_periods", asked, currency, **starts)
    found = {row["period"]: row for row in rows}
    data = {period: _sums(found.get(period), currency) for period in PERIODS}
    return await _answer(request, data, asked)


@takes(*PERIOD, *PAGES, "currency", gives=_told(_PAGE))
async def listed(request: Request) -> Response:
    """List the user's calls, the newest first, a page at a time, with what all of them come to."""
    asked, currency = await _mine(request, EVER)
    page, limit = page_of(checked(request))
    rows = await _ask(request, "my_calls", asked, currency, limit=limit, offset=(page - 1) * limit)
    (total,) = await _ask(request, "my_total", asked, currency)
    count_ = total["requests_count"]
    data = {
        "items": [_call(row, currency) for row in rows],
        "total": count_,
        "page": page,
        "limit": limit,
        "pages": ceil(count_ / limit),
        "totals": _sums(total, currency),
    }
    return await _answer(request, data, asked)


@takes(*PERIOD, *PAGES, "currency", gives=_groups("ai_provider", "ai_model"))
async def by_model(request: Request) -> Response:
    """Give tokens, cost and requests per model, dearest first."""
    return await _grouped(request, "model")


@takes(*PERIOD, *PAGES, "currency", gives=_groups("agent_id"))
async def by_agent(request: Request) -> Response:
    """Give tokens, cost and requests per agent, dearest first."""
    return await _grouped(request, "agent")


@takes(*PERIOD, *PAGES, "currency", gives=_groups("date"))
async def daily(request: Request) -> Response:
    """Give tokens, cost and requests per local day."""
    return await _grouped(request, "day")


async def _grouped(request: Request, by: str) -> Response:
    asked, currency = await _mine(request, THIS_MONTH)
    rows = await _ask(request, "my_groups", asked, currency, by=by)
    names = {"provider": "ai_provider", "model": "ai_model", "agent": "agent_id", "day": "date"}
    items = [{names[one]: row[one] for one in GROUPS[by]} | _sums(row, currency) for row in rows]
    (total,) = await _ask(request, "my_total", asked, currency)
    return await _answer(request, {**asked.document(), "items": items, "totals": _sums(total, currency)}, asked)


async def _mine(request: Request, default: str) -> tuple[Asked, str]:
    """Return the user's calls that are meant, and the currency. Raises `Problem` 400, 401 or 429."""
    parts = parts_of(request)
    user, org = await parts.people.user(request.headers.get("authorization", ""))
    caller = Caller(f"user:{user}"[:128], "read", org or parts.line.org)
    count(request, caller)
    if "user" in request.query_params:
        raise Problem(403, "own_user_only", "user: a token sees its own user alone")
    asked = asked_of(request, caller, default)
    currency = checked(request).get("currency", "rub").lower()
    if currency not in CURRENCIES:
        raise bad("currency", f"choose from {', '.join(CURRENCIES)}")
    return asked._replace(filters={**asked.filters, "user_id": user}), currency


async def _ask(request: Request, name: str, asked: Asked, currency: str, **more: object) -> list[Row]:
    parameters = {**asked.parameters(), "currency": currency, "zone": asked.zone.key, **more}
    return await parts_of(request).ledger.answer(lambda ledger: ledger.query(load(name), parameters))


async def _answer(request: Request, data: Mapping[str, object], asked: Asked) -> Response:
    as_of = await parts_of(request).ledger.answer(lambda ledger: questions.newest(ledger, asked.orgs))
    headers = {"x-tollmeter-zone": asked.zone.key}
    if as_of is not None:
        headers["x-tollmeter-as-of"] = str(plain({"": as_of})[""])
        headers["x-tollmeter-age-s"] = str(max(0, int((datetime.now(UTC) - as_of).total_seconds())))
    return JsonAnswer({"success": True, "data": data}, headers=headers)


def _sums(row: Row | None, currency: str) -> dict[str, object]:
    if row is None:
        return {"total_tokens": 0, f"cost_{currency}": 0.0, "requests_count": 0}
    cost = _amount(row["known_nano"])
    sums: dict[str, object] = {
        "total_tokens": int(row["total_tokens"]),
        f"cost_{currency}": None if not cost and (row["no_rate"] or row["unpriced"]) else cost,
        "requests_count": row["requests_count"],
    }
    if row["no_rate"]:
        sums["fx"] = "partial" if row["known_nano"] else "none"
    if row["unpriced"]:
        sums["unpriced"] = row["unpriced"]
    return sums


def _call(row: Row, currency: str) -> dict[str, object]:
    names = ("id", "user_id", "agent_id", "ai_provider", "ai_model", "prompt_tokens", "completion_tokens")
    call = plain({name: row[name] for name in (*names, "total_tokens", "created_at")})
    call[f"cost_{currency}"] = None if row["nano"] is None else _amount(row["nano"], 9)
    return call | ({"fx": "none"} if row["no_rate"] else {})


def _amount(nano: int, places: int = 4) -> float:
    return float((Decimal(int(nano)) / NANO_PER_USD).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN))


_PATH = "/api/v1/billing/usage/tokens"
ROUTES = [
    Route(_PATH, listed),
    Route(f"{_PATH}/summary", summary),
    Route(f"{_PATH}/by-model", by_model),
    Route(f"{_PATH}/by-agent", by_agent),
    Route(f"{_PATH}/daily", daily),
]
