"""Answers of usage and cost interfaces: all pages of a report, none missing, none twice, no error read as zero."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from tollmeter.streams.rules.bills.lines import YEARS, BillError, get, shown

Document = tuple[str, Any]
"""Where it is from (a file, an address), and the JSON."""
DAY_S = 86_400


def buckets(documents: Sequence[Document], begins: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the buckets of a report in order of time, each with its place. Raises `BillError`.

    `begins` names the field of a bucket's beginning. A page that says that more follows needs a later one.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    pages = [page for where, document in documents for page in _pages(where, document)]
    for where, page in pages:
        rows = page if isinstance(page, list) else get(page, "data", where)
        if not isinstance(rows, list):
            raise BillError(f"{where}: 'data' is no list")
        for number, bucket in enumerate(rows, 1):
            if not isinstance(bucket, dict) or begins not in bucket:
                raise BillError(f"{where}: entry {number} has no {begins!r}: this is no bucket of a report")
            found.append((where, bucket))
    _all_there(pages, begins)
    found.sort(key=lambda one: moment(one[1][begins], one[0]))
    for (first, one), (second, other) in pairwise(found):
        if moment(one[begins], first) == moment(other[begins], second):
            places = first if first == second else f"{first} and {second}"
            twice = f"the bucket that begins at {one[begins]} is there twice"
            raise BillError(f"{places}: {twice}: import one of them, and one report at a time")
    return found


def _pages(where: str, document: object) -> Iterator[Document]:
    refuse_error(where, document)
    if isinstance(document, list) and document and all(isinstance(one, dict) and "data" in one for one in document):
        for page in document:
            refuse_error(where, page)
            yield where, page
    elif isinstance(document, list | dict):
        yield where, document
    else:
        raise BillError(f"{where}: no report in a form that is known here")


def refuse_error(where: str, document: object) -> None:
    """Raise `BillError` for an error answer: it is no bill of zero."""
    if isinstance(document, dict) and ("error" in document or document.get("type") == "error"):
        error = document.get("error")
        said = error.get("message") or error.get("type") if isinstance(error, dict) else error
        raise BillError(f"{where}: this is an error of the provider, no bill: {str(said or 'no reason given')[:200]}")


def _all_there(pages: Sequence[Document], begins: str) -> None:
    """Raise `BillError` when the page that is last by time says that more follows."""
    stated = [
        (max((str(bucket[begins]) for bucket in page["data"]), default=""), where, page)
        for where, page in pages
        if isinstance(page, dict)
    ]
    open_pages = [one for one in stated if one[2].get("has_more")]
    closed = len(stated) - len(open_pages)
    if open_pages and not closed:
        _, where, page = max(stated, key=lambda one: one[0])
        raise BillError(
            f"{where}: more pages follow (next_page {str(page.get('next_page'))[:40]!r}): import all pages together, "
            "the last one, too"
        )
    if closed > 1 and open_pages:
        raise BillError(f"{stated[0][1]}: pages of {closed} reports: import one report at a time")


def day_of(at: datetime) -> date:
    return at.astimezone(UTC).date()


def moment(value: object, where: str) -> datetime:
    """Return a time in unix seconds or ISO 8601. Raises `BillError`."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            found = datetime.fromtimestamp(value, UTC)
        else:
            found = datetime.fromisoformat(str(value).replace(" UTC", "+00:00"))
    except (ValueError, OverflowError, OSError):
        raise BillError(f"{where}: {shown(value)} is no time") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if found.year not in YEARS:
        raise BillError(f"{where}: {shown(value)} is out of range")
    return found.astimezone(UTC)


class Days:
    """Which days a report covers, and which of them whole. Its buckets come in order of time."""

    def __init__(self) -> None:
        self._seconds: dict[date, float] = {}
        self._end: datetime | None = None

    def cover(self, begin: datetime, end: datetime, where: str) -> date:
        """Note [begin, end), which lies within one day; return the day. Raises `BillError`."""
        day = day_of(begin)
        length = (end - begin).total_seconds()
        if length <= 0 or (end > midnight(day) + timedelta(days=1)):
            raise BillError(
                f"{where}: the bucket from {begin.isoformat()} to {end.isoformat()} is no part of one day of UTC: "
                "fetch the report by day or hour"
            )
        if self._end is not None and begin < self._end:
            raise BillError(
                f"{where}: the bucket from {begin.isoformat()} lies within the one before it: import pages of one "
                "bucket_width"
            )
        self._end = end
        self._seconds[day] = self._seconds.get(day, 0.0) + length
        return day

    def all(self) -> dict[date, bool]:
        """Return the days; True for those that are covered whole."""
        return {day: seconds >= DAY_S for day, seconds in sorted(self._seconds.items())}


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
