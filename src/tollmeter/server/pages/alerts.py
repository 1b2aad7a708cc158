"""The page Alerts: what is open, who was told, and what to do about it: take care, block for an hour."""

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server.asking import parts_of
from tollmeter.server.pages.doing import admin_form, back, done
from tollmeter.server.pages.site import page, reader
from tollmeter.server.problems import Problem
from tollmeter.streams.notify.commands import acknowledge

PATH = "/dashboard/alerts"
ROWS = 200
_BLOCKED = {"api_key": "api_key", "client_ip": "client_ip", "user": "user"}
"""Scopes of alerts that can be blocked."""


async def alerts(request: Request) -> Response:
    """Show alerts of a week that nobody has closed."""
    session = reader(request)
    if isinstance(session, Response):
        return session
    rows = await parts_of(request).ledger.ask("open_alerts", org_id=session.sees, top=ROWS)
    return page(request, "alerts.html", session, rows=rows, blocked=_BLOCKED)


async def ack(request: Request) -> Response:
    """Say that somebody takes care."""
    session, fields = await admin_form(request)
    line, by = parts_of(request).line, fields.get("by", "").strip()[:100] or session.key_id or "dashboard"
    id_ = request.path_params["id"]
    mine = await parts_of(request).ledger.ask("open_alerts", org_id=session.sees, top=ROWS)
    if id_ not in {row["id"] for row in mine}:
        raise Problem(404, "not_found", "no open alert has this id")
    await done(lambda: acknowledge(line, id_, by, time.time()))
    return back(PATH)


ROUTES = [Route(PATH, alerts, methods=["GET"]), Route(PATH + "/{id}/ack", ack, methods=["POST"])]
