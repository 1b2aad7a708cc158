"""Periods in time zones, amounts that never read 0 where there is one, CSV that no spreadsheet computes."""

import csv
import io
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.admin.reports.rows import usd
from tollmeter.cli.report_options import THIS_MONTH, period

NOW = datetime(2026, 11, 29, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "until", "month", "zone", "start", "end"),
    [
        ("48h", "2026-11-29", None, "UTC", "2026-11-27T00:00", "2026-11-29T00:00"),
        ("2026-11-01", "2026-11-02", None, "Europe/Berlin", "2026-10-31T23:00", "2026-11-01T23:00"),
        ("2026-11-01T00:00:00Z", "2026-11-02", None, "Europe/Berlin", "2026-11-01T00:00", "2026-11-01T23:00"),
        ("24h", None, "2026-11", "UTC", "2026-11-01T00:00", "2026-12-01T00:00"),
        # the clocks went back on 25 October: that month is an hour longer
        ("24h", None, "2026-10", "Europe/Berlin", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("24h", None, "2026-12", "Pacific/Kiritimati", "2026-11-30T10:00", "2026-12-31T10:00"),
        (THIS_MONTH, None, None, "UTC", "2026-11-01T00:00", "2026-11-29T23:30:00.000001"),
        # the day on which the clocks went back has 25 hours
        ("24h", None, "2026-10-25", "Europe/Berlin", "2026-10-24T22:00", "2026-10-25T23:00"),
        # there it is the 30th already; a month of days of its own
        (THIS_MONTH, None, None, "Asia/Kolkata", "2026-10-31T18:30", "2026-11-29T23:30:00.000001"),
    ],
)
def test_a_period_is_half_open_and_of_its_zone(
    since: str, until: str | None, month: str | None, zone: str, start: str, end: str
) -> None:
    found = period(since, until, [month] if month else [], ZoneInfo(zone), NOW)
    assert found == tuple(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))


@pytest.mark.parametrize(
    ("nano", "places", "said"),
    [
        (None, 2, None),
        (0, 2, "0.00"),
        (4_500_000, 2, "<0.01"),
        (5_000_000, 2, "0.01"),
        (4_500_000, 4, "0.0045"),
        (1, 4, "<0.0001"),
        (2**70, 2, "1180591620717.41"),
        (-4_000_000, 2, "-0.00"),
    ],
)
def test_an_amount_never_reads_zero(nano: int | None, places: int, said: str | None) -> None:
    assert usd(nano, places, ROUND_HALF_UP) == said


@given(st.lists(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs"))), min_size=1, max_size=5))
def test_no_cell_of_text_begins_a_formula(texts: list[str]) -> None:
    names = [f"c{number}" for number in range(len(texts))]
    (_, cells) = csv.reader(io.StringIO(csv_text(names, [dict(zip(names, texts, strict=True))])))
    for text, cell in zip(texts, cells, strict=True):
        assert cell in (text, f"'{text}")
        assert cell.lstrip(" ")[:1] not in tuple("=+-@\t\n＝＋－＠")


def test_numbers_stay_numbers_and_unknown_is_empty() -> None:
    row = {"a": -1, "b": 0.00001, "c": None, "d": "-1", "e": True}
    assert csv_text(list(row), [row]) == "a,b,c,d,e\n-1,0.00001,,'-1,True\n"
