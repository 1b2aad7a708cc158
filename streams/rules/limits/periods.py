"""Periods tile the time line: every instant lies in exactly one day, week and month of a zone, on 15-minute borders.

A day begins with the first instant of its local date: where clocks skip midnight that is the instant of the change, and
where midnight comes twice it is the first one. A rolling period ends with the 15-minute step that holds the instant.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

STEP_S = 900
"""Spend is summed in steps of 15 minutes: every offset in use is a multiple of it; older ones round down to one."""
FORECAST_FROM_PCT = 2
"""So much of a period must have passed before its pace says anything about its end."""
_DAY = timedelta(days=1)
_ROLLING = re.compile(r"rolling([1-9]\d*)h")


def period_of(window: str, zone: str, at_s: int) -> tuple[int, int]:
    """Return start and end of the period that holds an instant, in seconds since 1970 UTC: start <= at_s < end.

    `window` is day, week (from Monday), month or rolling<hours>h. Raises `ValueError` for any other.
    """
    start, end, _ = _period(window, zone, at_s // STEP_S)
    return start, end


def period_name(window: str, zone: str, at_s: int) -> str:
    """Return what people call the period: 2026-11-20, 2026-W47, 2026-11; a rolling one is named by its end in UTC."""
    _, end, first = _period(window, zone, at_s // STEP_S)
    if window.startswith("rolling"):
        return datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%MZ")
    if window == "week":
        return "{}-W{:02}".format(*first.isocalendar()[:2])
    return first.isoformat() if window == "day" else first.isoformat()[:7]


def forecast_of(spent: int, elapsed_s: int, length_s: int) -> int | None:
    """Return the use at a period's end at its mean pace so far, rounded down; None while the period is too young."""
    if elapsed_s * 100 < length_s * FORECAST_FROM_PCT:
        return None
    return spent * length_s // elapsed_s


@lru_cache(maxsize=16_384)
def _period(window: str, zone: str, step: int) -> tuple[int, int, date]:
    """Return start, end and first local date of the period that holds a step."""
    at_s = step * STEP_S
    today = datetime.fromtimestamp(at_s, ZoneInfo(zone)).date()
    rolling = _ROLLING.fullmatch(window)
    if rolling:
        return at_s + STEP_S - int(rolling[1]) * 3_600, at_s + STEP_S, today
    if window not in ("day", "week", "month"):
        raise ValueError(f"unknown period {window!r}: known are day, week, month and rolling<hours>h")
    first = _first_day(window, today)
    start, after = _begin(zone, first), _first_after(window, first)
    end = _begin(zone, after)
    while end <= at_s:  # the clock was put back over midnight, or the local day was skipped
        first, start = after, end
        after = _first_after(window, first)
        end = _begin(zone, after)
    return start, end, first


def _first_day(window: str, day: date) -> date:
    if window == "week":
        return day - day.weekday() * _DAY
    return day if window == "day" else day.replace(day=1)


def _first_after(window: str, first: date) -> date:
    if window == "month":
        return (first + 31 * _DAY).replace(day=1)
    return first + (7 * _DAY if window == "week" else _DAY)


@lru_cache(maxsize=4_096)
def _begin(zone: str, day: date) -> int:
    """Return the first instant at which the zone's date is `day`, or later where that day was skipped."""
    tz = ZoneInfo(zone)
    midnight = datetime.combine(day, time(), tz)
    early, late = (int(midnight.replace(fold=fold).timestamp()) for fold in (1, 0))
    if early < late:  # midnight was skipped: the change lies in (early, late]
        before = _offset(tz, early)
        while late - early > 1:
            middle = (early + late) // 2
            early, late = (middle, late) if _offset(tz, middle) == before else (early, middle)
    return late // STEP_S * STEP_S


def _offset(tz: ZoneInfo, at_s: int) -> timedelta | None:
    return datetime.fromtimestamp(at_s, tz).utcoffset()
