"""The page Limits: every limit with its bar, who is blocked and until when; block and unblock."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin import access
from tollmeter.broker.policies import PolicyError
from tollmeter.schemas.access import EVERYONE, Block
from tollmeter.schemas.addresses import named_address
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.doing import admin_form, back, done
from tollmeter.server.pages.session import Session
from tollmeter.server.pages.site import page, reader
from tollmeter.server.problems import Problem

PATH = "/dashboard/limits"
SCOPES = {"api_key": "Key", "client_ip": "Address", "user": "User"}
HOURS = {"1": "an hour", "24": "a day", "168": "a week", "": "until it is undone"}
ROWS = 500
_MONEY = ("USD", "EUR", "RUB")


async def limits(request: Request) -> Response:
    """Show limits and blocks."""
    session = reader(request)
    if isinstance(session, Response):
        return session
    parts, now = parts_of(request), datetime.now(UTC)
    budgets: list[dict[str, Any]] | None
    try:
        budgets = await parts.ledger.ask("budget_list", org_id=session.sees, top=ROWS)
    except Problem:
        budgets = None
    try:
        blocked = await asyncio.to_thread(access.blocks, parts.line)
    except PolicyError as error:
        raise Problem(503, "policies_away", str(error)) from None
    mine = [one for one in blocked if session.sees in ("", one.org_id) or one.org_id == EVERYONE]
    given = {name: request.query_params.get(name, "") for name in ("scope", "name", "org")}
    bars = None if budgets is None else [_budget(one) for one in budgets]
    rows = [{"block": one, "over": one.until is not None and one.until <= now} for one in mine]
    return page(request, "limits.html", session, rows=rows, scopes=SCOPES, budgets=bars, given=given, hours=HOURS)


async def block(request: Request) -> Response:
    """Refuse a key, an address or a user from now on."""
    session, fields = await admin_form(request)
    hours = fields.get("hours", "1")
    if hours not in HOURS:
        raise Problem(400, "hours", f"hours: choose from {', '.join(filter(None, HOURS))}, or none")
    until = datetime.now(UTC) + timedelta(hours=int(hours)) if hours else None
    reason = fields.get("reason", "").strip() or "blocked by an operator"
    line = parts_of(request).line
    await done(lambda: access.put(line, Block(**_whom(fields, session), reason=reason, until=until)))
    return back(PATH)


async def unblock(request: Request) -> Response:
    """Let them call again."""
    session, fields = await admin_form(request)
    line = parts_of(request).line
    await done(lambda: access.take_away(line, Block(**_whom(fields, session), reason="unblocked")))
    return back(PATH)


def _whom(fields: dict[str, str], session: Session) -> dict[str, Any]:
    """Return whom a form means; an address in the one form that guards compare."""
    scope, name = fields.get("scope", ""), fields.get("name", "").strip()
    if scope == "client_ip":
        try:
            name = named_address(name)
        except ValueError as error:
            raise Problem(400, "name", str(error)) from None
    return {"org_id": session.sees or fields.get("org", "").strip() or EVERYONE, "scope": scope, "name": name}


def _budget(row: dict[str, Any]) -> dict[str, Any]:
    places = 1e9 if row["unit"] in _MONEY else 1
    whom = row["org_id"] if row["scope"] == "org" else f"{row['scope']} {row['name']} of {row['org_id']}"
    amounts = {"limit": row["amount"] / places, "used": row["used"] / places}
    return {**row, **amounts, "whom": whom, "percent": 100 * row["used"] / row["amount"]}


ROUTES = [
    Route(PATH, limits, methods=["GET"]),
    Route(PATH, block, methods=["POST"]),
    Route(PATH + "/unblock", unblock, methods=["POST"]),
]
