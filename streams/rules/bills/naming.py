"""Which of the nine names a difference in tokens has, and why; by what the bill and the ledger know of its cell."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from tollmeter.streams.rules.bills.cells import ZERO, Cell, Ours, Sides, Theirs
from tollmeter.streams.rules.bills.rates import Rate

PROVIDER_ONLY, OURS_ONLY, PRICE, ROUNDING, DAY_BORDER = "provider_only", "ours_only", "price", "rounding", "day_border"
LATE, RETRIES, FEE, MATCHED = "late", "retries_aborted", "fee", "matched"
CLASSES = (MATCHED, PROVIDER_ONLY, OURS_ONLY, PRICE, ROUNDING, DAY_BORDER, LATE, RETRIES, FEE)
Amounts = tuple[Decimal, ...]
Name = tuple[str, str, int]
"""Class, cause, and how many calls of ours are behind it."""


@dataclass(frozen=True)
class Question:
    """What the comparison depends on beside the two sides."""

    open_from: date
    """From this day on the bill was not final when it was fetched."""
    known_keys: frozenset[str]
    rate: Rate
    unit: Decimal
    """The smallest step of the bill's amounts."""


def name(both: Sides, asked: Question, cell: Cell, delta: Amounts) -> Name:
    """Return the name of a difference in tokens, theirs minus ours by meter."""
    theirs, ours = both.usage.get(cell), both.ours.get(cell, Ours())
    if not ours.calls:
        known = not both.keyed or cell.key in asked.known_keys
        return PROVIDER_ONLY, "unmetered" if known else "unknown_key", 0
    if cell.day >= asked.open_from:
        return LATE, "open", ours.calls
    if theirs is None or not any(theirs.tokens):
        all_failed = ours.failed_calls and ours.failed_tokens == ours.tokens
        return OURS_ONLY, "failed" if all_failed else "not_on_bill", ours.calls
    if abs(sum(delta, ZERO)) <= max(map(abs, delta)) / 100:
        return PRICE, "cache_share", ours.calls
    return _more(theirs, ours, delta) if sum(delta, ZERO) > 0 else _less(theirs, ours, delta)


def _more(theirs: Theirs, ours: Ours, delta: Amounts) -> Name:
    """Name tokens that the bill has more than we: of calls that we know broke off, or of calls we never saw."""
    surplus = ZERO if theirs.requests is None else theirs.requests - ours.calls
    room = all(count <= most * ours.loose_calls * 2 for count, most in zip(delta, ours.most, strict=True))
    if ours.loose_calls and room and surplus <= ours.loose_calls:
        return RETRIES, "aborted", ours.loose_calls
    if theirs.requests is not None and surplus == 0:
        return RETRIES, "same_requests", ours.calls
    return PROVIDER_ONLY, "more_requests", 0


def _less(theirs: Theirs, ours: Ours, delta: Amounts) -> Name:
    """Name tokens that we have more than the bill: of failed calls, of estimates, or of calls billed elsewhere."""

    def within(most: Iterable[int]) -> bool:
        return all(-count <= room for count, room in zip(delta, most, strict=True))

    if ours.failed_calls and within(ours.failed_tokens):
        return OURS_ONLY, "failed", ours.failed_calls
    if ours.loose_calls and within(ours.loose_tokens) and (theirs.requests is None or theirs.requests >= ours.calls):
        return RETRIES, "estimates_high", ours.loose_calls
    return OURS_ONLY, "not_on_bill", ours.calls
