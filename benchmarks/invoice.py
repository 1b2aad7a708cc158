"""`python -m benchmarks.invoice`: a month of calls against its bill, and prices put right while the line runs.

The month is made of calls that were priced as PRICE does, multiplied in the engine; its bill is made of the same sums.
Then: how long `reconcile` takes; how fast `reprice` goes until the ledger has it all; and what the line stores a second
alone and while `reprice` runs at the rate that it promises, on the same topic. The line knows what time it is before,
so that the month is over for it, and whatever it still has to fold or to repair is done before it is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.line import BEHIND, ROWS, pids, stop_workers
from benchmarks.measure import CpuMark, TooLateError, wait_for
from benchmarks.pipeline import fresh_stack
from benchmarks.preload import ORGS, SEED, preload
from tollmeter.embedded.environment import settings_environment
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.stack import Stack
from tollmeter.schemas.record import Record
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS, PricedBlock, read, to_insert
from tollmeter.streams.rules.records.encode import blocks, encode_dicts
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire

MONTH, DAYS = date(2026, 11, 1), 28
SEEDS = 20_000
"""Calls that are priced one by one; the engine makes the others of them, a microsecond apart."""
AT_ONCE = 25
RATE = 15_000
ASKED = 16_000
WARM = 20_000
"""Calls of the last hour: the line's clocks stand behind them."""
GOALS = {
    "reconcile_s": ("at most 20", "reconcile the month with its bill, s"),
    "reconcile_matched": ("", "of the bill matched, %"),
    "dry_run_rows_per_s": ("", "reprice --dry-run, rows/s"),
    "reprice_rows_per_s": (f"at least {RATE:,}", "reprice, until the ledger has every correction, rows/s"),
    "line_alone": ("", "the line alone, events/s"),
    "line_beside": ("", f"the line beside reprice --rate {ASKED}, events/s"),
    "line_share": ("at least 0.7", "of its throughput"),
    "beside_rows_per_s": (f"at least {RATE:,}", "reprice meanwhile, rows/s"),
}
DEARER = """version: 1
factors:
  - {name: dearer, provider: openai, factor: "%s", source: benchmark}
"""
err = Console(stderr=True, highlight=False)


