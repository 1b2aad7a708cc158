"""Alerts of the caller's organisation: listed, acknowledged, muted, by the functions of the commands."""

import time

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.reports.rows import Row, plain
from tollmeter.schemas.json_values import loads
from tollmeter.server import bodies
from tollmeter.server.asking import caller_of, parts_of
from tollmeter.server.changes import change
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.problems import Problem
from tollmeter.server.query import asked_of, whole
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.notify.commands import acknowledge
from tollmeter.streams.notify.commands import mute as say_mute
from tollmeter.streams.notify.notice import Mute


class Quiet(BaseModel):
    """What to tell nobody of, and for how long."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: str = Field(default="", max_length=64)
    scope: str = Field(default="", max_length=32)
    name: str = Field(default="", max_length=512)
    for_s: int = Field(default=0, ge=0, le=366 * 86_400)
    reason: str = Field(default="", max_length=512)


async def listed(request: Request) -> Response:
    """List the organisation's alerts of a period, oldest first: as CloudEvents, with what became of each."""
    caller = caller_of(request, "read")
    asked = asked_of(request, caller, "7d", {"limit"})
    limit = whole(dict(request.query_params), "limit", 1_000, 10_000)
    parameters = {**asked.parameters(), "limit": limit, "id": ""}
    rows = await parts_of(request).ledger.answer(lambda ledger: ledger.query(load("alerts_of"), parameters))
    return JsonAnswer({**asked.document(), "alerts": [_document(row) for row in rows]})


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


def _document(row: Row) -> Row:
    known = {"state": row["state"], "held": row["held"], "told": row["told"], "appended_at": row["appended_at"]}
    return {**loads(row["event"]), **plain(known)}


ROUTES = [
    Route("/api/v1/alerts", listed, methods=["GET"]),
    Route("/api/v1/alerts/{id}/ack", ack, methods=["POST"]),
    Route("/api/v1/alerts/mutes", mute, methods=["POST", "DELETE"]),
]
