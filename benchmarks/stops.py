"""`python -m benchmarks.stops`: SIGTERM under steady traffic, again and again, on a stack of its own.

Shown: how long each stage takes to stop, and what was delivered twice because of it: nothing should be.
"""

import argparse
import json
import sys
import time
from typing import Any

from rich.console import Console

from benchmarks.measure import TooLateError, wait_for
from benchmarks.outage import Traffic, windows_equal
from benchmarks.pipeline import fresh_stack
from tollmeter.broker.layout import ProvisionError
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.stack import STAGES, Stack
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

SEED = 23
STORED = "SELECT count() AS n FROM usage_events FINAL"
AGAIN = """
SELECT count() - uniqExact(priced_partition, priced_offset, source_partition) AS n
FROM ledger_coverage
"""
REPLAYED = """
SELECT sum(JSONExtractInt(state, 'counters', 'replays')) AS n FROM watch_progress FINAL
"""
err = Console(stderr=True, highlight=False)


def run_stops(stack: Stack, times: int, rate: int, timeout_s: float) -> dict[str, Any]:
    """Stop and start every stage so many times; return the figures. Raises `TooLateError`."""
    clickhouse = connect(stack.settings)
    _start(stack)
    clickhouse.command("SYSTEM STOP MERGES ledger_coverage")  # a merge would remove what was delivered twice
    already = _one(clickhouse, STORED)
    traffic = Traffic(stack.settings, rate, timeout_s + 60 * times, SEED)
    traffic.start()
    took: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for number in range(times):
        before = _one(clickhouse, STORED)
        wait_for("new rows", lambda: _one(clickhouse, STORED) > before + rate, timeout_s)  # noqa: B023
        for stage in STAGES:
            began = time.monotonic()
            stack.stop(stage)
            took[stage].append(time.monotonic() - began)
        _start(stack)
        err.print(f"{number + 1} of {times}: " + ", ".join(f"{stage} {took[stage][-1]:.1f} s" for stage in STAGES))
    traffic.stop()
    wait_for("every event in the ledger", lambda: _one(clickhouse, STORED) == already + traffic.sent, timeout_s)
    equal = windows_equal(clickhouse, timeout_s)
    figures = {
        "times": times,
        "sent": traffic.sent,
        "windows_equal_ledger": equal,
        "priced_records_stored_twice": _one(clickhouse, AGAIN),
        "source_rows_priced_twice": _one(clickhouse, REPLAYED),
        "longest_stop_s": {stage: round(max(seconds), 1) for stage, seconds in took.items()},
    }
    clickhouse.close()
    return figures


def _start(stack: Stack) -> None:
    running = stack.processes()
    for stage in STAGES:
        if stage not in running:
            stack.start_worker(stage)
    wait_for("the workers", lambda: all(stack.worker_ready(stage) for stage in STAGES), 120)


def _one(clickhouse: ClickHouse, sql: str) -> int:
    return int(clickhouse.query(sql)[0]["n"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stops", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="stops of each stage [20]")
    parser.add_argument("--rate", type=int, default=500, help="events per second all the time [500]")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for catching up [300]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    try:
        with fresh_stack() as stack:
            figures = run_stops(stack, chosen.times, chosen.rate, chosen.timeout)
    except (EmbeddedError, ProvisionError, TooLateError) as error:
        err.print(f"benchmarks: {error}", markup=False, soft_wrap=True)
        return 2
    sys.stdout.write(json.dumps(figures, indent=None if chosen.json else 2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
