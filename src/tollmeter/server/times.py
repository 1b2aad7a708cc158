"""A time from outside becomes microseconds since 1970: RFC 3339 text (UTC without a zone), or a number by its size."""

from datetime import UTC, datetime

from tollmeter.schemas.event import micros
from tollmeter.schemas.times import EXPECTED, REACH_DAYS, is_number, micros_of

REACH_US = REACH_DAYS * 86_400_000_000


def to_micros(value: object) -> int:
    """Return the moment. Raises ValueError that says what is expected."""
    if isinstance(value, str) and not is_number(value):
        try:
            at = datetime.fromisoformat(value.strip())
            return micros(at.replace(tzinfo=UTC) if at.tzinfo is None else at)
        except (ValueError, OverflowError):
            raise ValueError(f"{value[:40]!r} is no time: write it as 2026-11-29T10:00:00Z") from None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a time is text (2026-11-29T10:00:00Z) or a number since 1970")
    moment = micros_of(value)
    if moment is None:
        raise ValueError(EXPECTED)
    return moment


def out_of_reach(at_us: int, now_us: int) -> str:
    """Say that an event is too far from its arrival to be taken; "" when it is not."""
    if abs(at_us - now_us) <= REACH_US:
        return ""
    where = "before" if at_us < now_us else "after"
    return f"more than {REACH_DAYS} days {where} now: old calls are read by `tollmeter import`"
