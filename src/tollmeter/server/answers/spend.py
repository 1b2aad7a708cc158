"""Spend of a user against his limits, a summary of an organisation's use, and the price list."""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.price_list import price_list
from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import Asked, instant, midnight
from tollmeter.admin.reports.rows import Row
from tollmeter.admin.spend_status import SpendStatus, UserNotFoundError, spend_status
from tollmeter.broker.policies import read_rules
from tollmeter.server.asking import parts_of, reader_of
from tollmeter.server.changes import change
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.problems import Problem
from tollmeter.server.query import TODAY, asked_of, bad, checked, takes
from tollmeter.server.report_shapes import TOTAL
from tollmeter.server.shapes import Model
from tollmeter.sinks.clickhouse.client import ClickHouse

_PRICE = {
    **dict.fromkeys(("provider", "model", "context", "source", "rule_id"), str),
    **dict.fromkeys(("valid_from?", "valid_to?"), str),
    **dict.fromkeys(("above_input?", "from_second?", "to_second?", "weekdays?", "at_most_pct?"), int),
    **dict.fromkeys(("partial?", "free?", "without_tokens?"), bool),
    "usd_per_mtok": dict[str, float],
    "usd_per_unit?": dict[str, float],
}


@takes("billing_scope_org", gives=Model(SpendStatus, sparse=True))
async def of_user(request: Request) -> Response:
    """Say what a user has spent and may still spend, in the document that clients know."""
    caller = await reader_of(request)
    given = checked(request)
    org_pays = given.get("billing_scope_org", "true")
    if org_pays not in ("true", "false"):
        raise bad("billing_scope_org", "true or false is expected")
    user, now = request.path_params["user"], datetime.now(UTC)
    rules = await change(request, read_rules, changes=False)
    own = org_pays == "true"
    try:
        status = await parts_of(request).ledger.answer(
            lambda ledger: spend_status(ledger, rules, caller.org_id, user, now, billing_scope_org=own)
        )
    except UserNotFoundError as unknown:
        raise Problem(404, "user_not_found", str(unknown)) from None
    return JsonAnswer(status.document())


@takes("zone", "user", gives={"org_id": str, "zone": str, "today": TOTAL, "this_month": TOTAL})
async def summary(request: Request) -> Response:
    """Give calls, tokens and cost of today and this month, with what in them is doubtful."""
    caller = await reader_of(request)
    today = asked_of(request, caller, TODAY)
    start = midnight(datetime.now(UTC), today.zone).replace(day=1)
    month = today._replace(since=start.astimezone(UTC))

    def ask(ledger: ClickHouse) -> dict[str, Row]:
        return {"today": _totals(ledger, today), "this_month": _totals(ledger, month)}

    found = await parts_of(request).ledger.answer(ask)
    return JsonAnswer({"org_id": caller.org_id, "zone": today.zone.key, **found})


@takes(
    "model",
    "provider",
    "at",
    gives={**dict.fromkeys(("price_book", "at", "currency"), str), "prices": [_PRICE]},
)
async def prices(request: Request) -> Response:
    """List what models cost, as PRICE has published it."""
    await reader_of(request)
    given = checked(request)
    try:
        at = instant(given["at"], UTC).astimezone(UTC) if "at" in given else datetime.now(UTC)
    except ValueError as error:
        raise bad("at", str(error)) from None
    model, provider = given.get("model", ""), given.get("provider", "")
    return JsonAnswer(await change(request, lambda line: price_list(line, at, model, provider), changes=False))


def _totals(ledger: ClickHouse, asked: Asked) -> Row:
    return questions.total(ledger, asked).totals(datetime.now(UTC))


ROUTES = [
    Route("/api/v1/ai/spend/{user:path}", of_user),
    Route("/api/v1/ai/usage/summary", summary),
    Route("/api/v1/ai/prices", prices),
]
