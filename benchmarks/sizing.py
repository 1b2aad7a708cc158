"""From figures of one machine to sizes of others: pure arithmetic, put into the words of sizing_page.md."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RATES = (100, 500, 1_000, 5_000, 10_000, 25_000, 50_000)
STAGES = ("price", "ledger", "watch")
BUSY = 0.5
"""A core is at most so busy in ordinary hours: the rest is for peaks and for what piled up in an outage."""
LEAST_PARTITIONS = 4
ROOM_TO_GROW = 2
"""Partitions of a stage's process: their count is fixed for good, the traffic is not."""
DAY_S = 86_400
GB = 1_000_000_000
HORIZON_S, SEEN_CAP, SEEN_BYTES = 3_600, 5_000_000, 170
"""WATCH remembers ids for so long, so many a partition; bytes of each as `streams/rules/windows/dedupe.py` has them."""
WINDOW_ROWS_A_DAY = 1_440 + 24 + 1
"""Rows of a scope that is active in every minute: minutes, hours and the day; its month is one row in thirty days."""
TEMPLATE = Path(__file__).with_name("sizing_page.md")
SCALES = ("partitions", "workers", "keys", "orgs")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one event costs on the machine of the figures; memory is a process's peak."""

    cpu_us: Mapping[str, float]
    rss_mb: Mapping[str, int]
    kafka_bytes: float
    """Of one copy, both topics."""
    clickhouse_bytes: float
    """Of an event's row, its part of the log's places, and of the rolled up minutes, merged."""
    window_row_bytes: float


@dataclass(frozen=True, slots=True)
class Size:
    """What so many events a second need. Disk is of a day; Kafka's is of one copy."""

    rate: int
    processes: Mapping[str, int]
    cores: int
    partitions: int
    memory_gb: float
    kafka_gb: float
    clickhouse_gb: float


def measured(cases: Sequence[Mapping[str, Any]]) -> Measured:
    """Read the case whose disk was measured. Raises `ValueError` when there is none."""
    base = base_of(cases)
    disk, records = base["disk"], base["disk"]["records"]
    merged = disk["merged"]
    ledger = sum(table["bytes"] for name, table in merged.items() if name != "usage_windows")
    windows = merged["usage_windows"]
    return Measured(
        base["cpu_us_per_event"],
        base["peak_rss_mb"],
        sum(disk["kafka"].values()) / records,
        ledger / records,
        windows["bytes"] / windows["rows"],
    )


def base_of(cases: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the case that all others are compared with."""
    for case in cases:
        if "disk" in case:
            return case
    raise ValueError("no case in these figures has measured bytes on disk")


def size(rate: int, of: Measured) -> Size:
    """Return what so many events a second need, by the figures of one event."""
    busy = {name: rate * us / 1e6 / BUSY for name, us in of.cpu_us.items()}
    processes = {stage: math.ceil(busy[stage]) for stage in STAGES}
    wanted = max(LEAST_PARTITIONS, ROOM_TO_GROW * max(processes.values()))
    partitions = 1 << (wanted - 1).bit_length()
    seen_mb = min(rate * HORIZON_S, SEEN_CAP * partitions) * SEEN_BYTES / 1e6
    mb = sum(processes[stage] * of.rss_mb[stage] for stage in STAGES) + seen_mb
    mb += of.rss_mb["clickhouse"] + of.rss_mb["kafka"]
    day = rate * DAY_S / GB
    return Size(
        rate,
        processes,
        math.ceil(sum(busy.values())),
        partitions,
        mb / 1_000,
        day * of.kafka_bytes,
        day * of.clickhouse_bytes,
    )


def workers_us(case: Mapping[str, Any]) -> float:
    """Return the CPU of the three stages of a case, µs an event."""
    return float(sum(case["cpu_us_per_event"][stage] for stage in STAGES))


def page(figures: Mapping[str, Any], lacking: Sequence[str] = ()) -> str:
    """Return docs/sizing.md; `lacking`: the cases that the figures do not have yet."""
    cases, of = figures["cases"], measured(figures["cases"])
    machine, base = figures["machine"], base_of(cases)
    counts = [case["records"] for case in cases]
    loads = [case["load_before"] for case in cases] + [case["load_after"] for case in cases]
    return TEMPLATE.read_text(encoding="utf-8").format(
        machine=machine["text"],
        date=machine["date"],
        load=f"{min(loads):.0f} to {max(loads):.0f}",
        records=" to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)})),
        busy=round(BUSY * 100),
        room=ROOM_TO_GROW,
        sizes="\n".join(_size_row(size(rate, of)) for rate in RATES),
        kafka_bytes=round(of.kafka_bytes),
        clickhouse_bytes=round(of.clickhouse_bytes),
        written=_written(base),
        window_bytes=f"{of.window_row_bytes:.0f}",
        window_mb=f"{1_000 * WINDOW_ROWS_A_DAY * of.window_row_bytes / 1e6:.0f}",
        window_rows=f"{WINDOW_ROWS_A_DAY:,}",
        watch_us=f"{of.cpu_us['watch']:.1f}",
        watch_rate=f"{math.floor(1e6 / of.cpu_us['watch'] / 1_000):,},000",
        lacking="; ".join(lacking) or "none",
        cases="\n".join(_case_row(case, base) for case in cases),
    )


def _size_row(one: Size) -> str:
    processes = " + ".join(str(one.processes[stage]) for stage in STAGES)
    numbers = f"{one.memory_gb:.1f} GB | {one.kafka_gb:.1f} GB | {one.clickhouse_gb:.1f} GB"
    return f"| {one.rate:,} | {processes} | {one.cores} | {numbers} | {one.partitions} |"


def _case_row(case: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    cpu = case["cpu_us_per_event"]
    each = " + ".join(f"{cpu[stage]:.1f}" for stage in STAGES)
    what = " | ".join(f"{case[name]:,}" for name in SCALES)
    ratio = workers_us(case) / workers_us(base)
    rest = f"{cpu['clickhouse']:.1f} | {cpu['kafka']:.1f} | {_idle(case)}"
    rest += f" | {case['peak_rss_mb']['watch']} MB | {case['events_per_second']:,} | {case['load_after']:.0f}"
    return f"| {what} | {each} = **{workers_us(case):.1f}** | {ratio:.2f} | {rest} |"


def _idle(case: Mapping[str, Any]) -> str:
    """Say what the stages take when nothing comes, in % of a core, and what that is in µs an event of this run."""
    if case["idle_pct"] is None:
        return "not measured |"
    idle_pct = sum(case["idle_pct"][stage] for stage in STAGES)
    return f"{idle_pct:.1f} % | {idle_pct / 100 / case['events_per_second'] * 1e6:.1f}"


def _written(base: Mapping[str, Any]) -> str:
    """Say what tables took before they were merged, beside what they take afterwards."""
    disk = base["disk"]
    before = sum(table["bytes"] for name, table in disk["as_written"].items() if name != "usage_windows")
    return str(round(before / disk["records"]))
