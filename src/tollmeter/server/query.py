"""Parameters of an answer: a period in a zone, filters, pages. One that nobody knows is refused, never ignored.

A handler declares what it takes with `takes`; `checked` lets nothing else through, and OpenAPI is made of the same.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from tollmeter.admin.reports.asked import NO_FILTER, Asked, back, calendar, instant, midnight
from tollmeter.admin.reports.minutes import whole_from
from tollmeter.schemas.secrets import NO_KEY, holds_secret
from tollmeter.server.asking import parts_of
from tollmeter.server.auth import Caller
from tollmeter.server.problems import Problem
from tollmeter.server.shapes import Shape

PERIOD = ("from", "until", "month", "day", "zone")
FILTERS = {"user": "user_id", "provider": "provider", "model": "model", "key": "api_key_id", "label": "label"}
PAGES = ("page", "limit")
EVER, THIS_MONTH, TODAY = "ever", "month", "day"
MOST_ROWS = 1_000
_FIRST = datetime(1971, 1, 1, tzinfo=UTC)


Handler = Callable[[Request], Awaitable[Response]]
_ANY: dict[str, Any] = {"type": "string"}
_WHOLE: dict[str, Any] = {"type": "integer", "minimum": 1}
_MOMENT = "ISO 8601; of `zone` where it names no offset"
PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "from": (_ANY, f"Where the period begins: {_MOMENT}, or a span before its end like 48h"),
    "until": (_ANY, f"Where it ends, which is no part of it: {_MOMENT}; without it now"),
    "month": (_ANY, "A calendar month of `zone`, like 2026-11, instead of from and until"),
    "day": (_ANY, "A calendar day of `zone`, like 2026-11-22, instead of from and until"),
    "zone": (_ANY, "Time zone of days, months and times, like Europe/Berlin; without it UTC"),
    "user": (_ANY, "Calls of this user alone"),
    "provider": (_ANY, "Calls to this provider alone"),
    "model": (_ANY, "Calls of this model alone, by any of its names"),
    "key": (_ANY, "Calls with the provider's key of this id alone"),
    "label": (_ANY, "Calls with keys of this label alone"),
    "page": (_WHOLE, "Which page, from 1 on"),
    "limit": (_WHOLE, "Rows, of a page where there are pages"),
    "top": (_WHOLE, "Rows, the dearest first"),
    "by": (_ANY, "Columns to sum up by, with commas between them"),
    "token": (_ANY, "Calls with this tracking token alone"),
    "currency": (_ANY, "Of the amounts, or of the limits that are meant"),
    "billing_scope_org": ({"type": "string", "enum": ["true", "false"]}, "false: what he spent on keys of his own"),
    "scope": (_ANY, "Whose limits: org, group, user, api_key and so on"),
    "name": (_ANY, "The name in that scope"),
    "applies": (_ANY, "pool or each_member"),
    "at": (_ANY, "The moment that prices are of: ISO 8601; without it now"),
}
"""Every parameter that any handler takes: the schema of its text, and what it means."""
OF_CALLS = (*PERIOD, *FILTERS)
"""What `asked_of` reads."""


class Taken(NamedTuple):
    """What a handler takes: parameters, by method the shape of the body and its fields that path or key say.

    And what it gives: the shape of its JSON under one status or more, or text of other media types; with the `empty`
    methods nothing (204).
    """

    parameters: tuple[str, ...] = ()
    bodies: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {}  # noqa: RUF012 - never changed
    gives: Shape = None
    statuses: tuple[int, ...] = (200,)
    text: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


def takes(
    *names: str,
    body: type[BaseModel] | None = None,
    methods: Sequence[str] = ("POST", "PUT", "PATCH"),
    said: Sequence[str] = (),
    gives: Shape = None,
    statuses: Sequence[int] = (200,),
    text: Sequence[str] = (),
    empty: Sequence[str] = (),
) -> Callable[[Handler], Handler]:
    """Declare what a handler takes: parameters by name, and with some methods a body; path or key say the `said`.

    And what it gives, as `Taken` has it.
    """
    bodies = {} if body is None else {method: (body, tuple(said)) for method in methods}

    def marked(handler: Handler) -> Handler:
        made = Taken(tuple(dict.fromkeys(names)), bodies, gives, tuple(statuses), tuple(text), tuple(empty))
        handler.taken = made  # type: ignore[attr-defined]
        return handler

    return marked


def taken_of(handler: object) -> Taken:
    """Return what a handler declares; without a word it takes nothing."""
    found: Taken = getattr(handler, "taken", Taken())
    return found


def checked(request: Request) -> dict[str, str]:
    """Return the parameters. Raises `Problem` 400 naming one that the handler does not take, or that is said twice."""
    known = taken_of(request.scope["endpoint"]).parameters
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            there = f"there are {', '.join(sorted(known))}" if known else "there are none"
            raise bad(name, f"no such parameter here; {there}")
        if name in found:
            raise bad(name, "said twice")
        found[name] = value
    return found


def asked_of(request: Request, caller: Caller, default: str) -> Asked:
    """Return which calls of the caller's organisation are meant. Raises `Problem` 400.

    `default` is the period where none is named: a span before now, `TODAY`, `THIS_MONTH` or `EVER`.
    """
    given = checked(request)
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
