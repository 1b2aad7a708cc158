"""Parameter types that commands share: spans of time like 90s, 30m, 48h, 7d, and instants in UTC."""

import re
from datetime import UTC, datetime
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


class Span(click.ParamType):
    """A length of time in seconds, written as a number and s, m, h or d."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _SPAN.fullmatch(str(value).strip())
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is no span of time: write a number and s, m, h or d, for example 30m", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


class Instant(click.ParamType):
    """A moment in ISO 8601; UTC unless it names an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time: write it like 2026-11-22T10:00:00Z", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


SPAN = Span()
INSTANT = Instant()
