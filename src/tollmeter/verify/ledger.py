"""What ClickHouse says: the ledger's rows, coverage of the source log, live windows and rollup against the ledger."""

import io
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from tollmeter.sinks.clickhouse import ClickHouse
from tollmeter.sinks.queries import load, moment
from tollmeter.verify.count import Difference

LEDGER_SCHEMA = pl.Schema({
    "event_id": pl.String(), "event_time": pl.Datetime("us", "UTC"), "org_id": pl.String(),
    "src_partition": pl.UInt16(),
    "src_offset": pl.Int64(), "cost_nano": pl.Int64(),
})  # fmt: skip
EDGE_S = 5
"""Rows this close to the horizon may count as late or not: WATCH's clock also moves by ticks."""
WINDOWS_BACK_H = 24


def rows_of(client: ClickHouse, partition: int, end: int) -> pl.DataFrame:
    """Return the ledger rows that came from offsets below `end` of one partition of usage.priced."""
    data = client.arrow(load("verify_rows"), {"partition": partition, "end": end})
    return pl.read_ipc_stream(io.BytesIO(data)).with_columns(pl.col("org_id").cast(pl.String())).cast(LEDGER_SCHEMA)


def by_id(client: ClickHouse, ids: list[str]) -> pl.DataFrame:
    """Return the ledger rows of some ids."""
    data = client.arrow(load("verify_by_id"), {"ids": ids})
    return pl.read_ipc_stream(io.BytesIO(data)).with_columns(pl.col("org_id").cast(pl.String())).cast(LEDGER_SCHEMA)


def coverage_gaps(client: ClickHouse, begin: Mapping[int, int], end: Mapping[int, int]) -> list[Difference]:
    """Name source offsets in [begin, end) that no stored record of coverage speaks of."""
    found = []
    intervals: dict[int, list[tuple[int, int]]] = {}
    for row in client.query(load("verify_coverage")):
        intervals.setdefault(row["source_partition"], []).append((row["first_offset"], row["last_offset"]))
    for number, last in end.items():
        at, holes = begin.get(number, 0), []
        for first, until in [*intervals.get(number, []), (last, last)]:
            holes += [offset for offset in (at, min(first, last) - 1) if at < min(first, last)]
            at = max(at, until + 1)
        if holes:
            size = sum(b - a + 1 for a, b in zip(holes[::2], holes[1::2], strict=True))
            text = ", ".join(f"{a}-{b}" for a, b in zip(holes[:10:2], holes[1:10:2], strict=True))
            found.append(Difference("coverage_gap", f"source partition {number}", size, f"offsets {text}"))
    return found


def windows(client: ClickHouse, horizon_s: int) -> tuple[int, list[Difference]]:
    """Compare sealed minutes of organisations; return how many were compared and what differs.

    A late row is in the ledger at once and in the window only after a repair: the window may have either sum.
    """
    compared, found = 0, []
    for row in client.query(load("verify_progress")):
        progress = json.loads(row["state"])
        sealed_s = min(progress["clocks"].values(), default=0) // 1000 - horizon_s - EDGE_S
        minutes = client.query(
            load("verify_windows"),
            {
                "partition": row["priced_partition"], "sealed": max(0, sealed_s),
                "from": max(0, sealed_s - WINDOWS_BACK_H * 3600), "horizon": horizon_s, "edge": EDGE_S,
                "applied": progress["applied"],
            },
        )  # fmt: skip
        compared += len(minutes)
        for minute in minutes:
            found += _window(minute)
    return compared, found


def _window(minute: Mapping[str, Any]) -> list[Difference]:
    where = f"minute {minute['bucket']:%Y-%m-%dT%H:%MZ}, org {minute['org_id']}"
    return [
        Difference(
            f"window_{name}", where, abs(minute[f"window_{name}"] - minute[f"live_{name}"]),
            f"the window has {minute[f'window_{name}']}, the ledger {minute[f'live_{name}']}",
        )
        for name in ("calls", "input_tokens", "output_tokens", "cost_nano")
        if minute[f"window_{name}"] not in (minute[f"live_{name}"], minute[f"all_{name}"]) and not minute["edge"]
    ]  # fmt: skip


def log_start(client: ClickHouse, priced_begin: Mapping[int, int]) -> dict[int, int]:
    """Return from where on the log of priced rows is whole, per source partition, where retention has cut it.

    Of a target cut at some offset the rows of a source are complete from the first record on that speaks of it.
    """
    cut = {number: begin for number, begin in priced_begin.items() if begin > 0}
    start: dict[int, int] = {}
    for number, begin in cut.items():
        for row in client.query(load("verify_log_start"), {"partition": number, "begin": begin}):
            source = row["source_partition"]
            start[source] = max(start.get(source, 0), row["first_offset"])
    return start


def rollup(client: ClickHouse, slack_s: float, oldest: datetime) -> tuple[int, list[Difference]]:
    """Compare rollup minutes with the ledger; return how many, and what differs.

    Minutes with an insert since, or in the `slack_s` before, are left out: the rollup computes them again. One that is
    absent altogether is compared when it is younger than `oldest`.
    """
    totals = client.query(load("verify_rollup"), {"slack_us": int(slack_s * 1e6), "oldest": moment(oldest)})
    found = [
        Difference(
            f"rollup_{row['name']}", f"minute {row['minute']:%Y-%m-%dT%H:%MZ}", abs(row["rollup"] - row["ledger"]),
            f"the rollup has {row['rollup']}, the ledger {row['ledger']}",
        )
        for row in totals if row["rollup"] != row["ledger"]
    ]  # fmt: skip
    return len(totals), found
