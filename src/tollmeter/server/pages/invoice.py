"""The page Invoice: a closed month's statement, and a provider's bill beside the ledger."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server import invoice
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.site import KEYS, page, reader
from tollmeter.server.problems import Problem

PATH = "/dashboard/invoice"
BY = ("day", "model", "key", "project")
ROWS, DIFFERENCES = 200, 20


async def shown(request: Request) -> Response:
    """Show the months that are closed; of one its statement; of a provider the comparison with its bill."""
    session = await reader(request, KEYS)
    if isinstance(session, Response):
        return session
    given = {name: request.query_params.get(name, "").strip()[:64] for name in ("month", "provider", "by")}
    orgs = session.orgs(parts_of(request).line.org)
    months = await invoice.months(request, session.sees, orgs)
    month = given["month"] or (months[0]["month"] if months else "")
    values: dict[str, Any] = {"months": months, "month": month, "given": given, "choices": BY, "problem": ""}
    values |= {"statement": None, "bill": None, "rows": ROWS, "most": DIFFERENCES}
    if month and any(one["month"] == month for one in months):
        values["statement"] = await invoice.statement(request, invoice.month_of(month), session.sees, orgs)
    if given["provider"] and month:
        by = given["by"] or "day"
        try:
            values["bill"] = await invoice.comparison(request, given["provider"], invoice.month_of(month), by, orgs)
        except Problem as problem:
            if problem.status not in (403, 404):
                raise
            values["problem"] = problem.detail
    elif month:
        invoice.month_of(month)
    return page(request, "invoice.html", session, **values)


ROUTES = [Route(PATH, shown)]
