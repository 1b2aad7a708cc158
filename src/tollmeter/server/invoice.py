"""Statements and the comparison with a bill, for answers and pages: as commands have them, own rows alone."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from tollmeter.admin import statement_part
from tollmeter.admin.close import CloseError
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.line import book_of, line_of
from tollmeter.server.problems import Problem
from tollmeter.sinks.clickhouse.queries import moment

if TYPE_CHECKING:
    from tollmeter.sinks.clickhouse.client import ClickHouse

Row = dict[str, Any]
Value = TypeVar("Value")


def month_of(text: str) -> date:
    """Return the first day of a month like 2026-11. Raises `Problem` 400."""
    try:
        return datetime.strptime(text, "%Y-%m").date()  # noqa: DTZ007 - a month of UTC
    except ValueError:
        raise Problem(400, "bad_parameter", f"month: {text[:20]!r} is no month: write it like 2026-11") from None


async def months(request: Request, org: str, orgs: Sequence[str]) -> list[Row]:
    """Return the closed months. Raises `Problem`."""
    return await _read(request, lambda ledger: statement_part.months(ledger, org, orgs))


async def statement(request: Request, month: date, org: str, orgs: Sequence[str]) -> Row:
    """Return the statement of a month. Raises `Problem`, 404 where the month is not closed."""
    name = f"{month:%Y-%m}"
    now = datetime.now(UTC)
    found = await _read(request, lambda ledger: statement_part.statement(ledger, name, org, orgs, now))
    if found is None:
        raise Problem(404, "not_closed", f"{name} is not closed: 'tollmeter close {name}' freezes its statement")
    return found


async def comparison(request: Request, provider: str, month: date, by: str, orgs: Sequence[str]) -> Row:
    """Return a provider's bill of a month beside the ledger. Raises `Problem`.

    A bill is of an account: where calls of other organisations are on it, only who sees them all may see it.
    """
    from tollmeter.admin.bills import told
    from tollmeter.admin.bills.reconcile import Asked, reconcile
    from tollmeter.streams.rules.bills.lines import BillError

    if by not in told.BY:
        raise Problem(400, "bad_parameter", f"by: choose from {', '.join(told.BY)}")
    following = (month.replace(day=28) + timedelta(days=4)).replace(day=1)
    asked = Asked(provider.strip().lower(), month, following)
    span = {"since": moment(_midnight(month)), "until": moment(_midnight(following))}
    (others,) = await parts_of(request).ledger.ask("bill_orgs", provider=asked.provider, orgs=list(orgs), **span)
    if others["others"]:
        text = (
            "other organisations have calls on this account: 'tollmeter reconcile' compares it, for who sees them all"
        )
        raise Problem(403, "shared_account", text)
    book, now = await book_of(request), datetime.now(UTC)

    def compare(ledger: "ClickHouse") -> Row:
        found = reconcile(ledger, book, asked, now)
        return told.document(found, by, told.sampled(ledger, found, found.guessed))

    try:
        async with line_of(request).pricing:
            return await parts_of(request).ledger.answer(compare)
    except BillError as problem:
        raise Problem(404, "no_bill", str(problem)) from None


def _midnight(day: date) -> datetime:
    from tollmeter.admin.bills.pages import midnight

    return midnight(day)


async def _read(request: Request, question: Callable[["ClickHouse"], Value]) -> Value:
    try:
        return await parts_of(request).ledger.answer(question)
    except CloseError as problem:
        raise Problem(409, "changed_statement", str(problem)) from None
