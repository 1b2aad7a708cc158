"""Verify's arithmetic on rows worked out by hand, and each fault named with its size."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tollmeter.verify.alerts import percentile
from tollmeter.verify.count import (
    LogCounts,
    compare,
    conflicts,
    count,
    expected_ledger,
    first_deliveries,
    in_range,
    source_gaps,
    spans,
)
from tollmeter.verify.log import SCHEMA

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def rows(*changes: dict[str, Any]) -> pl.DataFrame:
    """Rows of a log: the n-th has id n, source offset n, priced offset n unless told otherwise."""
    plain = [
        {
            "event_id": f"e{n}", "event_time": NOON, "org_id": "acme", "src_partition": 0, "src_offset": n,
            "revision": 0, "received_at": NOON, "cost_nano": 100 + n, "content": 1, "priced_offset": n, **change,
        }
        for n, change in enumerate(changes)
    ]  # fmt: skip
    return pl.DataFrame(plain, schema=SCHEMA)


def ledger(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("event_id", "event_time", "org_id", "src_partition", "src_offset", "cost_nano")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], LogCounts(0, 0, 0)),
        ([{}, {}, {}], LogCounts(3, 3, 0)),
        ([{}, {"event_id": "e0"}, {"event_id": "e0"}], LogCounts(3, 1, 2)),
        ([{}, {"event_id": "e0", "org_id": "other"}], LogCounts(2, 2, 0)),
        ([{}, {"event_id": "e0", "event_time": NOON + timedelta(microseconds=1)}], LogCounts(2, 2, 0)),
        ([{}, {"event_id": "e0", "src_offset": 0}], LogCounts(1, 1, 0)),
        ([{}, {"event_id": "e0", "src_offset": 0, "src_partition": 1}], LogCounts(2, 1, 1)),
    ],
    ids=["nothing", "three", "two resends", "id of another org", "id of another time", "replay", "other partition"],
)
def test_counts(changes: list[dict[str, Any]], expected: LogCounts) -> None:
    assert count(first_deliveries(rows(*changes))) == expected


def test_range_is_half_open_and_per_partition() -> None:
    frame = rows({}, {}, {}, {"src_partition": 1, "src_offset": 0}, {"src_partition": 2, "src_offset": 0})
    kept = in_range(frame, {0: 1, 1: 0}, {0: 2, 1: 5})
    assert kept.select("src_partition", "src_offset").rows() == [(0, 1), (1, 0)]


def test_first_delivery_and_highest_revision_stand() -> None:
    frame = rows({}, {"event_id": "e0"}, {}, {"event_id": "e2", "revision": 1, "cost_nano": 7})
    assert expected_ledger(frame).sort("event_id").select("event_id", "cost_nano").rows() == [("e0", 100), ("e2", 7)]


def names(differences: list[Any]) -> dict[str, int]:
    return {difference.name: difference.amount for difference in differences}


def test_equal_sides_have_no_difference() -> None:
    frame = rows({}, {}, {"cost_nano": None})
    assert compare(frame, ledger(frame), {}, "p") == []


@pytest.mark.parametrize(
    ("expected", "stored", "refused", "found"),
    [
        ([{}, {}], [{}], {}, {"missing_in_ledger": 1}),
        ([{}], [{}, {}], {}, {"only_in_ledger": 1}),
        ([{}, {}], [{}], {0: {1}}, {"refused_by_ledger": 1}),
        ([{}], [{"cost_nano": 93}], {}, {"cost_nano": 7}),
        ([{"cost_nano": None}], [{"cost_nano": 0}], {}, {"cost_nano": 1}),
        ([{}], [{"org_id": "other"}], {}, {"missing_in_ledger": 1, "only_in_ledger": 1}),
    ],
    ids=["missing", "surplus", "refused", "cost", "unknown is not 0", "other org"],
)
def test_differences_are_named(expected: Any, stored: Any, refused: Any, found: dict[str, int]) -> None:
    assert names(compare(rows(*expected), ledger(rows(*stored)), refused, "p")) == found


def test_source_gaps() -> None:
    frame = rows({}, {}, {"src_offset": 5})
    found = source_gaps(frame, {0: {2, 5, 99}}, {}, {0: 7, 1: 0})
    assert names(found) == {"neither_priced_nor_rejected": 3, "priced_and_rejected": 1}
    assert {difference.detail for difference in found} == {"offsets 3-4, 6", "offsets 5"}
    assert source_gaps(frame, {0: {2, 3, 4}}, {}, {0: 6}) == []


def test_conflicts_of_producers() -> None:
    other_time = rows({}, {"event_id": "e0", "event_time": NOON + timedelta(seconds=1)})
    assert names(conflicts(other_time, "p")) == {"id_with_several_times": 1}
    other_content = rows({}, {"event_id": "e0", "content": 2})
    assert names(conflicts(other_content, "p")) == {"resend_with_other_content": 1}
    assert conflicts(rows({}, {"event_id": "e0"}, {}), "p") == []


@pytest.mark.parametrize(
    ("offsets", "text"),
    [([], ""), ([3], "3"), ([4, 3, 5, 9], "3-5, 9"), (range(0, 20, 2), "0, 2, 4, 6, 8 and 5 more ranges")],
)
def test_spans(offsets: Any, text: str) -> None:
    assert spans(offsets) == text


@pytest.mark.parametrize(
    ("values", "expected"), [([], None), ([4.0], 4.0), (list(range(1, 101)), 95), ([3.0, 1.0, 2.0], 3.0)]
)
def test_percentile_is_the_nearest_rank(values: list[float], expected: float | None) -> None:
    assert percentile(values, 0.95) == expected
