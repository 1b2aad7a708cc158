"""Parameter types that commands share: spans of time like 90s, 30m, 48h, 7d, instants, and time zones."""

import math
import re
from datetime import UTC, date, datetime, tzinfo
from zoneinfo import ZoneInfo

import click

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", re.ASCII)
LONGEST_DAYS = 36_500
FIRST, LAST = 1970, 2200
"""Years of times that are taken."""


class Span(click.ParamType):
    """A length of time in seconds, written as a number and s, m, h or d."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _SPAN.fullmatch(str(value).strip())
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is no span of time: write a number and s, m, h or d, for example 30m", param, ctx)
        seconds = float(match[1]) * _UNITS[match[2]]
        if seconds > LONGEST_DAYS * 86_400:
            self.fail(f"{value!r} is too long: at most {LONGEST_DAYS}d", param, ctx)
        return seconds


class Instant(click.ParamType):
    """A moment in ISO 8601; UTC unless it names an offset."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        return value if isinstance(value, datetime) else self.of(str(value), UTC, param, ctx)

    def of(
        self, text: str, zone: tzinfo, param: click.Parameter | None = None, ctx: click.Context | None = None
    ) -> datetime:
        """Return the moment; in `zone` unless it names an offset. Raises `BadParameter`."""
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time: write it like 2026-11-22 or 2026-11-22T10:00:00Z", param, ctx)
        if not FIRST < at.year < LAST:
            self.fail(f"{text!r} is out of range: years {FIRST + 1} to {LAST - 1}", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=zone)


class Number(click.FloatRange):
    """A number within bounds; what is no number lies within none."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


class Zone(click.ParamType):
    """A time zone by its IANA name."""

    name = "zone"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        if isinstance(value, ZoneInfo):
            return value
        try:
            return ZoneInfo(str(value))
        except (KeyError, ValueError, OSError):
            self.fail(f"{value!r} is no time zone: write for example UTC or Europe/Berlin", param, ctx)


class Month(click.ParamType):
    """A calendar month of UTC, as its first day."""

    name = "month"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return datetime.strptime(str(value), "%Y-%m").replace(tzinfo=UTC).date()
        except ValueError:
            self.fail(f"{value!r} is no month: write it like 2026-11", param, ctx)


SPAN = Span()
INSTANT = Instant()
ZONE = Zone()
MONTH = Month()
