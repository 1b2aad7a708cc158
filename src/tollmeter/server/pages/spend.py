"""The page Spend: a period by model, key or anything else, with a bar a day, and what is not in the total."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tollmeter.admin.reports import questions
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.admin.reports.questions import BY, Answered
from tollmeter.admin.reports.rows import Row, plain
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.filters import CALENDAR, PRESETS, Filters, filters_of
from tollmeter.server.pages.site import HEADERS, looker, page, reader, standing
from tollmeter.server.problems import Problem

Course = tuple[Sequence[str], Sequence[int], Sequence[int], Sequence[int]]
"""Steps with calls, and the known cost in nano-USD, the unpriced and all calls of each."""
TOP = 50
ALL = 100_000
TIMES = frozenset({"hour", "day", "week", "month"})
SUMS = ("calls", "refused", "prompt_tokens", "output_tokens", "unpriced", "known_nano", "risk_nano")
MEASURES = ("calls", "refused", "prompt_tokens", "output_tokens", "usd_est", "unpriced", "usd_at_risk")


async def spend(request: Request) -> Response:
    """Show spend by the columns that the address names."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    now = datetime.now(UTC)
    shown, by = filters_of(request, session, now, "month"), _by(request)
    step = "hour" if shown.span in ("1h", "24h", "48h", "today") else "day"
    answered = await _ask(request, shown, by, TOP, step)
    steps = [] if not answered.rows else _steps(answered.total["course"])
    drawn = len(steps) > 1 and not TIMES & {*by}
    values: dict[str, Any] = {
        "filters": shown,
        "presets": PRESETS,
        "calendar": CALENDAR,
        "by": by,
        "columns": [BY[name] for name in by],
        "choices": list(BY),
        "rows": [(row, sparkline(row["course"], steps) if drawn else "") for row in answered.rows],
        "step": step,
        "rest": _rest(answered),
        "bars": _bars(steps),
        "most": max((one["known_nano"] for one in steps), default=None),
        **standing(answered, now),
    }
    return page(request, "spend.html", session, **values)


async def csv(request: Request) -> Response:
    """Return the rows of the same address as CSV, all of them."""
    session = await looker(request)
    shown, by = filters_of(request, session, datetime.now(UTC), "month"), _by(request)
    columns = [*(BY[name] for name in by), *MEASURES]
    text = csv_text(columns, [plain(row) for row in (await _ask(request, shown, by)).rows])
    kind = {"content-type": "text/csv; charset=utf-8", "content-disposition": 'attachment; filename="spend.csv"'}
    return Response(text, headers={**HEADERS, **kind})


def sparkline(course: Course, steps: Sequence[Row]) -> str:
    """Return a line of known cost: points of a drawing of 100 by 20, one a step of the period.

    Each line has its own height: it shows a course, the column beside it says how much.
    """
    known = dict(zip(course[0], course[1], strict=True))
    values = [known.get(one["name"], 0) for one in steps]
    most, width = max(1, *values), 100 / max(1, len(steps) - 1)
    return " ".join(f"{number * width:.1f},{19 - 18 * nano / most:.1f}" for number, nano in enumerate(values))


async def _ask(request: Request, shown: Filters, by: tuple[str, ...], top: int = ALL, step: str = "") -> Answered:
    return await parts_of(request).ledger.answer(lambda ledger: questions.spend(ledger, shown.asked, by, top, step))


def _by(request: Request) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(filter(None, request.query_params.get("by", "model,key").split(","))))
    wrong = [name for name in names if name not in BY]
    if wrong or not names:
        raise Problem(400, "by", f"by={','.join(wrong)[:60]!r}: choose from {', '.join(BY)}")
    return names


def _rest(answered: Answered) -> Row | None:
    """Return what is beyond the rows that are shown, as one: the sum is whole."""
    more = answered.total.get("groups", 0) - len(answered.rows)
    if not more:
        return None
    rest: Row = {name: answered.total[name] - sum(row[name] for row in answered.rows) for name in SUMS}
    unknown = rest["unpriced"] and not rest["known_nano"]
    return {**rest, "total_nano": None if unknown else rest["known_nano"], "count": more}


def _steps(course: Course) -> list[Row]:
    """Return the steps of a period that had calls; a known cost of 0 beside calls without a price is not known."""
    return [
        {"name": name, "known_nano": known, "total_nano": None if unpriced and not known else known}
        for name, known, unpriced, _ in zip(*course, strict=True)
    ]


def _bars(steps: Sequence[Row]) -> list[Row]:
    """Return bars as a drawing of 1,000 by 100 has them: known cost a step."""
    most = max((one["known_nano"] for one in steps), default=0) or 1
    width = 1_000 / max(1, len(steps))
    return [
        {
            "x": round(number * width, 2),
            "width": round(width * 0.85, 2),
            "height": round(100 * one["known_nano"] / most, 2),
            "name": one["name"],
            "nano": one["total_nano"],
        }
        for number, one in enumerate(steps)
    ]


ROUTES = [Route("/dashboard/spend", spend), Route("/dashboard/spend.csv", csv)]
