"""One case of `benchmarks.scale`: workers a stage, partitions, keys and organisations, on a stack of its own."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.line import check, pids, wait_settled
from benchmarks.measure import CpuMark, wait_for
from benchmarks.preload import Loaded
from benchmarks.scale_traffic import drawn
from tollmeter.admin import setup as provision
from tollmeter.embedded.stack import STAGES, Stack
from tollmeter.producers.imports.publish import publish
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.traffic.stream import Wire

SPAN_S = 2_700
READY_S = 300.0
IDLE_S = 8.0
STANDSTILL_S = 90.0
"""Workers of PRICE stand still while the topic is filled: their group must wait for so long."""
ROLLED_UP = "SELECT sum(calls) AS n FROM usage_minutes FINAL"
IDLE = (*STAGES, "kafka")
TABLES = ("usage_events", "usage_minutes", "usage_windows", "ledger_coverage")
PARTS = """
SELECT table, sum(bytes_on_disk) AS bytes, sum(rows) AS rows FROM system.parts
WHERE active AND database = currentDatabase() GROUP BY table
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What is varied. Keys and organisations are totals."""

    partitions: int = 4
    workers: int = 1
    keys: int = 1_000
    orgs: int = 8
    disk: bool = False
    """Whether bytes on disk are measured as well, with everything rolled up and merged: a minute more."""


def run_case(case: Case, events: int, timeout_s: float) -> dict[str, Any]:
    """Run it; return its figures under stable names. Raises `TooLateError`, `WrongError` when sums differ.

    CPU is that of all processes of a stage together, in µs an event, from the first event that PRICE could read until
    ledger, windows and checkpoints hold everything. What the same processes take when nothing comes is measured behind
    it, and is part of that: the slower the machine, the more seconds of it each event carries.
    """
    load_before = os.getloadavg()[0]
    with _stack(case) as stack:
        clickhouse = connect(stack.settings)
        wire, blocks = drawn(events, SPAN_S, case.orgs, case.keys)
        _start(stack, case.workers)
        with _standing_still(stack, case.workers):
            loaded = _fill(stack.settings, wire, blocks)
            before = CpuMark.now(pids(stack) | _more(stack, case.workers))
        wait_settled(clickhouse, loaded, timeout_s)
        after = CpuMark.now(pids(stack) | _more(stack, case.workers))
        check(clickhouse, loaded)
        time.sleep(IDLE_S)
        idle = CpuMark.now(pids(stack) | _more(stack, case.workers))
        busy = by_stage(before.per_event_us(after, loaded.records))
        idle_pct = by_stage({name: 100 * share for name, share in after.shares(idle).items()})
        seconds = after.at - before.at
        figures = {
            "partitions": case.partitions,
            "workers": case.workers,
            "keys": case.keys,
            "orgs": case.orgs,
            "records": loaded.records,
            "events_per_second": round(loaded.records / seconds),
            "cpu_us_per_event": {name: round(us, 2) for name, us in busy.items()},
            "idle_pct": {name: round(idle_pct[name], 2) for name in IDLE},
            "peak_rss_mb": {name: _peak_mb(pid) for name, pid in pids(stack).items()},
            "load_before": round(load_before, 1),
            "load_after": round(os.getloadavg()[0], 1),
        }
        if case.disk:
            figures["disk"] = _disk(stack, clickhouse, loaded, timeout_s)
        clickhouse.close()
    return figures


def by_stage(cpu: Mapping[str, float]) -> dict[str, float]:
    """Return the sums over the processes of a stage: `price` and `price-2` are both PRICE."""
    sums: dict[str, float] = {}
    for name, us in cpu.items():
        stage = name.partition("-")[0]
        sums[stage] = sums.get(stage, 0.0) + us
    return sums


@contextmanager
def _stack(case: Case) -> Iterator[Stack]:
    wanted = Settings(
        kafka="127.0.0.1:0",
        clickhouse="http://127.0.0.1:0",
        fx_max_age_days=100_000,
        session_timeout_s=STANDSTILL_S,
        partitions_events=case.partitions,
        partitions_priced=case.partitions,
    )
    with (
        tempfile.TemporaryDirectory(prefix="tollmeter-scale-") as folder,
        Stack(Path(folder), workers=(), settings=wanted) as stack,
    ):
        provision.apply(stack.settings)
        yield stack


def _names(workers: int) -> list[tuple[str, str]]:
    """Return (stage, name) of every worker; the first one of a stage is called as the stage is."""
    return [(stage, stage if n == 1 else f"{stage}-{n}") for stage in STAGES for n in range(1, workers + 1)]


def _start(stack: Stack, workers: int) -> None:
    for stage, name in _names(workers):
        stack.start_worker(stage, name)
    for _stage, name in _names(workers):
        wait_for(f"{name} being ready", partial(stack.worker_ready, name), READY_S)


def _more(stack: Stack, workers: int) -> dict[str, int]:
    running = stack.processes()
    return {name: running[name].process.pid for stage, name in _names(workers) if name != stage}


@contextmanager
def _standing_still(stack: Stack, workers: int) -> Iterator[None]:
    """Stop the processes of PRICE meanwhile, so that all of the topic is a backlog."""
    names = [name for stage, name in _names(workers) if stage == "price"]
    for name in names:
        stack.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            stack.kill(name, signal.SIGCONT)


def _fill(settings: Settings, wire: Wire, blocks: list[list[bytes]]) -> Loaded:
    started = time.monotonic()
    sent = asyncio.run(publish(settings, blocks))
    tokens_in = tokens_out = 0
    for calls in wire.traffic.blocks():
        tokens_in += int(calls.input.sum())
        tokens_out += int(calls.output.sum())
    return Loaded(sent, wire.sent_events, tokens_in, tokens_out, time.monotonic() - started)


def _peak_mb(pid: int) -> int:
    """Return the most memory that a process has held; pages that it shares with others count in full."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM:"))


def _disk(stack: Stack, clickhouse: ClickHouse, loaded: Loaded, timeout_s: float) -> dict[str, Any]:
    """Return bytes and rows on disk: of topics as Kafka keeps them, of tables rolled up, as they are and merged."""
    wait_for("the minutes", lambda: int(clickhouse.query(ROLLED_UP)[0]["n"]) >= loaded.events, timeout_s, pause=1.0)
    settings, log = stack.settings, stack.data_dir / "kafka" / "log"
    kafka = {
        topic: sum(_blocks(folder) for folder in log.glob(f"{settings.topic(topic)}-[0-9]*"))
        for topic in (topics.EVENTS, topics.PRICED)
    }
    as_written = _parts(clickhouse)
    for table in TABLES:
        clickhouse.command(f"OPTIMIZE TABLE {table} FINAL")
    return {"records": loaded.records, "kafka": kafka, "as_written": as_written, "merged": _parts(clickhouse)}


def _blocks(folder: Path) -> int:
    """Return the bytes that the files of a folder take on the disk: holes of indexes take none."""
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir() if file.is_file())


def _parts(clickhouse: ClickHouse) -> dict[str, dict[str, int]]:
    return {
        row["table"]: {"bytes": int(row["bytes"]), "rows": int(row["rows"])}
        for row in clickhouse.query(PARTS)
        if row["table"] in TABLES
    }
