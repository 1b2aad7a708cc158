"""Verify's arithmetic on rows worked out by hand, and each fault named with its size."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tollmeter.admin.verify.alarm import alerts
from tollmeter.admin.verify.alerts import percentile
from tollmeter.admin.verify.count import (
    IDENTITY,
    Corrected,
    Difference,
    Differences,
    LogCounts,
    as_read,
    changed_contents,
    compare,
    corrected,
    count,
    expected_ledger,
    first_deliveries,
    several_times,
)
from tollmeter.admin.verify.ledger import LEDGER_SCHEMA
from tollmeter.admin.verify.log import SCHEMA
from tollmeter.admin.verify.repair import cells_of, to_void
from tollmeter.admin.verify.sources import SourceMap, spans
from tollmeter.admin.verify.spill import Spill
from tollmeter.admin.verify.windows import Progress, WrongCell

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def rows(*changes: dict[str, Any]) -> pl.DataFrame:
    """Rows of a log: the n-th has id n, source offset n, priced offset n unless told otherwise."""
    plain = [
        {
            "event_id": f"e{n}",
            "event_time": NOON,
            "org_id": "acme",
            "src_partition": 0,
            "src_offset": n,
            "revision": 0,
            "received_at": NOON,
            "status": "OK",
            "cost_nano": 100 + n,
            "content": 1,
            "priced_offset": n,
            "priced_partition": 0,
            "corrected": False,
            **change,
        }
        for n, change in enumerate(changes)
    ]
    return pl.DataFrame(plain, schema=SCHEMA)


def ledger(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(list(LEDGER_SCHEMA))


def compared(log: pl.DataFrame, stored: pl.DataFrame, refused: Any = (), voided: pl.DataFrame | None = None) -> Any:
    letters = pl.DataFrame(list(refused), schema={"src_partition": pl.UInt16, "src_offset": pl.Int64}, orient="row")
    voids = (log.clear() if voided is None else voided).select(IDENTITY)
    return compare(log, stored, letters, voids, "p")


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
    kept = SourceMap({0: 1, 1: 0}, {0: 2, 1: 5}).inside(frame)
    assert kept.select("src_partition", "src_offset").rows() == [(0, 1), (1, 0)]


def test_first_delivery_and_highest_revision_stand() -> None:
    frame = rows({}, {"event_id": "e0"}, {}, {"event_id": "e2", "revision": 1, "cost_nano": 7})
    assert expected_ledger(frame).sort("event_id").select("event_id", "cost_nano").rows() == [("e0", 100), ("e2", 7)]


def names(differences: list[Any]) -> dict[str, int]:
    return {difference.name: difference.amount for difference in differences}


def test_equal_sides_have_no_difference() -> None:
    frame = rows({}, {}, {"cost_nano": None})
    found = compared(frame, ledger(frame))
    assert (found.differences, found.missing.height, found.wrong.height, found.voided) == ([], 0, 0, 0)


@pytest.mark.parametrize(
    ("expected", "stored", "refused", "found"),
    [
        ([{}, {}], [{}], [], {"missing_in_ledger": 1}),
        ([{}], [{}, {}], [], {"only_in_ledger": 1}),
        ([{}, {}], [{}], [(0, 1)], {"refused_by_ledger": 1}),
        ([{}], [{"cost_nano": 93}], [], {"cost_nano": 7}),
        ([{"cost_nano": None}], [{"cost_nano": 0}], [], {"cost_nano": 1}),
        ([{"revision": 1}], [{}], [], {"revision": 1}),
        ([{}], [{"org_id": "other"}], [], {"missing_in_ledger": 1, "only_in_ledger": 1}),
    ],
    ids=["missing", "surplus", "refused", "cost", "unknown is not 0", "revision", "other org"],
)
def test_differences_are_named(expected: Any, stored: Any, refused: Any, found: dict[str, int]) -> None:
    assert names(compared(rows(*expected), ledger(rows(*stored)), refused).differences) == found


def test_voided_rows_are_not_missing_and_must_stay_away() -> None:
    log = rows({}, {"event_id": "e0", "event_time": NOON + timedelta(seconds=1)})
    gone = compared(log, ledger(log[:1]), voided=log[1:])
    assert (gone.differences, gone.voided) == ([], 1)
    back = compared(log, ledger(log), voided=log[1:])
    assert names(back.differences) == {"voided_is_back": 1}
    assert back.back["event_time"].to_list() == [NOON + timedelta(seconds=1)]


VOID, MOVED = {"status": "VOID", "revision": 1}, {"org_id": "b", "revision": 1}


@pytest.mark.parametrize(
    ("source", "corrections", "stored", "found"),
    [
        ([{}], [], [{}], Corrected(0, 0, 0)),
        ([{}, {}], [{"revision": 1}], [{"revision": 1}, {}], Corrected(1, 0, 0)),
        ([{}], [VOID], [VOID], Corrected(1, 1, 0)),
        ([{}], [MOVED, {"event_id": "e0"} | VOID], [{"org_id": "b"}, {"event_id": "e0"} | VOID], Corrected(2, 0, 1)),
        # half of a move: counted twice, and the sum says so
        ([{}], [MOVED], [{"org_id": "b"}, {"event_id": "e0"}], Corrected(1, 0, 1)),
        # moved on, then back again
        (
            [{}],
            [MOVED, {"event_id": "e0"} | VOID, {"event_id": "e0", "org_id": "c"}, {"event_id": "e0"} | MOVED | VOID],
            [VOID, {"event_id": "e0"} | MOVED | VOID, {"event_id": "e0", "org_id": "c"}],
            Corrected(3, 0, 2),
        ),
        (
            [{}],
            [MOVED, {"event_id": "e0"} | VOID, {"event_id": "e0", "revision": 2}, {"event_id": "e0"} | MOVED | VOID],
            [{}, {"event_id": "e0"} | MOVED | VOID],
            Corrected(2, 0, 1),
        ),
        # moved, and voided there
        (
            [{}],
            [MOVED, {"event_id": "e0"} | VOID, {"event_id": "e0"} | MOVED | VOID],
            [VOID, {"event_id": "e0"} | MOVED | VOID],
            Corrected(2, 1, 1),
        ),
    ],
    ids=["none", "changed", "void", "moved", "half moved", "moved on", "moved back", "moved and voided"],
)
def test_what_corrections_did_keeps_the_sum(source: Any, corrections: Any, stored: Any, found: Corrected) -> None:
    frame, kept = rows(*source), ledger(rows(*stored))
    assert corrected(frame, rows(*corrections), kept) == found
    live = kept.filter(pl.col("status") != "VOID").height
    half = found == Corrected(1, 0, 1)
    assert (count(frame).distinct == live + found.voided) is not half


def test_row_corrected_behind_what_was_read_stands_for_the_one_before() -> None:
    log = rows({}, {})
    stored = ledger(rows({"revision": 1, "priced_offset": 9, "cost_nano": 5}, {}, {"revision": 1, "priced_offset": 9}))
    kept = as_read(stored, log, stored["priced_offset"] >= 2)
    assert compared(log, kept).differences == []
    assert kept.sort("event_id")["cost_nano"].to_list() == [100, 101]


def test_void_keeps_the_time_that_came_first_in_the_log() -> None:
    later = NOON + timedelta(seconds=1)
    log = rows(
        {"event_time": later},
        {"event_id": "e0"},
        {"event_id": "e0", "event_time": later},
        {},
        {"event_id": "e0", "event_time": NOON - timedelta(days=1)},
        {"org_id": "other", "event_id": "e0"},
    )
    twice = several_times(log)
    assert twice["priced_offset"].to_list() == [0, 1, 4]
    void = to_void(twice)
    assert void["priced_offset"].to_list() == [1, 4]


def test_every_offset_of_the_source_is_accounted_for() -> None:
    sources = SourceMap({1: 3}, {0: 7, 1: 3})
    sources.accept(rows({}, {}, {"src_offset": 5}))
    for offset in (2, 5, 99):
        sources.reject(0, offset)
    assert list(sources.unaccounted()) == [(0, [3, 4, 6])]
    assert (sources.records(), sources.rejected()) == (7, 2)
    found = sources.differences()
    assert names(found) == {"neither_priced_nor_rejected": 3, "priced_and_rejected": 1}
    assert {difference.detail for difference in found} == {"offsets 3-4, 6", "offsets 5"}
    for offset in (3, 4):
        sources.no_record(0, offset)  # the mark of a transaction
    assert names(sources.differences()) == {"neither_priced_nor_rejected": 1, "priced_and_rejected": 1}
    assert (sources.records(), sources.holding(0, 2, 5)) == (5, [2, 5])


def test_same_difference_at_the_same_place_adds_up() -> None:
    found = Differences()
    found.add([Difference("a", "x", 1, "first"), Difference("a", "y", 1), Difference("a", "x", 2, "second")])
    assert list(found) == [Difference("a", "x", 3, "first"), Difference("a", "y", 1)]


def test_spilled_rows_come_back_in_order_and_together(tmp_path: Path) -> None:
    frame = rows(*({"event_id": f"e{n % 50}"} for n in range(200)))
    spill = Spill(tmp_path, "log", 7, SCHEMA)
    for part in (frame[:90], frame[90:90], frame[90:]):
        spill.add(part)
    buckets = [spill.read(number) for number in range(7)]
    assert sum(bucket.height for bucket in buckets) == 200
    assert all(bucket["priced_offset"].is_sorted() for bucket in buckets)
    assert all(count_ == 4 for bucket in buckets for count_ in bucket["event_id"].value_counts()["count"])
    assert spill.read(0).schema == SCHEMA


def cell(*, sealed: bool, window: int, low: int, high: int, name: str = "") -> WrongCell:
    pad = (0,) * 13
    return WrongCell("hour", 3_600, "acme", "org", name, (window, *pad), (low, *pad), (high, *pad), sealed)


def test_sealed_totals_are_set_and_open_ones_touched_before_they_are_moved() -> None:
    wrong = [
        cell(sealed=True, window=5, low=7, high=8),
        cell(sealed=False, window=5, low=7, high=8),
        cell(sealed=True, window=1, low=2, high=2, name="*"),
    ]
    columns = ("bucket", "absolute", "calls")
    assert cells_of(wrong, move=False).select(columns).rows() == [(1, True, 8), (1, False, 0)]
    assert cells_of(wrong, move=True).select(columns).rows() == [(1, True, 8), (1, False, 2)]


def test_difference_of_a_total_is_what_lies_outside_its_bounds() -> None:
    assert [one.amount for one in cell(sealed=True, window=9, low=7, high=8).differences()] == [1]
    assert [one.amount for one in cell(sealed=True, window=4, low=7, high=8).differences()] == [3]
    assert list(cell(sealed=True, window=7, low=7, high=8).differences()) == []


def test_buckets_with_rows_that_wait_for_a_repair_are_known() -> None:
    at = Progress(0, 9, 9, 0, frozenset({("acme", 30)}))  # the hour from 1970-01-02T06:00
    assert at.waits("minute", 30 * 3_600 + 60, "acme")
    assert at.waits("day", 86_400, "acme")
    assert at.waits("month", 0, "acme")
    assert not at.waits("hour", 31 * 3_600, "acme")
    assert not at.waits("hour", 30 * 3_600, "other")
    assert not at.waits("day", 0, "acme")


def test_one_alert_a_day_for_each_kind_of_difference() -> None:
    found = [
        Difference("cost_nano", "p0", 5, "d"),
        Difference("cost_nano", "p1", 6),
        Difference("waiting_for_price", "", 1),
        Difference("id_with_several_times", "p0", 1),
    ]
    raised = alerts(found, NOON)
    assert [(one.name, one.severity, one.facts["places"], one.facts["amount"]) for one in raised] == [
        ("cost_nano", "critical", 2, 11),
        ("id_with_several_times", "warning", 1, 1),
    ]
    assert [one.id for one in alerts(found, NOON + timedelta(hours=3))] == [one.id for one in raised]
    assert {one.id for one in alerts(found, NOON + timedelta(days=1))}.isdisjoint({one.id for one in raised})


def test_resend_with_other_content_is_named() -> None:
    assert names(changed_contents(rows({}, {"event_id": "e0", "content": 2}), "p")) == {"resend_with_other_content": 1}
    assert changed_contents(rows({}, {"event_id": "e0"}, {}), "p") == []
    assert several_times(rows({}, {"event_id": "e0"}, {})).height == 0


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
