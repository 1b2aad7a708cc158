"""Which calls a report is about: a period in a time zone, and filters. A period is half-open: from ... up to ..."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tollmeter.schemas.secrets import without_secrets
from tollmeter.sinks.clickhouse.queries import moment

FILTERS = ("org_id", "user_id", "provider", "model", "api_key_id", "label", "tag")
NO_FILTER = dict.fromkeys(FILTERS, "")
FIRST_YEAR, LAST_YEAR = 1971, 2199
_SPAN = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST_S = 36_500 * 86_400
_CALENDAR = re.compile(r"\d{4}-\d{2}(-\d{2})?", re.ASCII)


class Asked(NamedTuple):
    """The calls that a report is about. `filters` has a text for each of `FILTERS`; "" = all."""

    since: datetime
    until: datetime
    zone: ZoneInfo
    filters: dict[str, str]
    nameless: bool = False
    """Whether calls that name no organisation are of the one asked for, too."""

    minutes_from: datetime | None = None
    """From when on the rollup has every minute; None: it is not asked."""

    @property
    def orgs(self) -> list[str]:
        """The organisations that are meant; none = all."""
        org = self.filters["org_id"]
        return ([org, ""] if self.nameless else [org]) if org else []

    def parameters(self) -> dict[str, object]:
        """Return what the named queries ask for."""
        return {"since": moment(self.since), "until": moment(self.until), "orgs": self.orgs, **self.filters}

    def months(self) -> Iterator[str]:
        """Yield the local months, like 2026-11, whose first moment is in the period."""
        start = self.since.astimezone(self.zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
        while start.astimezone(UTC) < self.until:
            if start.astimezone(UTC) >= self.since:
                yield f"{start:%Y-%m}"
            start = (start.replace(day=28) + timedelta(days=4)).replace(day=1)

    def said(self) -> str:
        """Return the period for people, with its zone."""
        start, end = (at.astimezone(self.zone) for at in (self.since, self.until))
        return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} {self.zone.key}"

    def document(self) -> dict[str, str]:
        """Return the period as JSON carries it: times in its zone."""
        start, end = (at.astimezone(self.zone).isoformat() for at in (self.since, self.until))
        return {"from": start, "until": end, "zone": self.zone.key}


def with_key_ids(filters: Mapping[str, str], pepper: str) -> dict[str, str]:
    """Return the filters with the id of a provider key in place of the key itself: calls are stored under ids."""
    return without_secrets(filters, pepper or None)


def day(now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the local day around a moment, in UTC: 23 to 25 hours."""
    start = midnight(now, zone)
    return start.astimezone(UTC), (start + timedelta(days=1)).replace(fold=0).astimezone(UTC)


def midnight(now: datetime, zone: tzinfo) -> datetime:
    """Return when the local day of a moment began."""
    return now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


def calendar(text: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return a local calendar day (2026-11-22) or month (2026-11), in UTC. Raises `ValueError`."""
    if _CALENDAR.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no calendar day or month: write it like 2026-11-22 or 2026-11")
    month = text.count("-") == 1
    start = instant(f"{text}-01" if month else text, zone)
    following = (start.replace(day=28) + timedelta(days=4)).replace(day=1) if month else start + timedelta(days=1)
    return start.astimezone(UTC), following.astimezone(UTC)


def instant(text: str, zone: tzinfo) -> datetime:
    """Return a moment in ISO 8601, of `zone` unless it names an offset. Raises `ValueError`."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write it like 2026-11-22 or 2026-11-22T10:00:00Z") from None
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError(f"{text!r} is out of range: years {FIRST_YEAR} to {LAST_YEAR}")
    return at if at.tzinfo else at.replace(tzinfo=zone)


def back(text: str, end: datetime, zone: tzinfo) -> datetime:
    """Return where a period begins that ends at `end`: a span before it (48h), or an instant. Raises `ValueError`."""
    found = _SPAN.fullmatch(text)
    if found is None:
        return instant(text, zone)
    seconds = int(found[1]) * _SECONDS[found[2]]
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError(f"{text!r} is no span: at least 1s, at most 36500d")
    return end - timedelta(seconds=seconds)
