"""The page Spend: a period by model, key or anything else, with a bar a day, and what is not in the total."""

import asyncio
from collections.abc import Iterable, Sequence
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
from tollmeter.server.pages.site import HEADERS, looker, page, reader
from tollmeter.server.problems import Problem

TOP = 50
ALL = 100_000
SPARKS = 20_000
"""Above so many points no lines are drawn."""
TIMES = frozenset({"hour", "day", "week", "month"})
SUMS = ("calls", "prompt_tokens", "output_tokens", "unpriced", "known_nano", "risk_nano")
MEASURES = ("calls", "prompt_tokens", "output_tokens", "usd_est", "unpriced", "usd_at_risk")


async def spend(request: Request) -> Response:
    """Show spend by the columns that the address names."""
    session = await reader(request)
    if isinstance(session, Response):
        return session
    now = datetime.now(UTC)
    shown, by = filters_of(request, session, now, "month"), _by(request)
    step = "hour" if shown.span in ("1h", "24h", "48h", "today") else "day"
    answered, steps, fine = await _figures(request, shown, by, step)
    rows = answered.rows
    sparks = sparklines(fine, [BY[name] for name in by], step, [one[step] for one in steps])
    values: dict[str, Any] = {
        "filters": shown,
        "presets": PRESETS,
        "calendar": CALENDAR,
        "by": by,
        "columns": [BY[name] for name in by],
        "choices": list(BY),
        "rows": [(row, sparks.get(tuple(row[BY[name]] for name in by), "")) for row in rows[:TOP]],
        "step": step,
        "rest": _summed(rows[TOP:]),
        "bars": _bars(steps, step),
        "total": answered.total,
        "age_s": None if answered.as_of is None else max(0.0, (now - answered.as_of).total_seconds()),
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


def sparklines(
    rows: Iterable[dict[str, Any]], columns: Sequence[str], step: str, steps: Sequence[str]
) -> dict[tuple[str, ...], str]:
    """Return a line of known cost for each row, by its names: points of a drawing of 100 by 20, one a step.

    Each line has its own height: it shows a course, the column beside it says how much.
    """
    place = {name: number for number, name in enumerate(steps)}
    series: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        values = series.setdefault(tuple(row[name] for name in columns), [0] * len(steps))
        if row[step] in place:  # a step may have begun since they were asked for
            values[place[row[step]]] += row["known_nano"]
    width = 100 / max(1, len(steps) - 1)

    def line(values: list[int]) -> str:
        most = max(1, *values)
        return " ".join(f"{number * width:.1f},{19 - 18 * nano / most:.1f}" for number, nano in enumerate(values))

    return {name: line(values) for name, values in series.items()}


async def _figures(
    request: Request, shown: Filters, by: tuple[str, ...], step: str
) -> tuple[Answered, list[Row], list[Row]]:
    """Return an answer with its rows, total and age, the steps in their order, and the rows step by step.

    Those are asked for where they are few, else nothing is drawn: one question for all three would bring many rows.
    """
    answered, days = await asyncio.gather(_ask(request, shown, by), _ask(request, shown, (step,)))
    steps = sorted(days.rows, key=lambda one: str(one[step]))
    few = len(steps) > 1 and len(answered.rows) * len(steps) <= SPARKS
    fine = (await _ask(request, shown, (*by, step))).rows if few and not TIMES & {*by} else []
    return answered, steps, fine


async def _ask(request: Request, shown: Filters, by: tuple[str, ...]) -> Answered:
    return await parts_of(request).ledger.answer(lambda ledger: questions.spend(ledger, shown.asked, by, ALL))


def _by(request: Request) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(filter(None, request.query_params.get("by", "model,key").split(","))))
    wrong = [name for name in names if name not in BY]
    if wrong or not names:
        raise Problem(400, "by", f"by={','.join(wrong)[:60]!r}: choose from {', '.join(BY)}")
    return names


def _summed(rows: Sequence[Row]) -> Row | None:
    """Return what is beyond the rows that are shown, as one: the sum is whole."""
    return {**_sums(rows), "count": len(rows)} if rows else None


def _sums(rows: Sequence[Row]) -> Row:
    """Return the sums of rows; a known cost of 0 beside calls without a price is not known."""
    sums: Row = {name: sum(row[name] for row in rows) for name in SUMS}
    return {**sums, "total_nano": None if sums["unpriced"] and not sums["known_nano"] else sums["known_nano"]}


def _bars(steps: list[dict[str, Any]], step: str) -> list[dict[str, Any]]:
    """Return bars as a drawing of 1,000 by 100 has them: known cost a step."""
    most = max((one["known_nano"] for one in steps), default=0) or 1
    width = 1_000 / max(1, len(steps))
    return [
        {
            "x": round(number * width, 2),
            "width": round(width * 0.85, 2),
            "height": round(100 * one["known_nano"] / most, 2),
            "name": one[step],
            "nano": one["total_nano"],
        }
        for number, one in enumerate(steps)
    ]


ROUTES = [Route("/dashboard/spend", spend), Route("/dashboard/spend.csv", csv)]
