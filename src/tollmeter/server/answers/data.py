"""What a cost guardian's admin asks: the calls themselves, page by page; the models; and to take all of it back."""

from datetime import UTC, datetime
from math import ceil

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.corrections import CorrectionError
from tollmeter.admin.reports import questions
from tollmeter.admin.reports.labels import name_keys
from tollmeter.admin.reports.questions import Answered
from tollmeter.admin.reports.rows import NAMES, Row, plain
from tollmeter.admin.reset import reset as take_back
from tollmeter.server.asking import caller_of, parts_of
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.problems import Problem
from tollmeter.server.query import EVER, OF_CALLS, PAGES, asked_of, checked, is_home, page_of, takes
from tollmeter.server.report_shapes import COLUMNS, PERIOD, TOTAL
from tollmeter.server.shapes import sometimes
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

CONFIRM = "x-confirm-reset"
_CALL = {
    **dict.fromkeys(("id", "ts", "tracking_token", "ai_provider", "ai_model"), str),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), int),
    "cost_usd": float | None,
    **dict.fromkeys(("price_status", "call_status", "user", "api_key_id"), str),
    **sometimes(NAMES, COLUMNS),
}
_PAGE = {**PERIOD, "data": [_CALL], **dict.fromkeys(("total", "page", "limit", "pages"), int), "totals": TOTAL}
_MODEL = {"model": str, "provider": str, "calls": int, "last_used_at": str}


@takes(*OF_CALLS, *PAGES, "token", gives=_PAGE)
async def data(request: Request) -> Response:
    """List the organisation's calls, the newest first, a page at a time, with what all of them come to."""
    caller = caller_of(request, "admin")
    asked = asked_of(request, caller, EVER)
    page, limit = page_of(checked(request))
    token = checked(request).get("token", "")

    def ask(ledger: ClickHouse) -> Answered:
        named = {**asked.parameters(), "token": token}
        rows = ledger.query(load("data"), {**named, "limit": limit, "offset": (page - 1) * limit})
        (total,) = ledger.query(load("data_total"), named)
        return Answered(name_keys(ledger, rows, asked.orgs), total, questions.newest(ledger, asked.orgs))

    answered = await parts_of(request).ledger.answer(ask)
    count = answered.total["calls"]
    document = {
        **asked.document(),
        "data": [_call(row) for row in answered.rows],
        "total": count,
        "page": page,
        "limit": limit,
        "pages": ceil(count / limit),
        "totals": answered.totals(datetime.now(UTC)),
    }
    return JsonAnswer(document)


@takes(*OF_CALLS, gives={**PERIOD, "models": [_MODEL]})
async def models(request: Request) -> Response:
    """List the models that the organisation has called, most called first."""
    caller = caller_of(request, "admin")
    asked = asked_of(request, caller, EVER)
    rows = await parts_of(request).ledger.answer(lambda ledger: ledger.query(load("models_used"), asked.parameters()))
    named = [{"model": row["model"], "provider": row["ai_provider"], **_rest(row)} for row in rows]
    return JsonAnswer({**asked.document(), "models": named})


@takes(gives={"taken_back": int, "org_id": str}, statuses=(202,))
async def reset(request: Request) -> Response:
    """Take all calls of the organisation back: its totals are 0, the log keeps what was. Needs a confirming header."""
    caller, parts = caller_of(request, "admin"), parts_of(request)
    checked(request)
    if parts.settings.production and not parts.settings.reset_allowed:
        raise Problem(403, "reset_refused", "in production nothing is reset: set RESET_ALLOWED=true to allow it")
    if request.headers.get(CONFIRM, "") != caller.org_id:
        text = f"this takes back all calls of {caller.org_id}: confirm with the header {CONFIRM}: {caller.org_id}"
        raise Problem(428, "not_confirmed", text)
    orgs = [caller.org_id, ""] if is_home(request, caller) else [caller.org_id]
    try:
        taken = await parts.ledger.answer(
            lambda ledger: take_back(parts.line, ledger, orgs, f"reset by key {caller.key_id}")
        )
    except CorrectionError as error:
        raise Problem(503, "broker_away", str(error), headers={"retry-after": "5"}) from None
    return JsonAnswer({"taken_back": taken, "org_id": caller.org_id}, 202)


def _call(row: Row) -> Row:
    call = {name: value for name, value in row.items() if name not in NAMES and name != "org_id"}
    return plain({**call, **{name: row[name] for name in NAMES if row[name]}})


def _rest(row: Row) -> Row:
    return plain({"calls": row["calls"], "last_used_at": row["last_used_at"]})


ROUTES = [
    Route("/data", data, methods=["GET"]),
    Route("/models", models, methods=["GET"]),
    Route("/reset", reset, methods=["DELETE"]),
]
