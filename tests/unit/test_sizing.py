"""Sizes: worked out by hand from round figures, and docs/sizing.md says what its figures say."""

import json

import pytest

from benchmarks import scale, sizing
from benchmarks.scale_run import by_stage
from benchmarks.scale_traffic import keys_of, with_key
from tollmeter.schemas.codec import SINGLE_OBJECT_HEADER

PER_EVENT = sizing.Measured(
    cpu_us={"price": 10.0, "ledger": 5.0, "watch": 8.0, "clickhouse": 12.0, "kafka": 2.0},
    rss_mb={"price": 200, "ledger": 150, "watch": 250, "clickhouse": 1_000, "kafka": 400},
    kafka_bytes=500.0,
    clickhouse_bytes=200.0,
    window_row_bytes=20.0,
)


def test_a_small_line_has_one_process_a_stage() -> None:
    """1,000 events/s: 37 ms of CPU a second; 3.6 million ids of 170 bytes; 86.4 million events a day."""
    assert sizing.size(1_000, PER_EVENT) == sizing.Size(
        rate=1_000,
        processes={"price": 1, "ledger": 1, "watch": 1},
        cores=1,
        partitions=4,
        memory_gb=pytest.approx(0.2 + 0.15 + 0.25 + 1.0 + 0.4 + 0.612),
        kafka_gb=pytest.approx(43.2),
        clickhouse_gb=pytest.approx(17.28),
    )


def test_a_large_line_is_half_idle_and_has_room_to_grow() -> None:
    """250,000 events/s: PRICE 2.5 cores, at half 5; WATCH 2.0 and 4; in all 9.25 and 18.5; 2 × 5 partitions → 16."""
    size = sizing.size(250_000, PER_EVENT)
    assert size.processes == {"price": 5, "ledger": 3, "watch": 4}
    assert (size.cores, size.partitions) == (19, 16)
    processes_gb = 5 * 0.2 + 3 * 0.15 + 4 * 0.25 + 1.0 + 0.4
    assert size.memory_gb == pytest.approx(processes_gb + 16 * 5_000_000 * 170 / 1e9), "as many ids as the caps hold"


def test_bytes_are_of_one_event() -> None:
    case = {
        "cpu_us_per_event": PER_EVENT.cpu_us,
        "peak_rss_mb": PER_EVENT.rss_mb,
        "disk": {
            "records": 100,
            "kafka": {"usage.events": 20_000, "usage.priced": 10_000},
            "merged": {
                "usage_events": {"bytes": 8_000, "rows": 99},
                "usage_minutes": {"bytes": 1_500, "rows": 40},
                "ledger_coverage": {"bytes": 500, "rows": 3},
                "usage_windows": {"bytes": 6_000, "rows": 300},
            },
        },
    }
    found = sizing.measured([{}, case])
    assert (found.kafka_bytes, found.clickhouse_bytes, found.window_row_bytes) == (300.0, 100.0, 20.0)
    with pytest.raises(ValueError, match="bytes on disk"):
        sizing.measured([{}])


def test_processes_of_a_stage_count_together() -> None:
    cpu = {"price": 1.5, "price-2": 2.5, "ledger": 1.0, "kafka": 0.5}
    assert by_stage(cpu) == {"price": 4.0, "ledger": 1.0, "kafka": 0.5}


def test_keys_are_dealt_to_organisations_in_turn() -> None:
    assert [keys_of(org, 8, 10) for org in range(8)] == [2, 2, 1, 1, 1, 1, 1, 1]
    assert [keys_of(org, 3, 1_000) for org in range(3)] == [334, 333, 333]
    assert [keys_of(org, 4, 2) for org in range(4)] == [1, 1, 1, 1], "no organisation is without one"


def test_a_record_gets_a_key_of_its_organisation_by_its_id() -> None:
    def record(id_: str, org: int) -> bytes:
        return SINGLE_OBJECT_HEADER + b"\x48" + id_.encode() + b"abc" + b"\x20key-" + f"{org:012d}".encode() + b"rest"

    one, same = (with_key(record("00000007-0000-4000-8000-000000000000", 3), 8, 80) for _ in range(2))
    assert one == same, "a resend keeps its key"
    assert one.endswith(b"rest")
    assert len(one) == len(record("00000007-0000-4000-8000-000000000000", 3))
    keys = {with_key(record(f"{n:08x}-0000-4000-8000-000000000000", 3), 8, 80)[-20:-4] for n in range(100)}
    assert len(keys) == 10
    others = {with_key(record(f"{n:08x}-0000-4000-8000-000000000000", 4), 8, 80)[-20:-4] for n in range(100)}
    assert not keys & others


def test_the_page_says_what_its_figures_say() -> None:
    figures = json.loads(scale.FIGURES.read_text(encoding="utf-8"))
    asked = {tuple(getattr(case, name) for name in sizing.SCALES) for case in scale.CASES}
    assert {tuple(case[name] for name in sizing.SCALES) for case in figures["cases"]} <= asked
    assert scale.PAGE.read_text(encoding="utf-8") == scale.page(figures), "run python -m benchmarks.scale --again"
