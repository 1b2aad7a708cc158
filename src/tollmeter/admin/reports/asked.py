"""Which calls a report is about: a period in a time zone, and filters. A period is half-open: from ... up to ..."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tollmeter.sinks.clickhouse.queries import moment

FILTERS = ("org_id", "user_id", "provider", "model", "api_key_id", "label")
NO_FILTER = dict.fromkeys(FILTERS, "")


class Asked(NamedTuple):
    """The calls that a report is about. `filters` has a text for each of `FILTERS`; "" = all."""

    since: datetime
    until: datetime
    zone: ZoneInfo
    filters: dict[str, str]

    def parameters(self) -> dict[str, str]:
        """Return what the named queries ask for."""
        return {"since": moment(self.since), "until": moment(self.until), **self.filters}

    def said(self) -> str:
        """Return the period for people, with its zone."""
        start, end = (at.astimezone(self.zone) for at in (self.since, self.until))
        return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} {self.zone.key}"

    def document(self) -> dict[str, str]:
        """Return the period as JSON carries it: times in its zone."""
        start, end = (at.astimezone(self.zone).isoformat() for at in (self.since, self.until))
        return {"from": start, "until": end, "zone": self.zone.key}


def day(now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the local day around a moment, in UTC: 23 to 25 hours."""
    start = midnight(now, zone)
    return start.astimezone(UTC), (start + timedelta(days=1)).replace(fold=0).astimezone(UTC)


def midnight(now: datetime, zone: ZoneInfo) -> datetime:
    """Return when the local day of a moment began."""
    return now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
