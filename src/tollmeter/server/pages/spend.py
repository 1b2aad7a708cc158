"""The page Spend: a period by model, key or anything else, with a bar a day, and what is not in the total."""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.admin.reports.questions import BY
from tollmeter.admin.reports.rows import plain
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.filters import CALENDAR, PRESETS, Filters, filters_of
from tollmeter.server.pages.site import HEADERS, looker, page, reader
from tollmeter.server.problems import Problem

TOP = 50
ALL = 100_000
MEASURES = ("calls", "prompt_tokens", "output_tokens", "usd_est", "unpriced", "usd_at_risk")


async def spend(request: Request) -> Response:
    """Show spend by the columns that the address names."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    now = datetime.now(UTC)
    shown, by = filters_of(request, session, now, "month"), _by(request)
    ledger = parts_of(request).ledger
    rows = await _rows(request, shown, by, ALL)
    days = await _rows(request, shown, ("hour",) if shown.span in ("1h", "24h", "48h", "today") else ("day",), ALL)
    [total] = await ledger.ask("spend_total", **shown.asked.parameters())
    [newest] = await ledger.ask("freshness", orgs=shown.asked.orgs, days=2)
    as_of = newest["as_of"]
    values: dict[str, Any] = {
        "filters": shown,
        "presets": PRESETS,
        "calendar": CALENDAR,
        "by": by,
        "columns": [BY[name] for name in by],
        "choices": list(BY),
        "rows": rows[:TOP],
        "rest": _summed(rows[TOP:]),
        "bars": _bars(sorted(days, key=lambda one: one["hour"] or one["day"])),
        "total": total,
        "age_s": None if as_of is None else max(0.0, (now - as_of).total_seconds()),
    }
    return page(request, "spend.html", session, **values)


async def csv(request: Request) -> Response:
    """Return the rows of the same address as CSV, all of them."""
    session = await looker(request)
    shown, by = filters_of(request, session, datetime.now(UTC), "month"), _by(request)
    columns = [*(BY[name] for name in by), *MEASURES]
    text = csv_text(columns, [plain(row) for row in await _rows(request, shown, by, ALL)])
    kind = {"content-type": "text/csv; charset=utf-8", "content-disposition": 'attachment; filename="spend.csv"'}
    return Response(text, headers={**HEADERS, **kind})


async def _rows(request: Request, shown: Filters, by: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    asked = {**shown.asked.parameters(), "zone": shown.asked.zone.key, "by": list(by), "top": top}
    return await parts_of(request).ledger.ask("spend", **asked)


def _by(request: Request) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(filter(None, request.query_params.get("by", "model,key").split(","))))
    wrong = [name for name in names if name not in BY]
    if wrong or not names:
        raise Problem(400, "by", f"by={','.join(wrong)[:60]!r}: choose from {', '.join(BY)}")
    return names


def _summed(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what is beyond the rows that are shown, as one: the sum is whole."""
    if not rows:
        return None
    sums = {name: sum(row[name] for row in rows) for name in ("calls", "prompt_tokens", "output_tokens", "unpriced")}
    known, risk = (sum(row[name] for row in rows) for name in ("known_nano", "risk_nano"))
    return {
        **sums,
        "count": len(rows),
        "total_nano": None if sums["unpriced"] and not known else known,
        "risk_nano": risk,
    }


def _bars(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return bars as a drawing of 1,000 by 100 has them: known cost a step."""
    most = max((one["known_nano"] for one in steps), default=0) or 1
    width = 1_000 / max(1, len(steps))
    return [
        {
            "x": round(number * width, 2),
            "width": round(width * 0.85, 2),
            "height": round(100 * one["known_nano"] / most, 2),
            "name": one["hour"] or one["day"],
            "nano": one["total_nano"],
        }
        for number, one in enumerate(steps)
    ]


ROUTES = [Route("/dashboard/spend", spend), Route("/dashboard/spend.csv", csv)]
