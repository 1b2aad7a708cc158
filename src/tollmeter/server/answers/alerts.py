"""Alerts of the caller's organisation: listed, grouped, acknowledged, muted, judged, as the commands do it."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.reports.minutes import ALL
from tollmeter.admin.reports.rows import Row, plain
from tollmeter.schemas.json_values import loads
from tollmeter.server import bodies
from tollmeter.server.asking import caller_of, parts_of
from tollmeter.server.changes import change
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.problems import Problem
from tollmeter.server.query import PERIOD, asked_of, checked, takes, whole
from tollmeter.server.report_shapes import PERIOD as SAID
from tollmeter.server.shapes import OTHERS
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.notify.commands import Said, acknowledge, judge
from tollmeter.streams.notify.commands import mute as say_mute
from tollmeter.streams.notify.feedback import LONGEST_S, USUAL_S, Verdict
from tollmeter.streams.notify.incident_list import KINDS, Incident, incidents
from tollmeter.streams.notify.notice import Mute


class Quiet(BaseModel):
    """What to tell nobody of, and for how long."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: str = Field(default="", max_length=64)
    scope: str = Field(default="", max_length=32)
    name: str = Field(default="", max_length=512)
    for_s: int = Field(default=0, ge=0, le=366 * 86_400)
    reason: str = Field(default="", max_length=512)


class Word(BaseModel):
    """What an incident was; of what was expected nobody is told for a while."""

    model_config = ConfigDict(extra="forbid", strict=True)

    verdict: Verdict
    for_s: int | None = Field(default=None, ge=1, le=int(LONGEST_S))
    reason: str = Field(default="", max_length=512)


_DATA = {**dict.fromkeys(("kind", "severity", "org_id", "scope", "name", "period", "text"), str), OTHERS: Any}
_ALERT = {
    **dict.fromkeys(("specversion", "id", "source", "type", "subject", "time", "datacontenttype"), str),
    "data": _DATA,
    **dict.fromkeys(("state", "held", "told"), str),
    "appended_at": str,
}
_INCIDENT = {
    **dict.fromkeys(("id", "org_id", "scope", "name", "state", "severity", "since", "last", "text"), str),
    **dict.fromkeys(("turns", "held"), int),
    "cost_nano": int | None,
    **dict.fromkeys(("kinds", "alerts", "evidence"), list[str]),
}
_WORD = {"incident": str, "verdict": Verdict, "until": str | None, "kinds": list[str]}


@takes(*PERIOD, "limit", gives={**SAID, "alerts": [_ALERT], "more": bool})
async def listed(request: Request) -> Response:
    """List the organisation's alerts of a period, oldest first: as CloudEvents, with what became of each."""
    caller = caller_of(request, "read")
    asked = asked_of(request, caller, "7d")
    limit = whole(checked(request), "limit", 1_000, 10_000)
    parameters = {**asked.parameters(), "limit": limit + 1, "id": ""}
    rows = await parts_of(request).ledger.answer(lambda ledger: ledger.query(load("alerts_of"), parameters))
    told = [_document(row) for row in rows[:limit]]
    return JsonAnswer({**asked.document(), "alerts": told, "more": len(rows) > limit})


@takes(empty=("POST",))
async def ack(request: Request) -> Response:
    """Say that somebody takes care of an alert: it is not told again until it is over."""
    caller, id_ = caller_of(request, "admin"), request.path_params["id"]
    ever = {"since": "1970-01-01 00:00:00", "until": "2200-01-01 00:00:00"}
    parameters = {**ever, "orgs": [caller.org_id], "limit": 1, "id": id_}
    rows = await parts_of(request).ledger.answer(lambda ledger: ledger.query(load("alerts_of"), parameters))
    if not rows:
        raise Problem(404, "unknown", f"the organisation has no alert {id_[:64]!r}")
    await change(request, lambda line: acknowledge(line, id_, f"key {caller.key_id}", time.time()))
    return Response(status_code=204)


@takes(body=Quiet, methods=("POST", "DELETE"), empty=("POST", "DELETE"))
async def mute(request: Request) -> Response:
    """Tell nobody of the organisation's alerts that match, for a while; DELETE ends it."""
    caller = caller_of(request, "admin")
    wanted = await bodies.read(request, Quiet)
    off = request.method == "DELETE"
    if not off and not wanted.for_s:
        raise Problem(400, "bad_field", "for_s: say for how many seconds")
    until = time.time() + wanted.for_s
    fields = wanted.model_dump(exclude={"for_s"})
    made = Mute(**fields, org=caller.org_id, until_s=until, by=f"key {caller.key_id}")
    await change(request, lambda line: say_mute(line, made, off=off))
    return Response(status_code=204)


@takes(*PERIOD, "limit", gives={**SAID, "incidents": [_INCIDENT], "more": bool})
async def grouped(request: Request) -> Response:
    """List the organisation's incidents of a period: those that go on first, then by money, with their evidence."""
    caller = caller_of(request, "read")
    asked = asked_of(request, caller, "7d")
    limit = whole(checked(request), "limit", 1_000, 10_000)
    found = await _incidents(request, asked.parameters())
    return JsonAnswer({**asked.document(), "incidents": found[:limit], "more": len(found) > limit})


@takes(body=Word, gives=_WORD)
async def feedback(request: Request) -> Response:
    """Say that an incident was expected, so that its like is quiet for a while (a week), or real."""
    caller, id_ = caller_of(request, "admin"), request.path_params["id"]
    word = await bodies.read(request, Word)
    if word.verdict == "real" and word.for_s is not None:
        raise Problem(400, "bad_field", "for_s: says how long the expected is quiet; what is real is not")
    ever = {"since": "1970-01-01 00:00:00", "until": "2200-01-01 00:00:00", "orgs": [caller.org_id]}
    if not id_ or not any(one["id"] == id_ for one in await _incidents(request, ever)):
        raise Problem(404, "unknown", f"the organisation has no incident {id_[:64]!r}")
    now_s = time.time()
    until_s, said = now_s + (word.for_s or USUAL_S), Said(f"key {caller.key_id}", word.reason)
    made = await change(request, lambda line: judge(line, id_, word.verdict, until_s, said, now_s))
    until = datetime.fromtimestamp(made.until_s, UTC).isoformat() if made.verdict == "expected" else None
    return JsonAnswer({"incident": made.incident, "verdict": made.verdict, "until": until, "kinds": list(made.kinds)})


async def _incidents(request: Request, period: Mapping[str, object]) -> list[Incident]:
    asked = {name: period[name] for name in ("since", "until", "orgs")}
    asked |= {"user_id": "", "kinds": list(KINDS), "limit": ALL}
    return await parts_of(request).ledger.answer(lambda ledger: incidents(ledger.query(load("incident_alerts"), asked)))


def _document(row: Row) -> Row:
    known = {"state": row["state"], "held": row["held"], "told": row["told"], "appended_at": row["appended_at"]}
    return {**loads(row["event"]), **plain(known)}


ROUTES = [
    Route("/api/v1/alerts", listed, methods=["GET"]),
    Route("/api/v1/alerts/{id}/ack", ack, methods=["POST"]),
    Route("/api/v1/incidents", grouped, methods=["GET"]),
    Route("/api/v1/incidents/{id}/feedback", feedback, methods=["POST"]),
    Route("/api/v1/alerts/mutes", mute, methods=["POST", "DELETE"]),
]
