"""Calendar periods in a zone: days of 23, 24.5 and 25 hours, midnights that never were, months of every length."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest

from tollmeter.streams.rules.limits.periods import period_name, period_of


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


DAYS = [
    ("UTC", "2026-11-22T23:59:59Z", "2026-11-22T00:00Z", "2026-11-23T00:00Z", "2026-11-22"),
    ("Europe/Berlin", "2026-03-29T12:00Z", "2026-03-28T23:00Z", "2026-03-29T22:00Z", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z", "2026-10-25"),
    ("America/New_York", "2026-11-01T05:30Z", "2026-11-01T04:00Z", "2026-11-02T05:00Z", "2026-11-01"),
    ("Asia/Kolkata", "2026-02-28T18:29:59Z", "2026-02-27T18:30Z", "2026-02-28T18:30Z", "2026-02-28"),
    ("Asia/Kolkata", "2026-02-28T18:30Z", "2026-02-28T18:30Z", "2026-03-01T18:30Z", "2026-03-01"),
    ("Australia/Lord_Howe", "2026-04-04T20:00Z", "2026-04-04T13:00Z", "2026-04-05T13:30Z", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04T00:00Z", "2026-10-03T13:30Z", "2026-10-04T13:00Z", "2026-10-04"),
    ("Asia/Kathmandu", "2026-11-22T12:00Z", "2026-11-21T18:15Z", "2026-11-22T18:15Z", "2026-11-22"),
    # no midnight: 00:00 becomes 01:00
    ("Africa/Cairo", "2026-04-24T12:00Z", "2026-04-23T22:00Z", "2026-04-24T21:00Z", "2026-04-24"),
    ("America/Sao_Paulo", "2018-11-04T12:00Z", "2018-11-04T03:00Z", "2018-11-05T02:00Z", "2018-11-04"),
    # 24:00 becomes 23:00 of the same day
    ("Africa/Cairo", "2026-10-29T21:30Z", "2026-10-28T21:00Z", "2026-10-29T22:00Z", "2026-10-29"),
    # midnight twice: 01:00 becomes 00:00
    ("America/Havana", "2026-11-01T05:30Z", "2026-11-01T04:00Z", "2026-11-02T05:00Z", "2026-11-01"),
    # 00:01 becomes 23:01 of the day before: the day begins with its first midnight, and only once
    ("America/St_Johns", "2010-11-07T02:40Z", "2010-11-07T02:30Z", "2010-11-08T03:30Z", "2010-11-07"),
    ("America/St_Johns", "2010-11-07T03:20Z", "2010-11-07T02:30Z", "2010-11-08T03:30Z", "2010-11-07"),
    ("America/St_Johns", "2010-11-07T02:00Z", "2010-11-06T02:30Z", "2010-11-07T02:30Z", "2010-11-06"),
    # 30 December 2011 never was
    ("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00Z", "2011-12-30T10:00Z", "2011-12-29"),
    ("Pacific/Apia", "2011-12-30T10:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z", "2011-12-31"),
    # the gap from 23:30 to 00:30 skips midnight in its middle
    ("America/Toronto", "1919-03-31T12:00Z", "1919-03-31T04:30Z", "1919-04-01T04:00Z", "1919-03-31"),
]


@pytest.mark.parametrize(("zone", "at", "start", "end", "name"), DAYS, ids=[f"{row[0]}-{row[1]}" for row in DAYS])
def test_days(zone: str, at: str, start: str, end: str, name: str) -> None:
    assert period_of("day", zone, instant(at)) == (instant(start), instant(end))
    assert period_name("day", zone, instant(at)) == name


MONTHS = [
    ("UTC", "2024-02-29T23:59:59Z", "2024-02-01T00:00Z", "2024-03-01T00:00Z", "2024-02"),
    ("UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00Z", "2027-01-01T00:00Z", "2026-12"),
    ("Asia/Kolkata", "2026-01-31T18:30Z", "2026-01-31T18:30Z", "2026-02-28T18:30Z", "2026-02"),
    ("Europe/Moscow", "2026-04-30T20:59:59Z", "2026-03-31T21:00Z", "2026-04-30T21:00Z", "2026-04"),
    ("Europe/Berlin", "2026-03-31T21:59:59Z", "2026-02-28T23:00Z", "2026-03-31T22:00Z", "2026-03"),
]


@pytest.mark.parametrize(("zone", "at", "start", "end", "name"), MONTHS, ids=[f"{row[0]}-{row[1]}" for row in MONTHS])
def test_months(zone: str, at: str, start: str, end: str, name: str) -> None:
    assert period_of("month", zone, instant(at)) == (instant(start), instant(end))
    assert period_name("month", zone, instant(at)) == name


def test_a_week_begins_on_monday_and_may_lie_in_two_years() -> None:
    sunday = instant("2027-01-03T23:59:59Z")
    assert period_of("week", "UTC", sunday) == (instant("2026-12-28T00:00Z"), instant("2027-01-04T00:00Z"))
    assert period_name("week", "UTC", sunday) == "2026-W53"
    assert period_of("week", "UTC", sunday + 1)[0] == sunday + 1
    berlin = period_of("week", "Europe/Berlin", instant("2026-10-25T12:00Z"))
    assert (berlin[1] - berlin[0]) / 3_600 == 7 * 24 + 1


def test_a_rolling_period_ends_with_the_step_that_holds_the_instant() -> None:
    at = instant("2026-11-22T10:14:59Z")
    expected = (instant("2026-11-21T10:15Z"), instant("2026-11-22T10:15Z"))
    assert period_of("rolling24h", "Asia/Kolkata", at) == expected
    assert period_of("rolling24h", "UTC", at + 1) == (expected[0] + 900, expected[1] + 900)
    assert period_of("rolling1h", "UTC", at) == (instant("2026-11-22T09:15Z"), expected[1])
    assert period_name("rolling24h", "UTC", at) == "2026-11-22T10:15Z"


@pytest.mark.parametrize("window", ["year", "rolling", "rolling0h", "rolling-1h", "rolling24", "", "Day"])
def test_an_unknown_period_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match="unknown period"):
        period_of(window, "UTC", 0)


@pytest.mark.parametrize("every", [24, pytest.param(1, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("window", ["day", "week", "month"])
def test_periods_of_every_zone_tile_the_time_line(window: str, every: int) -> None:
    """Through 2009-2013 (St John's at 00:01, Apia's lost day) and 2026; some zones here, all of them at night."""
    zones = sorted(available_timezones())[::every]
    odd = ["America/St_Johns", "Pacific/Apia", "Africa/Cairo", "Australia/Lord_Howe", "Pacific/Chatham"]
    for zone in dict.fromkeys([*zones, *odd]):
        for since, until in ((1_230_000_000, 1_380_000_000), (1_767_000_000, 1_799_000_000)):
            start, end = period_of(window, zone, since)
            names = set()
            while start < until:
                assert start % 900 == 0
                assert start < end
                assert period_of(window, zone, start) == (start, end) == period_of(window, zone, end - 1)
                name = period_name(window, zone, start)
                assert name not in names
                names.add(name)
                (start, end), last = period_of(window, zone, end), end
                assert start == last
            if window == "month" and since > 1_700_000_000:
                assert len(names) in (12, 13, 14)


def test_borders_are_the_zone_s_own_midnights() -> None:
    """Against the calendar asked minute by minute: where a local date first appears, and nowhere else."""
    for zone in ("Europe/Berlin", "Africa/Cairo", "America/Havana", "Australia/Lord_Howe", "Asia/Kolkata"):
        tz = ZoneInfo(zone)
        for month in (3, 4, 10, 11):
            at = int(datetime(2026, month, 20, tzinfo=UTC).timestamp())
            for _ in range(16 * 24 * 4):
                before, at = at, at + 900
                new_date = datetime.fromtimestamp(at, tz).date() > datetime.fromtimestamp(before, tz).date()
                assert (period_of("day", zone, at)[0] == at) == new_date, (zone, at)
