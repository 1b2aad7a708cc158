"""Today's cost per model and key, and the reports that commands print: calls, spend, operations; CSV of all calls."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.admin.reports.export import START, cells, page
from tollmeter.admin.reports.questions import BY, CALL, OPERATION, SPEND, Answered
from tollmeter.admin.reports.rows import document
from tollmeter.server.asking import parts_of, reader_of
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.query import OF_CALLS, THIS_MONTH, TODAY, asked_of, bad, checked, takes, whole
from tollmeter.server.report_shapes import report

_TODAY = ("model", "api_key_id", *SPEND)


@takes("zone", gives=report(_TODAY, day=str))
async def today(request: Request) -> Response:
    """Say what today has cost, per model and key, dearest first, with totals."""
    caller = await reader_of(request)
    asked = asked_of(request, caller, TODAY)
    answered = await parts_of(request).ledger.answer(lambda ledger: questions.costs(ledger, asked))
    day = f"{asked.since.astimezone(asked.zone):%Y-%m-%d}"
    return JsonAnswer({"day": day, **_document(answered, asked, _TODAY)})


@takes(*OF_CALLS, "top", gives=report(CALL))
async def calls(request: Request) -> Response:
    """List the dearest calls of a period."""
    asked = asked_of(request, await reader_of(request), "24h")
    top = whole(checked(request), "top", 20, 10_000)
    answered = await parts_of(request).ledger.answer(lambda ledger: questions.top_calls(ledger, asked, top))
    return JsonAnswer(_document(answered, asked, CALL))


@takes(*OF_CALLS, "by", "top", gives=report(SPEND, tuple(dict.fromkeys(BY.values()))))
async def spend(request: Request) -> Response:
    """Say what a period has cost by any columns, dearest first."""
    asked = asked_of(request, await reader_of(request), "48h")
    given = checked(request)
    by = tuple(dict.fromkeys(given.get("by", "model,key").split(",")))
    unknown = [name for name in by if name not in BY or name == "org"]
    if unknown:
        raise bad("by", f"no column {unknown[0][:40]!r}: choose from {', '.join(name for name in BY if name != 'org')}")
    top = whole(given, "top", 10_000, 100_000)
    answered = await parts_of(request).ledger.answer(lambda ledger: questions.spend(ledger, asked, by, top))
    return JsonAnswer(_document(answered, asked, [*(BY[name] for name in by), *SPEND]))


@takes(*OF_CALLS, gives=report(OPERATION))
async def operations(request: Request) -> Response:
    """Say what each operation has cost."""
    asked = asked_of(request, await reader_of(request), THIS_MONTH)
    answered = await parts_of(request).ledger.answer(lambda ledger: questions.operations(ledger, asked))
    return JsonAnswer(_document(answered, asked, OPERATION))


@takes(*OF_CALLS, text=("text/csv",))
async def calls_csv(request: Request) -> Response:
    """Give every call of a period as CSV, streamed, oldest first; no cell is a formula."""
    asked = asked_of(request, await reader_of(request), "24h")
    rows = _lines(request, asked)
    first = await anext(rows)  # what cannot be answered is a problem, not half a file

    async def text() -> AsyncIterator[str]:
        yield first
        async for lines in rows:
            yield lines

    name = f"calls-{asked.since:%Y%m%dT%H%M%SZ}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(text(), media_type="text/csv; charset=utf-8", headers=headers)


async def _lines(request: Request, asked: Asked) -> AsyncIterator[str]:
    """Yield the head with the first page, then page by page. A failure in between breaks the answer off, visibly."""
    ledger, after = parts_of(request).ledger, START
    head = True
    while True:
        rows, following = await ledger.answer(lambda client: page(client, asked, after))  # noqa: B023 - awaited here
        text = csv_text(list(rows[0]), [cells(row) for row in rows]) if rows else ""
        yield text if head else text.partition("\n")[2]
        head = False
        if following is None:
            return
        after = following


def _document(answered: Answered, asked: Asked, columns: tuple[str, ...] | list[str]) -> dict[str, object]:
    rows = document(answered.rows, columns)
    return questions.document(answered, asked, rows, datetime.now(UTC))


ROUTES = [
    Route("/api/costs/today", today),
    Route("/api/v1/calls", calls),
    Route("/api/v1/calls.csv", calls_csv),
    Route("/api/v1/spend", spend),
    Route("/api/v1/operations", operations),
]
