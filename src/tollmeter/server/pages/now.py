"""The page Now: what is spent this minute, by whom, and what is alarming; from the log, also with ClickHouse away."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server.asking import parts_of
from tollmeter.server.pages.site import page, reader
from tollmeter.server.problems import Problem
from tollmeter.streams.rules.windows.dimensions import DIMENSIONS

WINDOW_S, ROWS = 300, 8
SHOWN = ("key", "user", "model", "ip")
ALERTS = 10
_LEDGER_S = 1.0
"""The ledger adds what was before; the page does not wait for it any longer."""


async def now(request: Request) -> Response:
    """Show the page; `?part=live` is what changes of it."""
    session = reader(request)
    if isinstance(session, Response):
        return session
    at = datetime.now(UTC)
    values: dict[str, Any] = {"views": [], "rate": None, "age_s": None, "problem": "", "window_min": WINDOW_S // 60}
    try:
        source = await request.app.state.along.look()
        views = await asyncio.to_thread(
            lambda: [source.recent.top(name, time.time(), WINDOW_S, org=session.sees) for name in SHOWN]
        )
        values |= {
            "views": [(view.by, view.rows[:ROWS], _rest(view.rows[ROWS:])) for view in views],
            "rate": views[0].total,
            "age_s": None if views[0].as_of_ms is None else max(0.0, at.timestamp() - views[0].as_of_ms / 1000),
            "unreadable": source.unreadable,
        }
    except Problem as problem:
        values["problem"] = problem.detail
    values |= await _before(request, session.sees, at)
    name = "now_live.html" if request.query_params.get("part") == "live" else "now.html"
    return page(request, name, session, columns=DIMENSIONS, **values)


def _rest(rows: Sequence[dict[str, Any]]) -> dict[str, int] | None:
    names = ("calls", "refused", "unpriced", "cost_nano", "at_risk_nano", "hour_nano")
    return {name: sum(row[name] for row in rows) for name in names} | {"count": len(rows)} if rows else None


async def _before(request: Request, org: str, at: datetime) -> dict[str, Any]:
    """Return the same five minutes a day and a week ago, and open alerts; None where the ledger does not say."""
    ledger = parts_of(request).ledger
    found: dict[str, Any] = {"yesterday": None, "last_week": None, "alerts": None}
    try:
        async with asyncio.timeout(_LEDGER_S):
            for name, days in (("yesterday", 1), ("last_week", 7)):
                until = at - timedelta(days=days)
                [row] = await ledger.ask_sometimes(
                    20.0,
                    "spend_between",
                    org_id=org,
                    since=f"{until - timedelta(seconds=WINDOW_S):%Y-%m-%d %H:%M:00}",
                    until=f"{until:%Y-%m-%d %H:%M:00}",
                )
                found[name] = row
            found["alerts"] = await ledger.ask_sometimes(2.0, "open_alerts", org_id=org, top=ALERTS)
    except (Problem, TimeoutError):
        pass
    return found


ROUTES = [Route("/dashboard/now", now)]
