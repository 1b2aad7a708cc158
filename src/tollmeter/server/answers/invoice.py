"""Closed months and the comparison with a provider's bill, as `tollmeter close` and `reconcile` say: own rows alone."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server import invoice
from tollmeter.server.asking import reader_of
from tollmeter.server.auth import Caller
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.query import bad, checked, is_home, takes
from tollmeter.server.statement_shapes import COMPARISON, LISTED, STATEMENT


@takes(gives={"statements": [LISTED]})
async def statements(request: Request) -> Response:
    """List the closed months of the organisation, the newest first."""
    caller = await reader_of(request)
    checked(request)
    return JsonAnswer({"statements": await invoice.months(request, caller.org_id, _orgs(request, caller))})


@takes(gives=STATEMENT)
async def statement(request: Request) -> Response:
    """Give the statement of a closed month, with what has changed since."""
    caller = await reader_of(request)
    checked(request)
    month = invoice.month_of(request.path_params["month"])
    return JsonAnswer(await invoice.statement(request, month, caller.org_id, _orgs(request, caller)))


@takes("provider", "month", "by", gives=COMPARISON)
async def reconcile(request: Request) -> Response:
    """Compare a provider's bill of a month with the ledger, difference by difference."""
    caller = await reader_of(request)
    given = checked(request)
    for name in ("provider", "month"):
        if not given.get(name):
            raise bad(name, "say whose bill and which month: provider=openai&month=2026-11")
    month, orgs = invoice.month_of(given["month"]), _orgs(request, caller)
    return JsonAnswer(await invoice.comparison(request, given["provider"], month, given.get("by", "day"), orgs))


def _orgs(request: Request, caller: Caller) -> list[str]:
    """Return whose rows the caller sees: calls that name no organisation are those of the set-up's own."""
    return [caller.org_id, ""] if is_home(request, caller) else [caller.org_id]


ROUTES = [
    Route("/api/v1/statements", statements),
    Route("/api/v1/statements/{month}", statement),
    Route("/api/v1/reconcile", reconcile),
]
