"""What a page is about, as its address says: a period in a zone, and filters. The address is all that remembers it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.requests import Request

from tollmeter.admin.reports.asked import NO_FILTER, Asked, midnight
from tollmeter.admin.reports.minutes import whole_from
from tollmeter.schemas.secrets import NO_KEY, holds_secret
from tollmeter.server.asking import parts_of
from tollmeter.server.pages.session import Session
from tollmeter.server.problems import Problem

SPANS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "48h": timedelta(hours=48),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
PRESETS = {
    "1h": "last hour",
    "24h": "last 24 hours",
    "48h": "last 48 hours",
    "7d": "last 7 days",
    "30d": "last 30 days",
}
CALENDAR = {"today": "today", "yesterday": "yesterday", "month": "this month", "before": "last month"}
FIELDS = {
    "org": ("org_id", "Organisation"),
    "user": ("user_id", "User"),
    "key": ("api_key_id", "Key id"),
    "label": ("label", "Key label"),
    "model": ("model", "Model"),
    "provider": ("provider", "Provider"),
    "token": ("tag", "Token"),
}
"""The filters of a page by their names in its address, with the filter of the question and what people call it."""
_LONGEST = 300


class Filter(NamedTuple):
    """A field of the filter bar."""

    name: str
    label: str
    value: str
    fixed: bool
    """Whether it is whose figures they are, which an address does not change."""


class Filters(NamedTuple):
    """What an address says, and how to write one that says something else."""

    asked: Asked
    span: str
    fields: tuple[Filter, ...]
    given: Mapping[str, str]

    def link(self, **changed: str) -> str:
        """Return the query of the same page with something else; an empty value is left out."""
        return urlencode({name: value for name, value in {**self.given, **changed}.items() if value})


def filters_of(request: Request, session: Session, now: datetime, span: str = "24h") -> Filters:
    """Read the address. Raises `Problem` 400 that names what cannot be read."""
    query, home_org = request.query_params, parts_of(request).line.org
    given = {
        name: query.get(name, "").strip()[:_LONGEST] for name in (*FIELDS, "span", "from", "until", "zone", "sort")
    }
    zone = _zone(given["zone"] or "UTC")
    chosen = given["span"] or span
    begin, end = _period(given, chosen, zone, now)
    values = {filter_: given[name] for name, (filter_, _) in FIELDS.items()}
    for name in (name for name in FIELDS if holds_secret(given[name])):
        raise Problem(400, name, NO_KEY)
    if values["tag"] and "=" not in values["tag"]:
        values["tag"] = f"tracking_token={values['tag']}"
    own = {"org_id": session.sees, "user_id": session.user}
    values |= {name: value for name, value in own.items() if value}
    given |= {name: "" for name, (filter_, _) in FIELDS.items() if own.get(filter_)}
    fields = tuple(
        Filter(name, label, values[filter_] if filter_ in own else given[name], bool(own.get(filter_)))
        for name, (filter_, label) in FIELDS.items()
    )
    home = session.sees != "" and session.sees == home_org
    whole = whole_from(parts_of(request).line.retention_events_days, now)
    asked = Asked(begin.astimezone(UTC), end.astimezone(UTC), zone, {**NO_FILTER, **values}, home, whole)
    return Filters(asked, "" if given["from"] or given["until"] else chosen, fields, given)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise Problem(400, "zone", f"unknown time zone {name[:60]!r}: write for example UTC or Europe/Berlin") from None


def _period(given: Mapping[str, str], span: str, zone: ZoneInfo, now: datetime) -> tuple[datetime, datetime]:
    end = now + timedelta(microseconds=1)
    if given["from"] or given["until"]:
        until = _moment("until", given["until"], zone) if given["until"] else end
        begin = _moment("from", given["from"], zone) if given["from"] else until - SPANS["24h"]
        if begin >= until:
            raise Problem(400, "period", f"the period is empty: {begin.isoformat()} is not before {until.isoformat()}")
        return begin, until
    if span in SPANS:
        return end - SPANS[span], end
    today = midnight(now, zone)
    first = today.replace(day=1)
    periods = {
        "today": (today, end),
        "yesterday": ((today - timedelta(days=1)).replace(fold=0), today),
        "month": (first, end),
        "before": ((first - timedelta(days=1)).replace(day=1), first),
    }
    if span not in periods:
        raise Problem(400, "span", f"span={span[:40]!r}: choose from {', '.join((*SPANS, *periods))}")
    return periods[span]


def _moment(name: str, text: str, zone: ZoneInfo) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(400, name, f"{name}={text[:40]!r}: write it like 2026-11-22 or 2026-11-22T10:00") from None
    if not 1970 < at.year < 2200:
        raise Problem(400, name, f"{name}={text[:40]!r}: years 1971 to 2199")
    return at if at.tzinfo else at.replace(tzinfo=zone)
