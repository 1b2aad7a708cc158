"""Parameters of an answer: a period in a zone, filters, pages. One that nobody knows is refused, never ignored."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from starlette.requests import Request

from tollmeter.admin.reports.asked import NO_FILTER, Asked, back, calendar, instant, midnight
from tollmeter.admin.reports.minutes import whole_from
from tollmeter.schemas.secrets import NO_KEY, holds_secret
from tollmeter.server.asking import parts_of
from tollmeter.server.auth import Caller
from tollmeter.server.problems import Problem

PERIOD = ("from", "until", "month", "day", "zone")
FILTERS = {"user": "user_id", "provider": "provider", "model": "model", "key": "api_key_id", "label": "label"}
PAGES = ("page", "limit")
EVER, THIS_MONTH, TODAY = "ever", "month", "day"
MOST_ROWS = 1_000
_FIRST = datetime(1971, 1, 1, tzinfo=UTC)


def checked(request: Request, known: Collection[str]) -> dict[str, str]:
    """Return the parameters. Raises `Problem` 400 naming one that is unknown or said twice."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise bad(name, f"no such parameter here; there are {', '.join(sorted(known))}")
        if name in found:
            raise bad(name, "said twice")
        found[name] = value
    return found


def asked_of(request: Request, caller: Caller, default: str, more: Collection[str] = ()) -> Asked:
    """Return which calls of the caller's organisation are meant. Raises `Problem` 400.

    `default` is the period where none is named: a span before now, `TODAY`, `THIS_MONTH` or `EVER`.
    """
    given = checked(request, {*PERIOD, *FILTERS, *more})
    zone = zone_of(given)
    filters = {**NO_FILTER, "org_id": caller.org_id}
    filters |= {column: _no_secret(name, given.get(name, "")) for name, column in FILTERS.items()}
    now = datetime.now(UTC)
    since, until = _period(given, zone, default, now)
    whole = whole_from(parts_of(request).line.retention_events_days, now)
    return Asked(since, until, zone, filters, is_home(request, caller), whole)


def _no_secret(name: str, value: str) -> str:
    if holds_secret(value):
        raise bad(name, NO_KEY)
    return value


def zone_of(given: dict[str, str]) -> ZoneInfo:
    """Return the time zone of days, months and times without one. Raises `Problem` 400."""
    name = given.get("zone", "UTC")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise bad("zone", f"{name[:60]!r} is no time zone: write for example UTC or Europe/Berlin") from None


def page_of(given: dict[str, str], limit: int = 50) -> tuple[int, int]:
    """Return which page, from 1 on, of how many rows. Raises `Problem` 400."""
    return whole(given, "page", 1, 10_000_000), whole(given, "limit", limit, MOST_ROWS)


def whole(given: dict[str, str], name: str, default: int, most: int) -> int:
    """Return a whole number from 1 on. Raises `Problem` 400."""
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= most):
        raise bad(name, f"a whole number from 1 to {most} is expected")
    return int(text)


def is_home(request: Request, caller: Caller) -> bool:
    """Return whether calls without an organisation are the caller's: those of the set-up's own."""
    return caller.org_id == parts_of(request).line.org


def bad(name: str, why: str) -> Problem:
    """Return the answer to a parameter that is wrong."""
    return Problem(400, "bad_parameter", f"{name}: {why}")


def _period(given: dict[str, str], zone: ZoneInfo, default: str, now: datetime) -> tuple[datetime, datetime]:
    named = [name for name in ("month", "day") if name in given]
    if len(named) + bool({"from", "until"} & given.keys()) > 1:
        raise bad(named[0], "a calendar day or month is a period by itself: give one, without from and until")
    reading: str = named[0] if named else "until"
    try:
        if named:
            return calendar(given[reading], zone)
        end = instant(given["until"], zone) if "until" in given else now + timedelta(microseconds=1)
        reading = "from"
        start = back(given["from"], end, zone) if "from" in given else _start(default, end, zone)
    except ValueError as error:
        raise bad(reading, str(error)) from None
    if start >= end:
        raise bad(reading, f"the period is empty: {start.isoformat()} is not before {end.isoformat()}")
    return start.astimezone(UTC), end.astimezone(UTC)


def _start(default: str, end: datetime, zone: ZoneInfo) -> datetime:
    if default == EVER:
        return _FIRST
    if default in (TODAY, THIS_MONTH):
        today = midnight(end - timedelta(microseconds=1), zone)
        return today.replace(day=1) if default == THIS_MONTH else today
    return back(default, end, zone)
