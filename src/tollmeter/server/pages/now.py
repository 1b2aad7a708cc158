"""The page Now: what is spent this minute, by whom, and what is alarming; from the log, also with ClickHouse away."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.server.asking import parts_of
from tollmeter.server.pages.lives import lives_of
from tollmeter.server.pages.session import Session
from tollmeter.server.pages.site import Text, page, reader, sent, text
from tollmeter.server.problems import Problem

if TYPE_CHECKING:
    from tollmeter.admin.tail import Tail
    from tollmeter.streams.rules.windows.recent import View

WINDOW_S, ROWS = 300, 8
SHOWN = ("key", "user", "model", "ip")
ALERTS, ALERTS_S = 10, 10
"""So many open alerts are shown, no older than so many seconds: as the ledger keeps them, and this page."""
_SUMS = ("calls", "refused", "unpriced", "cost_nano", "at_risk_nano", "hour_nano", "hour_unpriced")
FRESH_S = 0.5
_LEDGER_S, BEFORE_S, OLD_S = 1.0, 1.0, 4.0
"""The ledger adds what was before. A page that opens waits for it so long; open ones show what was asked before."""


async def now(request: Request) -> Response:
    """Show the page; `?part=live` is what changes of it, made once for all who see the same."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    if request.query_params.get("part") != "live":
        return page(request, "now.html", session, **await _values(request, session))

    async def make() -> Text:
        return text(request, "now_live.html", session, **await _values(request, session))

    key = ("now", session.sees, session.user, session.role)
    return sent(request, await lives_of(request).of(key, make, FRESH_S))


async def _values(request: Request, session: Session) -> dict[str, Any]:
    """Return what the page shows; what is newest of it is looked at last."""
    key = ("before", session.sees, session.user)
    before = await lives_of(request).of(key, lambda: _before(request, session), BEFORE_S, old_s=OLD_S)
    values: dict[str, Any] = {"views": [], "rate": None, "age_s": None, "problem": "", "window_min": WINDOW_S // 60}
    values["alerts_s"] = ALERTS_S
    try:
        source = await request.app.state.along.look()
        orgs = session.orgs(parts_of(request).line.org)
        views, at = await asyncio.to_thread(_views, source, session, orgs), datetime.now(UTC)
        values |= {
            "views": [(view.by, view.rows[:ROWS], _rest(view.rows[ROWS:])) for view in views],
            "rate": views[0].total,
            "age_s": None if views[0].as_of_ms is None else max(0.0, at.timestamp() - views[0].as_of_ms / 1000),
            "unreadable": source.unreadable,
        }
    except Problem as problem:
        values["problem"] = problem.detail
    return values | before


def _views(source: "Tail", session: Session, orgs: list[str]) -> "list[View]":
    """Return the sums by each name; of a user his own row alone, since what is kept has no user beside other names."""
    if not session.user:
        return [source.recent.top(name, time.time(), WINDOW_S, orgs=orgs) for name in SHOWN]
    view = source.recent.top("user", time.time(), WINDOW_S, orgs=orgs)
    rows = [row for row in view.rows if row["name"] == session.user]
    return [replace(view, rows=rows, total=_sums(rows))]


def _sums(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in _SUMS}


def _rest(rows: Sequence[dict[str, Any]]) -> dict[str, int] | None:
    return _sums(rows) | {"count": len(rows)} if rows else None


async def _before(request: Request, session: Session) -> dict[str, Any]:
    """Return the same five minutes a day and a week ago, and open alerts; None: the ledger does not say in time."""
    parts, at = parts_of(request), datetime.now(UTC)
    ledger, orgs = parts.ledger, session.orgs(parts.line.org)

    async def spent(days: int) -> dict[str, Any]:
        until = at - timedelta(days=days)
        since = f"{until - timedelta(seconds=WINDOW_S):%Y-%m-%d %H:%M:00}"
        asked: dict[str, Any] = {"orgs": orgs, "user_id": session.user, "since": since}
        asked["until"] = f"{until:%Y-%m-%d %H:%M:00}"
        [row] = await ledger.ask_sometimes(60.0, "spend_between", **asked)
        return row

    seen: dict[str, Any] = {"org_id": session.sees, "user_id": session.user, "top": ALERTS}
    alerts = ledger.ask_sometimes(2.0, "open_alerts", old_s=ALERTS_S - OLD_S, **seen)
    asking = {"yesterday": spent(1), "last_week": spent(7), "alerts": alerts}
    tasks = {name: asyncio.ensure_future(one) for name, one in asking.items()}
    await asyncio.wait(tasks.values(), timeout=_LEDGER_S)
    found: dict[str, Any] = dict.fromkeys(tasks)
    for name, task in tasks.items():
        try:
            found[name] = task.result() if task.done() else None
        except Problem:
            continue
        task.cancel()  # the question itself goes on, and is answered to whoever asks next
    return found


ROUTES = [Route("/dashboard/now", now)]
