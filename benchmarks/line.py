"""The line on a preloaded topic: events per second until everything is final, and CPU per event of each process."""

import time
from dataclasses import dataclass
from functools import partial

from benchmarks.measure import CpuMark, wait_for
from benchmarks.preload import Loaded
from tollmeter.embedded.stack import BROKER, FRONT, STAGES, Stack
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

ROWS = "SELECT sum(rows) AS n FROM ledger_coverage FINAL"
BEHIND = """
SELECT count() AS n
FROM (SELECT priced_partition, max(priced_offset) AS last FROM ledger_coverage GROUP BY priced_partition) AS log
LEFT JOIN (SELECT priced_partition, max(applied) AS applied FROM watch_progress GROUP BY priced_partition) AS progress
USING (priced_partition)
WHERE progress.applied < toInt64(log.last)
"""
CLOSED = "SELECT sum(calls) AS n FROM usage_windows FINAL WHERE level = 'minute' AND scope = 'org'"
FIRST_PASS = """
SELECT sum(records) AS n FROM (
    SELECT source_partition, argMin(records, first_offset) AS records FROM ledger_coverage GROUP BY source_partition
)
"""
LEDGER_SUMS = """
SELECT count() AS calls, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
       toInt64(sum(ifNull(cost_nano, 0))) AS cost_nano
FROM usage_events FINAL
"""
WINDOW_SUMS = """
SELECT sum(calls) AS calls, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
       sum(cost_nano + byok_cost_nano) AS cost_nano
FROM usage_windows FINAL WHERE level = {level:String} AND scope = 'org'
"""


class WrongError(Exception):
    """A figure that cannot be reported: the sums behind it do not agree."""


@dataclass(frozen=True, slots=True)
class LineResult:
    events: int
    timed: int
    seconds: float
    cpu_us_per_event: dict[str, float]
    cost_nano: int

    @property
    def events_per_second(self) -> float:
        return self.timed / self.seconds


def run_line(stack: Stack, loaded: Loaded, timeout_s: float) -> LineResult:
    """Start the workers on the preloaded topic and time them; LEDGER and WATCH stand ready before PRICE reads.

    Raises `TooLateError`, or `WrongError` when ledger, windows and source differ.
    """
    clickhouse = connect(stack.settings)
    for stage in ("ledger", "watch", "price"):
        stack.start_worker(stage)
        wait_for(f"{stage} being ready", partial(stack.worker_ready, stage), 90, pause=0.005)
    before = CpuMark.now(pids(stack))  # PRICE says that it is ready when its first batch is done
    wait_settled(clickhouse, loaded, timeout_s)
    after = CpuMark.now(pids(stack))
    cost = check(clickhouse, loaded)
    timed = loaded.records - _first_pass(clickhouse, loaded)
    clickhouse.close()
    return LineResult(loaded.records, timed, after.at - before.at, before.per_event_us(after, timed), cost)


def wait_settled(clickhouse: ClickHouse, loaded: Loaded, timeout_s: float) -> None:
    """Return when every row is in the ledger, WATCH's checkpoint covers it, and every minute is closed and written.

    Raises `TooLateError`.
    """
    most = loaded.records * 9 // 10  # seldom until then: what is asked here counts as the engine's work
    wait_for("most rows in the ledger", lambda: _one(clickhouse, ROWS) >= most, timeout_s, pause=1.0)
    wait_for("every row in the ledger", lambda: _one(clickhouse, ROWS) >= loaded.records, timeout_s, pause=0.2)
    wait_for("WATCH's checkpoint", lambda: _one(clickhouse, BEHIND) == 0, timeout_s)
    wait_for("every closed minute", lambda: _one(clickhouse, CLOSED) >= loaded.events, timeout_s)


def _first_pass(clickhouse: ClickHouse, loaded: Loaded) -> int:
    """Return the records that PRICE had read before the clock started; they count for nothing."""
    first = _one(clickhouse, FIRST_PASS)
    return first if first < loaded.records / 2 else 0  # a toy run that is over in one batch measures nothing anyway


def check(clickhouse: ClickHouse, loaded: Loaded) -> int:
    """Compare source, ledger and windows; return the cost in nano-USD. Raises `WrongError`."""
    (ledger,) = clickhouse.query(LEDGER_SUMS)
    source = {"calls": loaded.events, "input_tokens": loaded.input_tokens, "output_tokens": loaded.output_tokens}
    if {name: ledger[name] for name in source} != source:
        raise WrongError(f"the ledger holds {ledger}, the source {source}")
    for level in ("minute", "hour", "day", "month"):
        (windows,) = clickhouse.query(WINDOW_SUMS, {"level": level})
        if windows != ledger:
            raise WrongError(f"windows ({level}) hold {windows}, the ledger {ledger}")
    cost: int = ledger["cost_nano"]
    return cost


def pids(stack: Stack) -> dict[str, int]:
    """Return the processes by the names of the report."""
    names = {FRONT: "clickhouse", BROKER: "kafka"}
    running = stack.processes()
    return {names.get(name, name): running[name].process.pid for name in (*STAGES, FRONT, BROKER) if name in running}


def stop_workers(stack: Stack) -> None:
    """Stop the three stages, so that what is measured next has the machine to itself."""
    for stage in STAGES:
        stack.stop(stage)
    time.sleep(1)  # the broker notices, the engine ends its merges of the moment


def _one(clickhouse: ClickHouse, sql: str) -> int:
    (row,) = clickhouse.query(sql)
    return int(row["n"])
