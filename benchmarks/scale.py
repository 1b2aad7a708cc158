"""`python -m benchmarks.scale`: what an event costs with more workers, partitions, keys and organisations.

Every case is a stack of its own. `--docs` writes docs/sizing.md from the figures, which are kept beside this file.
"""

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import sizing
from benchmarks.line import WrongError
from benchmarks.measure import TooLateError
from benchmarks.scale_run import Case, run_case
from tollmeter.broker.layout import ProvisionError
from tollmeter.embedded.jars import EmbeddedError

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "benchmarks" / "figures" / "scale.json"
PAGE = ROOT / "docs" / "sizing.md"
WAIT_S = 900.0
CASES = (
    Case(disk=True),
    Case(workers=2),
    Case(workers=4),
    Case(partitions=16),
    Case(partitions=16, workers=4),
    Case(partitions=64),
    Case(partitions=64, workers=2),
    Case(partitions=64, workers=4),
    Case(keys=10),
    Case(keys=1_000_000),
    Case(orgs=1_000, keys=10_000),
    Case(orgs=10_000, keys=100_000),
)
err = Console(stderr=True, highlight=False)


def main() -> int:
    chosen = arguments()
    if chosen.again:
        figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    else:
        if sys.platform != "linux":
            err.print("benchmarks: CPU and memory are read from /proc, which this system lacks; run them on Linux")
            return 2
        try:
            kept = (
                json.loads(FIGURES.read_text(encoding="utf-8")) if chosen.go_on else {"machine": machine(), "cases": []}
            )
            figures = measure(chosen.events, kept, FIGURES if chosen.docs else None)
        except (EmbeddedError, ProvisionError, TooLateError, WrongError) as error:
            err.print(f"benchmarks: {error}", markup=False, soft_wrap=True)
            return 2
    if chosen.docs or chosen.again:
        PAGE.write_text(page(figures), encoding="utf-8")
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        show(figures)
    return 0


def page(figures: dict[str, Any]) -> str:
    """Return docs/sizing.md for figures, which may lack cases."""
    known = [tuple(case[name] for name in sizing.SCALES) for case in figures["cases"]]
    wanted = [tuple(getattr(case, name) for name in sizing.SCALES) for case in CASES]
    lacking = [dict(zip(sizing.SCALES, key, strict=True)) for key in wanted if key not in known]
    return sizing.page(figures, [", ".join(f"{count:,} {name}" for name, count in one.items()) for one in lacking])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--events", type=int, default=150_000, help="in each case [150000]")
    parser.add_argument("--docs", action="store_true", help="keep the figures and write docs/sizing.md from them")
    parser.add_argument("--go-on", action="store_true", help="measure only the cases that the figures kept lack")
    parser.add_argument(
        "--again", action="store_true", help="write docs/sizing.md from the figures kept, measure nothing"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def measure(events: int, figures: dict[str, Any], file: Path | None) -> dict[str, Any]:
    """Run the cases that are not in the figures; keep them in a file, one by one."""
    known = {tuple(case[name] for name in sizing.SCALES): case for case in figures["cases"]}
    for number, case in enumerate(CASES, 1):
        key = tuple(getattr(case, name) for name in sizing.SCALES)
        if key not in known:
            err.print(f"{number}/{len(CASES)} {case}", markup=False)
            known[key] = run_case(case, events, WAIT_S)
            err.print(
                f"    {sizing.workers_us(known[key]):.1f} µs an event, {known[key]['events_per_second']:,} events/s"
            )
        figures["cases"] = list(known.values())
        if file:
            file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def machine() -> dict[str, str]:
    """Say what this is measured on."""
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else platform.machine()
    text = f"{os.cpu_count()} cores ({model}), {memory_gb:.0f} GB, CPython {platform.python_version()}"
    return {"text": text, "date": datetime.now(UTC).strftime("%Y-%m-%d")}


def show(figures: dict[str, Any]) -> None:
    """Print a line a case."""
    table = Table(title="CPU, µs an event", title_justify="left")
    names = (*sizing.SCALES, *sizing.STAGES, "clickhouse", "kafka", "events/s", "load")
    for name in names:
        table.add_column(name, justify="right")
    for case in figures["cases"]:
        cpu = case["cpu_us_per_event"]
        table.add_row(
            *(f"{case[name]:,}" for name in sizing.SCALES),
            *(f"{cpu[name]:.1f}" for name in (*sizing.STAGES, "clickhouse", "kafka")),
            f"{case['events_per_second']:,}",
            f"{case['load_after']:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
