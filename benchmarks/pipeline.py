"""`python -m benchmarks.pipeline`: every figure of docs/performance.md, on a stack of its own that is gone afterwards.

Shared machines lie: run it on a quiet one. `--quick` shows in two minutes that all parts work; its figures mean little.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import baseline, delays, limit_run, line, plain_rates, startup
from benchmarks.measure import TooLateError
from benchmarks.preload import preload
from tollmeter.admin import setup as provision
from tollmeter.broker.layout import ProvisionError
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.stack import Stack
from tollmeter.settings import Settings

SPAN_S = 2_700
WAIT_S = 900.0
STAGES = ("price", "ledger", "watch", "clickhouse", "kafka")
GOALS = {
    "events_per_second": ("at least 30,000", "all rows in the ledger and all windows final, events/s"),
    "plain_faust_tables": ("", "the minutes of the job in plain Faust with windowed tables, events/s"),
    "plain_faust_dicts": ("", "the same job in plain Faust with dicts, events/s"),
    "plain_faust_minutes": ("", "the minutes of it alone, with dicts, events/s"),
    "ratio_tables": ("at least 40", "times the plain Faust with tables"),
    "ratio_dicts": ("at least 12", "times the plain Faust with dicts"),
    "ratio_minutes": ("", "times the plain Faust with dicts that folds minutes alone"),
    "limit": ("", "the practical limit: librdkafka, polars and two windows, no framework, nothing safe, records/s"),
    "ratio_limit": ("at least 0.6", "of that limit"),
    "limit_cpu_us": ("", "CPU of that reader, µs per record"),
    "limit_clickhouse_us": ("", "CPU of ClickHouse beside it, µs per record"),
    "row_delay_p99_s": ("at most 2", "event produced → row visible, p99, s"),
    "alert_delay_p95_s": ("at most 1", "event that crosses → alert, p95, s"),
    "ready_s": ("at most 25", "`tollmeter up` → ready, s"),
    "idle_rss_mb": ("at most 1200", "memory of all its processes when idle, MB"),
    "idle_cpu_pct": ("at most 5", "processor time of all its processes when idle, % of one"),
}
err = Console(stderr=True, highlight=False)


def main() -> int:
    chosen = arguments()
    if sys.platform != "linux":
        err.print("benchmarks: CPU and memory are read from /proc, which this system lacks; run them on Linux")
        return 2
    try:
        figures = measure(chosen)
    except (EmbeddedError, ProvisionError, TooLateError, line.WrongError) as error:
        err.print(f"benchmarks: {error}", markup=False, soft_wrap=True)
        return 2
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        show(figures)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="preloaded for the throughput [1000000]")
    parser.add_argument("--baseline-events", type=int, default=20_000, help="of the same topic, plain Faust [20000]")
    parser.add_argument("--rate", type=int, default=1_000, help="live events per second for the delays [1000]")
    parser.add_argument("--preload-events", type=int, help="loaded before the live traffic [an hour of it]")
    parser.add_argument("--live-seconds", type=int, default=60, help="of live traffic [60]")
    parser.add_argument("--policies", type=int, default=100, help="budgets crossed by the live traffic [100]")
    parser.add_argument("--quick", action="store_true", help="everything small: shows that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    if chosen.preload_events is None:
        chosen.preload_events = chosen.rate * 3_600
    if chosen.quick:
        chosen.events, chosen.baseline_events, chosen.preload_events = 60_000, 4_000, 30_000
        chosen.live_seconds, chosen.policies = 10, 20
    return chosen


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Run all parts one after the other and return the figures under their stable names."""
    err.print("1/4 tollmeter up")
    with tempfile.TemporaryDirectory(prefix="tollmeter-bench-") as folder:
        start = startup.run_startup(Path(folder))
    with fresh_stack() as stack:
        err.print(f"2/4 throughput: loading {chosen.events:,} events")
        loaded = preload(stack.settings, chosen.events, SPAN_S)
        err.print(f"    loaded {loaded.records:,} records in {loaded.seconds:.0f} s; starting the workers")
        whole = line.run_line(stack, loaded, WAIT_S)
        err.print(f"    {whole.events_per_second:,.0f} events/s; sums of source, ledger and windows agree")
        line.stop_workers(stack)
        rates = plain_rates.rates_of_today(stack.settings)
        limit = limit_run.run_limit(stack.settings, line.pids(stack)["clickhouse"], loaded, rates)
        err.print(f"    {limit.events_per_second:,.0f} records/s without a framework, on the same topic")
        err.print(f"3/4 plain Faust on the first {chosen.baseline_events:,} events")
        plain = {
            kind: baseline.run_baseline(stack.settings, kind, chosen.baseline_events, rates)
            for kind in ("tables", "minutes", "dicts")
        }
    with fresh_stack() as stack:
        err.print(f"4/4 delays at {chosen.rate:,} events/s behind {chosen.preload_events:,} loaded events")
        late = delays.run_delays(
            stack, chosen.rate, chosen.preload_events, chosen.live_seconds, chosen.policies, WAIT_S
        )
        err.print(f"    {len(late.rows):,} rows and {len(late.alerts)} alerts seen")
    return {
        "events": whole.events,
        "events_per_second": round(whole.events_per_second),
        "plain_faust_tables": round(plain["tables"].events_per_second),
        "plain_faust_dicts": round(plain["dicts"].events_per_second),
        "plain_faust_minutes": round(plain["minutes"].events_per_second),
        "ratio_tables": round(whole.events_per_second / plain["tables"].events_per_second, 1),
        "ratio_dicts": round(whole.events_per_second / plain["dicts"].events_per_second, 1),
        "ratio_minutes": round(whole.events_per_second / plain["minutes"].events_per_second, 1),
        "limit": round(limit.events_per_second),
        "ratio_limit": round(whole.events_per_second / limit.events_per_second, 2),
        "limit_cpu_us": round(limit.cpu_us_per_event, 1),
        "limit_clickhouse_us": round(limit.clickhouse_us_per_event, 1),
        "cpu_us_per_event": {stage: whole.cpu_us_per_event[stage] for stage in STAGES},
        "row_delay_p99_s": round(late.row_p99_s, 3),
        "alert_delay_p95_s": None if late.alert_p95_s is None else round(late.alert_p95_s, 3),
        "idle_rss_mb": round(start.idle_rss_mb),
        "idle_cpu_pct": start.idle_cpu_total_pct,
        "idle_cpu_pct_by_process": start.idle_cpu_pct,
        "ready_s": round(start.ready_s, 1),
    }


@contextmanager
def fresh_stack() -> Iterator[Stack]:
    """Start broker and engine in an empty folder on free ports, set up, without workers."""
    wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0", fx_max_age_days=100_000)
    with (
        tempfile.TemporaryDirectory(prefix="tollmeter-bench-") as folder,
        Stack(Path(folder), workers=(), settings=wanted) as stack,
    ):
        provision.apply(stack.settings)
        yield stack


def show(figures: dict[str, Any]) -> None:
    """Print the figures beside their goals."""
    table = Table(title=f"{figures['events']:,} events", title_justify="left")
    for name in ("what", "measured", "goal"):
        table.add_column(name, justify="right" if name == "measured" else "left")
    for name, (goal, what) in GOALS.items():
        value = figures[name]
        table.add_row(what, "—" if value is None else f"{value:,}", goal)
    cpu = figures["cpu_us_per_event"]
    for stage in STAGES:
        table.add_row(f"CPU of {stage}, µs per event", f"{cpu[stage]:.1f}", "")
    workers = sum(cpu[stage] for stage in STAGES[:3])
    table.add_row("CPU of PRICE, LEDGER and WATCH, µs per event", f"{workers:.1f}", "at most 32")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
