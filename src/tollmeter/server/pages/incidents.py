"""Incidents on the page Alerts: the dearest first, with what they rest on, and what people say of them."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server.asking import parts_of
from tollmeter.server.pages.doing import admin_form, back, by_whom, choice, done
from tollmeter.server.pages.session import Session
from tollmeter.server.problems import Problem
from tollmeter.sinks.clickhouse.queries import moment
from tollmeter.streams.notify.commands import Said, judge
from tollmeter.streams.notify.feedback import Feedback
from tollmeter.streams.notify.incident_list import KINDS, incidents

PATH = "/dashboard/alerts"
DAYS = 7
ROWS, SHOWN = 2_000, 50
VERDICTS = {
    "expected-1": "expected, quiet for a day",
    "expected-7": "expected, quiet for a week",
    "expected-30": "expected, quiet for 30 days",
    "real": "real",
}


async def recent(request: Request, session: Session) -> list[dict[str, Any]]:
    """Return the incidents of a week that this reader may see; of a user's evidence nothing, for it names others."""
    now = datetime.now(UTC)
    asked = {
        "orgs": [session.sees] if session.sees else [],
        "user_id": session.user,
        "kinds": list(KINDS),
        "since": moment(now - timedelta(days=DAYS)),
        "until": moment(now + timedelta(days=1)),
        "limit": ROWS,
    }
    found = incidents(await parts_of(request).ledger.ask("incident_alerts", **asked))[:SHOWN]
    return [{**one, "evidence": []} for one in found] if session.user else found


def by_incident(said: list[Feedback], session: Session) -> dict[str, Feedback]:
    """Return what was said, of what this reader may see."""
    return {one.incident: one for one in said if session.sees in ("", one.org)}


async def feedback(request: Request) -> Response:
    """Say that an incident was expected, or real."""
    session, fields = await admin_form(request)
    chosen = choice(fields, "said", VERDICTS, "")
    wanted = request.path_params["id"]
    if not any(one["id"] == wanted for one in await recent(request, session)):
        raise Problem(404, "not_found", "no incident of a week has this id")
    line, now_s = parts_of(request).line, time.time()
    said = Said(by_whom(session, fields), fields.get("reason", "").strip()[:512])
    days = chosen.partition("-")[2]
    until_s = now_s + int(days or 0) * 86_400
    await done(lambda: judge(line, wanted, "expected" if days else "real", until_s, said, now_s))
    return back(PATH)


ROUTES = [Route(PATH + "/{id}/feedback", feedback, methods=["POST"])]