class _Wired:
    """A record as PRICE gets it."""

    partition, timestamp, key, headers = 0, 1_795_341_700_123, None, ()

    def __init__(self, offset: int, value: bytes) -> None:
        self.offset, self.value = offset, value


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.invoice", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000, help="of the month [10000000]")
    parser.add_argument("--reprice", type=int, default=600_000, help="of them that are priced again [600000]")
    parser.add_argument("--events", type=int, default=400_000, help="on the topic for the line, each time [400000]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    try:
        with fresh_stack() as stack, tempfile.TemporaryDirectory() as folder:
            figures = measure(stack, Path(folder), chosen)
    except (EmbeddedError, TooLateError) as error:
        err.print(f"benchmarks: {error}", markup=False, soft_wrap=True)
        return 2
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return 0
    table = Table(title=f"{chosen.calls:,} calls; load {os.getloadavg()[0]:.0f}", title_justify="left")
    for name in ("what", "measured", "goal"):
        table.add_column(name, justify="right" if name == "measured" else "left")
    for name, (goal, what) in GOALS.items():
        table.add_row(what, f"{figures[name]:,}", goal)
    Console().print(table)
    return 0


def measure(stack: Stack, folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
    client = connect(stack.settings)
    fill(client, chosen.calls)
    err.print(f"{chosen.calls:,} calls are in the ledger, load {os.getloadavg()[0]:.0f}")
    figures = reconcile(stack, client, folder)
    err.print(f"{figures}")
    figures |= repricing(stack, client, folder, chosen)
    client.close()
    return figures


# -- the month ---------------------------------------------------------------------------------------------------------


def fill(client: ClickHouse, calls: int) -> None:
    """Put so many calls of one provider into the ledger, each with a row of its own."""
    start_us = int(datetime(MONTH.year, MONTH.month, MONTH.day, tzinfo=UTC).timestamp()) * 1_000_000
    wire = Wire(company(SEED, ORGS), 3 * SEEDS, start_us, DAYS * 86_400 * 1_000_000, duplicates=0.0)
    records: list[Record] = [_Wired(at, value) for at, value in enumerate(_values(wire))]  # type: ignore[misc]
    rows = price_batch([records], load(Settings(fx_max_age_days=100_000))).rows
    seeds = rows.filter(pl.col("provider_id").cast(pl.String) == "openai", pl.col("cost_nano").is_not_null())[:SEEDS]
    for number, (value, _) in enumerate(blocks(encode_dicts(seeds), [], "b", "b")):
        client.insert_arrow("usage_events", to_insert(read(PricedBlock(0, number, value))), LEDGER_COLUMNS)
    (held,) = client.query("SELECT count() AS n FROM usage_events FINAL")
    copies = -(-calls // held["n"])
    columns = client.query(
        "SELECT name FROM system.columns WHERE table = 'usage_events'"
        " AND database = currentDatabase() AND name NOT IN ('version', 'inserted_at') ORDER BY position"
    )
    names = ", ".join(row["name"] for row in columns)
    client.command("CREATE TABLE seeds ENGINE = MergeTree ORDER BY event_id AS SELECT * FROM usage_events FINAL")
    for begin in range(1, copies, AT_ONCE):
        client.command(
            f"INSERT INTO usage_events ({names}) SELECT s.* EXCEPT (version, inserted_at) REPLACE ("
            "reinterpretAsUUID(reverse(MD5(concat(toString(s.event_id), toString(n.number))))) AS event_id,"
            " s.event_time + toIntervalMicrosecond(n.number) AS event_time,"
            " s.priced_offset + n.number * 1000000 AS priced_offset)"
            f" FROM seeds AS s CROSS JOIN (SELECT number FROM numbers({begin}, {min(AT_ONCE, copies - begin)})) AS n"
        )
    client.command("DROP TABLE seeds")


def _values(wire: Wire) -> list[bytes]:
    return [value for _, values in wire.blocks() for value in values]


# -- its bill ----------------------------------------------------------------------------------------------------------


SUMS = """
SELECT toDate(event_time) AS day, toString(api_key_id) AS key, toString(model_id) AS model, count() AS calls,
    sum(input_tokens) AS input, sum(cache_read_tokens) AS cached, sum(output_tokens) AS output
FROM usage_events FINAL WHERE billing_scope != 'USER' AND status NOT IN ('VOID', 'BLOCKED') GROUP BY day, key, model
"""


def bill(client: ClickHouse) -> dict[str, Any]:
    """Return what OpenAI's usage report would say of the month."""
    days: dict[date, list[dict[str, Any]]] = defaultdict(list)
    for row in client.query(SUMS):
        days[row["day"]].append(
            {
                "object": "organization.usage.completions.result",
                "input_tokens": row["input"],
                "input_cached_tokens": row["cached"],
                "output_tokens": row["output"],
                "num_model_requests": row["calls"],
                "api_key_id": row["key"],
                "model": row["model"],
            }
        )

    def bucket(day: date) -> dict[str, Any]:
        start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        return {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": days[day]}

    every = [MONTH + timedelta(days=number) for number in range(DAYS)]
    return {"object": "page", "data": [bucket(day) for day in every], "has_more": False, "next_page": None}


def reconcile(stack: Stack, client: ClickHouse, folder: Path) -> dict[str, float]:
    file = folder / "usage.json"
    file.write_text(json.dumps(bill(client)), encoding="utf-8")
    command(stack, "bills", "import", str(file), "--account", "a")
    began = time.monotonic()
    found = command(stack, "reconcile", "--provider", "openai", "--month", f"{MONTH:%Y-%m}")
    seconds = time.monotonic() - began
    share = 100 * found["matched_nano"] / max(1, found["billed_nano"])
    return {"reconcile_s": round(seconds, 1), "reconcile_matched": round(share, 2)}


def command(stack: Stack, *words: str) -> Any:
    """Run a command of the stack; return its document. Raises `TooLateError` when it fails."""
    environment = {**os.environ, **settings_environment(stack.settings)}
    run = [sys.executable, "-m", "tollmeter", *words, "--json"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise TooLateError(f"{' '.join(words)}: {done.stderr.strip()[-600:]}")
    return json.loads(done.stdout)


# -- prices put right --------------------------------------------------------------------------------------------------


def repricing(stack: Stack, client: ClickHouse, folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
    since, until = span(client, chosen.reprice)
    words = ["reprice", "--from", since, "--until", until]
    rest = ["reprice", "--from", until, "--until", f"{MONTH + timedelta(days=DAYS)}T00:00:00Z", "--rate", str(ASKED)]

    def again(factor: str, *more: str) -> tuple[float, Any]:
        (folder / "own.yaml").write_text(DEARER % factor, encoding="utf-8")
        began = time.monotonic()
        found = command(stack, *words, "--overrides", str(folder / "own.yaml"), *more)
        return time.monotonic() - began, found

    warm = preload(stack.settings, WARM, 2_700)
    start(stack)
    wait_for("every warm row", lambda: int(client.query(ROWS)[0]["n"]) >= warm.records, 180)
    settle(client)
    seconds, found = again("1.1", "--dry-run")
    figures = {"dry_run_rows_per_s": round(found["calls"] / seconds)}
    seconds, found = again("1.1", "--rate", "1000000", "--wait", "600s")
    figures["reprice_rows_per_s"] = round(found["changed"] / seconds)
    began = time.monotonic()
    settle(client)
    err.print(f"{figures}, stored: {found['stored']}, repaired {time.monotonic() - began:.0f} s later")
    stop_workers(stack)
    alone, _ = line(stack, client, chosen.events, until, dict)
    beside: list[subprocess.Popen[str]] = []

    def begin() -> dict[str, int]:
        (folder / "own.yaml").write_text(DEARER % "1.2", encoding="utf-8")
        environment = {**os.environ, **settings_environment(stack.settings)}
        run = [sys.executable, "-m", "tollmeter", *rest, "--overrides", str(folder / "own.yaml"), "--json"]
        beside.append(subprocess.Popen(run, env=environment, stdout=subprocess.DEVNULL, text=True))
        wait_for("the first corrections", lambda: corrected(client, until) > 0, 120)
        return {"reprice": beside[0].pid}

    with_it, rows_per_s = line(stack, client, chosen.events, until, begin)
    figures |= {"line_alone": round(alone), "line_beside": round(with_it), "beside_rows_per_s": round(rows_per_s)}
    figures["line_share"] = round(with_it / alone, 2)
    for process in beside:
        process.terminate()
        process.wait()
    return figures


def corrected(client: ClickHouse, since: str) -> int:
    """Return how many rows from a time on were corrected."""
    sql = "SELECT sum(toUInt64(revision > 0)) AS n FROM usage_events WHERE event_time >= parseDateTimeBestEffort"
    return int(client.query(sql + "({since:String}, 'UTC')", {"since": since})[0]["n"])


def settle(client: ClickHouse) -> None:
    """Return when WATCH has folded everything, and has no hour left to repair."""

    def done() -> bool:
        states = client.query("SELECT state FROM watch_progress FINAL")
        return client.query(BEHIND)[0]["n"] == 0 and not any(json.loads(one["state"])["deferred"] for one in states)

    wait_for("the last repair", done, 900, pause=0.5)


def span(client: ClickHouse, calls: int) -> tuple[str, str]:
    """Return the first time and one up to which there are about so many calls."""
    (row,) = client.query(
        "SELECT toString(min(m)) AS first, toString(max(m) + INTERVAL 1 MINUTE) AS last FROM"
        " (SELECT toStartOfMinute(event_time) AS m, sum(count()) OVER (ORDER BY m) AS n FROM usage_events GROUP BY m"
        f" ORDER BY m) WHERE n <= {calls}"
    )
    return row["first"].replace(" ", "T") + "Z", row["last"].replace(" ", "T") + "Z"


def start(stack: Stack) -> None:
    for stage in ("ledger", "watch", "price"):
        stack.start_worker(stage)
        wait_for(f"{stage} being ready", partial(stack.worker_ready, stage), 180, pause=0.005)


def line(
    stack: Stack, client: ClickHouse, events: int, since: str, begin: Callable[[], dict[str, int]]
) -> tuple[float, float]:
    """Return events a second that the line stores of a full topic, and corrections; `begin`: what runs beside it."""
    before = int(client.query(ROWS)[0]["n"])
    loaded = preload(stack.settings, events, 2_700)
    for stage in ("ledger", "watch"):
        stack.start_worker(stage)
        wait_for(f"{stage} being ready", partial(stack.worker_ready, stage), 180, pause=0.005)
    others = begin()
    stack.start_worker("price")
    wait_for("the first rows", lambda: int(client.query(ROWS)[0]["n"]) > before, 180, pause=0.01)
    first, rows = int(client.query(ROWS)[0]["n"]), corrected(client, since)
    mark = CpuMark.now(pids(stack) | others)
    wait_for("every row", lambda: int(client.query(ROWS)[0]["n"]) >= before + loaded.records, 900, pause=0.1)
    after = CpuMark.now(pids(stack) | others)
    seconds, beside = after.at - mark.at, corrected(client, since) - rows
    err.print(f"{loaded.records:,} events, {beside:,} corrections; {seconds:.1f} s, load {os.getloadavg()[0]:.0f}")
    spent = {name: round(after.seconds[name] - mark.seconds[name], 1) for name in mark.seconds}
    err.print(f"seconds of CPU: {spent}")
    stop_workers(stack)
    return (before + loaded.records - first) / seconds, beside / seconds


if __name__ == "__main__":
    sys.exit(main())
