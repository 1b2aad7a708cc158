"""`GET /metrics`: what the server did, as JSON in the shape of an older meter, or as Prometheus text by negotiation."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server import exposition
from tollmeter.server.asking import caller_of, parts_of
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.parts import Parts
from tollmeter.server.problems import Problem
from tollmeter.server.query import takes

FRESH_S = 10.0
"""So long the ledger's figures are kept: a scraper asks often, and counting reads the whole key."""
WAIT_S = 5.0

_SHAPE = {
    "version": str,
    "env": str,
    "ingest": {"rpm": int, "burst": int, "auth_enabled": bool},
    "counters": dict.fromkeys(("ingest_success", "ingest_duplicate", "ingest_bad_auth"), int),
    "db": {"usage_rows": int | None, "last_usage_at": str | None, "active_tokens": int},
}


@takes(gives=_SHAPE, text=("text/plain", "application/openmetrics-text"))
async def metrics(request: Request) -> Response:
    """Return the server's counters and the size of the ledger; what is not known is null."""
    caller = caller_of(request, "read")
    parts, accept = parts_of(request), request.headers.get("accept", "")
    if exposition.wanted(accept):
        kind, text = exposition.expose(parts, accept)
        return Response(text, headers={"content-type": kind})
    counters, limit = parts.counters, parts.settings
    document = {
        "version": "1",
        "env": limit.env,
        "ingest": {
            "rpm": limit.ingest_rpm,
            "burst": limit.ingest_burst,
            "auth_enabled": parts.doorman.asks_for("ingest"),
        },
        "counters": {
            "ingest_success": counters.fate("accepted"),
            "ingest_duplicate": counters.fate("duplicate"),
            "ingest_bad_auth": counters.bad_auth,
        },
        "db": {**await _ledger(parts, caller.org_id), "active_tokens": parts.directory.active_tokens},
    }
    return JsonAnswer(document)


async def _ledger(parts: Parts, org_id: str) -> dict[str, Any]:
    try:
        async with asyncio.timeout(WAIT_S):
            [row] = await parts.ledger.ask_sometimes(FRESH_S, "usage_rows", org_id=org_id)
    except (Problem, TimeoutError):
        return {"usage_rows": None, "last_usage_at": None}
    at = row["last_usage_at"]
    return {"usage_rows": row["usage_rows"], "last_usage_at": at and at.isoformat()}


ROUTES = [Route("/metrics", metrics)]
