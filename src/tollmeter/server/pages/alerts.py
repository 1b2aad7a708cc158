"""The page Alerts: incidents, every open alert, and what to do about it: take care, mute, block, raise a limit."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server.asking import parts_of
from tollmeter.server.pages.doing import admin_form, back, by_whom, choice, done
from tollmeter.server.pages.incidents import PATH, VERDICTS, by_incident, recent
from tollmeter.server.pages.session import Session
from tollmeter.server.pages.site import page, reader
from tollmeter.server.problems import Problem
from tollmeter.streams.notify.commands import JournalError, acknowledge, feedback, mutes
from tollmeter.streams.notify.commands import mute as say_mute
from tollmeter.streams.notify.feedback import Feedback
from tollmeter.streams.notify.notice import Mute

ROWS = 200
HOURS = {"1": "an hour", "4": "four hours", "24": "a day", "168": "a week"}
_BLOCKED = {"api_key": "api_key", "client_ip": "client_ip", "user": "user"}
"""Scopes of alerts that can be blocked."""


async def alerts(request: Request) -> Response:
    """Show incidents and open alerts of a week, and what is muted; each None where nobody says it."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    parts, now_s = parts_of(request), time.time()
    try:
        groups: list[dict[str, Any]] | None
        rows: list[dict[str, Any]] | None
        groups, rows = await recent(request, session), await _open(request, session)
    except Problem:
        groups = rows = None
    silent: list[Mute] | None = []
    said: dict[str, Feedback] = {}
    if not session.user:
        try:
            told, words = await parts.ledger.run(lambda: (mutes(parts.line, now_s), feedback(parts.line)))
            silent = [one for one in told if session.sees in ("", one.org) or not one.org]
            said = by_incident(words, session)
        except JournalError:
            silent = None
    shown: dict[str, Any] = {
        "rows": rows,
        "mutes": silent,
        "muted": {row["id"]: _muted(silent or [], row) for row in rows or []},
        "incidents": groups,
        "said": said,
        "verdicts": VERDICTS,
        "blocked": _BLOCKED,
        "hours": HOURS,
    }
    return page(request, "alerts.html", session, 200, **shown)


async def ack(request: Request) -> Response:
    """Say that somebody takes care."""
    session, fields = await admin_form(request)
    row, line, by = await _of_the_address(request, session), parts_of(request).line, by_whom(session, fields)
    await done(lambda: acknowledge(line, row["id"], by, time.time()))
    return back(PATH)


async def mute(request: Request) -> Response:
    """Tell nobody of alerts like this one, of the same kind about the same scope, for a while."""
    session, fields = await admin_form(request)
    hours = int(choice(fields, "hours", HOURS, "1"))
    row, line = await _of_the_address(request, session), parts_of(request).line
    wanted = Mute(
        kind=row["kind"],
        org=row["org_id"],
        scope=row["scope"],
        name=row["name"],
        until_s=time.time() + hours * 3_600,
        by=by_whom(session, fields),
        reason=fields.get("reason", "").strip()[:512],
    )
    await done(lambda: say_mute(line, wanted, off=False))
    return back(PATH)


async def unmute(request: Request) -> Response:
    """End a mute."""
    session, fields = await admin_form(request)
    kind, scope, name = (fields.get(one, "") for one in ("kind", "scope", "name"))
    ended = Mute(kind=kind, org=session.sees or fields.get("org", ""), scope=scope, name=name, until_s=0.0)
    line, now_s = parts_of(request).line, time.time()
    if ended.id not in {one.id for one in await done(lambda: mutes(line, now_s))}:
        raise Problem(404, "not_found", "nothing of the organisation is muted so: it may be over")
    await done(lambda: say_mute(line, ended, off=True))
    return back(PATH)


async def _open(request: Request, session: Session) -> list[dict[str, Any]]:
    asked = {"org_id": session.sees, "user_id": session.user, "top": ROWS}
    return await parts_of(request).ledger.ask("open_alerts", **asked)


async def _of_the_address(request: Request, session: Session) -> dict[str, Any]:
    """Return the open alert that the address names. Raises `Problem` 404 for one that this reader does not see."""
    for row in await _open(request, session):
        if row["id"] == request.path_params["id"]:
            return row
    raise Problem(404, "not_found", "no open alert has this id")


def _muted(silent: list[Mute], row: dict[str, Any]) -> Mute | None:
    """Return the mute that holds an alert's like back for the longest."""
    found = [one for one in silent if one.matches(row["kind"], (row["org_id"], row["scope"], row["name"]))]
    return found[-1] if found else None


ROUTES = [
    Route(PATH, alerts, methods=["GET"]),
    Route(PATH + "/unmute", unmute, methods=["POST"]),
    Route(PATH + "/{id}/ack", ack, methods=["POST"]),
    Route(PATH + "/{id}/mute", mute, methods=["POST"]),
]
