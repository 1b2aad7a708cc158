"""`python -m tests.chaos`: attack a line of its own for some minutes and print what it survived. See `--help`."""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.campaign import Campaign
from tests.chaos.line import LineError
from tests.chaos.outcome import Outcome
from tollmeter.broker.layout import ProvisionError
from tollmeter.embedded.jars import EmbeddedError

WIDTH = 130
ADDRESSES = ("TOLLMETER_KAFKA", "TOLLMETER_CLICKHOUSE")
COLUMNS = (
    ("injected", "times"),
    ("lost", "lost"),
    ("double", "double"),
    ("physical_duplicates", "stored\ntwice"),
    ("wrong_windows", "wrong\nwindows"),
    ("wrong_rollups", "wrong\nrollups"),
    ("alerts_missing", "alerts\nmissing"),
    ("recovery_p50_s", "back in s\np50"),
    ("recovery_p95_s", "back in s\np95"),
    ("memory_max_mb", "peak\nMB"),
)
err = Console(stderr=True, highlight=False)


def main() -> int:
    """Run; 0 = nothing was wrong, 1 = something was, 2 = it could not run here."""
    chosen = _arguments()
    if named := [name for name in ADDRESSES if os.environ.get(name)]:
        err.print(f"chaos attacks a stack of its own and no other: unset {' and '.join(named)}")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="tollmeter-chaos-"))
    kept = chosen.keep
    try:
        err.print(f"seed {chosen.seed}, {chosen.minutes:g} minutes, {chosen.rate} events/s; logs in {folder / 'logs'}")
        campaign = Campaign(folder, chosen.minutes, chosen.seed, chosen.rate, _say, chosen.brokers)
        outcome = campaign.run(tuple(chosen.only))
        kept = kept or not outcome.sound
    except (EmbeddedError, ProvisionError, LineError) as error:
        err.print(f"chaos: {error} (see {folder / 'logs'})", markup=False, soft_wrap=True)
        kept = True
        return 2
    except KeyboardInterrupt:
        err.print("chaos: interrupted; everything is stopped")
        return 130
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    if chosen.json:
        sys.stdout.write(json.dumps(outcome.document()) + "\n")
    else:
        show(outcome)
    return 0 if outcome.sound else 1


def _say(line: str) -> None:
    err.print(line, markup=False, soft_wrap=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to attack [10]")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="order and choice of faults [drawn]")
    parser.add_argument("--rate", type=int, default=60, help="events per second [60]")
    parser.add_argument(
        "--brokers", type=int, choices=(1, 3), default=1, help="of the line: one, or a cluster of 3 [1]"
    )
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only faults named so")
    parser.add_argument("--keep", action="store_true", help="keep data and logs, also when nothing is wrong")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def show(outcome: Outcome) -> None:
    """Print the table."""
    document = outcome.document()
    console = Console(width=max(WIDTH, Console().width))
    table = Table(title=f"{document['faults']} faults, {document['events']:,} events, seed {outcome.seed}")
    table.add_column("fault")
    for _name, title in COLUMNS:
        table.add_column(title, justify="right")
    for fault, row in document["by_fault"].items():
        if row["injected"] or row["failed"]:
            table.add_row(fault, *("—" if row[name] is None else str(row[name]) for name, _ in COLUMNS))
    for entry in document["not_run"]:
        table.add_row(entry["fault"], f"not run: {entry['reason']}")
    console.print(table)
    producer, delay = document["producer"], document["alert_delay_s"]
    console.print(
        f"all: {document['lost']} lost, {document['double']} double, {document['wrong_windows']} wrong windows, "
        f"{document['wrong_rollups']} wrong rollups, "
        f"{document['alerts_missing']} of {document['alerts']} alerts missing, "
        f"they came after {delay['p50']} s, p95 {delay['p95']} s, at most {delay['max']} s; "
        f"{document['dead_letters_missing']} of {document['poison']} dead letters missing; "
        f"engine started again for broken files: {document['engine_mended']}; "
        f"kill -9 p95 {document['recovery_p95_s']} s; peak memory {document['memory_max_mb']} MB; "
        f"record() p99 {producer['record_p99_ms']} ms, at most {producer['record_max_ms']} ms; "
        f"{producer['given_up']} events given up by the client"
    )


if __name__ == "__main__":
    sys.exit(main())
