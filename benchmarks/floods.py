"""`python -m benchmarks.floods`: what hot keys, floods of names and many crossings cost WATCH's fold, in CPU time.

No broker: priced blocks are folded in this process, so that other programs on the machine change little.
"""

import argparse
import io
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from tollmeter.schemas.policy import SCOPE_COLUMNS, Policy
from tollmeter.settings import Settings
from tollmeter.streams.rules.windows.controls import fold_policy
from tollmeter.streams.rules.windows.fold import COLUMNS_READ, fold_rows
from tollmeter.streams.rules.windows.snapshot import snapshot
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import MEASURE_SOURCES
from tollmeter.streams.watch.kernel import rules_from

BLOCK = 5_000
START_US = 1_795_341_600_000_000
Names = Callable[[int], dict[str, str]]
_MONEY = ("cost_nano", "at_risk_nano", "cost_eur_nano", "at_risk_eur_nano", "cost_rub_nano", "at_risk_rub_nano")
_TEXT = {"status": "OK", "price_status": "PRICED", "billing_scope": "ORG", "flags": ""}
_NAMES = {
    "org_id": "acme",
    "group_id": "g",
    "user_id": "u",
    "agent": "a",
    "api_key_id": "k",
    "client_ip": "10.0.0.1",
    "model": "gpt-4o",
    "model_id": "gpt-4o",
    "provider_id": "openai",
    "operation_name": "f",
}


def blocks(rows: int, names: Names, cost_nano: int = 100) -> Iterator[bytes]:
    """Yield blocks of priced rows, a thousand to the second, as records bring them; `names` says what differs.

    Bytes, as polars forgets names only when no frame with names lives any more: between two batches of WATCH none does.
    """
    assert set(_NAMES) == set(SCOPE_COLUMNS.values())
    for begin in range(0, rows, BLOCK):
        numbers = range(begin, min(rows, begin + BLOCK))
        data: dict[str, Any] = {name: [value] * len(numbers) for name, value in (_NAMES | _TEXT).items()}
        changed = [names(number) for number in numbers]
        for name in changed[0]:
            data[name] = [row[name] for row in changed]
        at = [START_US + number * 1_000 for number in numbers]
        frame = pl.DataFrame(data).with_columns(
            pl.Series("event_id", [f"00000000-0000-4000-8000-{number:012x}" for number in numbers]),
            pl.Series("event_time", at).cast(pl.Datetime("us", "UTC")),
            pl.Series("received_at", [us // 1000 for us in at]).cast(pl.Datetime("ms", "UTC")),
            pl.lit("").alias("prompt_hash"),
            pl.lit(0, pl.UInt16).alias("src_partition"),
            pl.Series("src_offset", list(numbers)),
            pl.col(*_NAMES, *_TEXT).cast(pl.Categorical),
            *(pl.lit(10, pl.Int64).alias(name) for name in MEASURE_SOURCES if name.endswith("tokens")),
            *(pl.lit(cost_nano if name == "cost_nano" else None, pl.Int64).alias(name) for name in _MONEY),
        )
        out = io.BytesIO()
        frame.select(COLUMNS_READ).write_ipc_stream(out, compression="lz4")
        del frame
        yield out.getvalue()


def fold(rows: int, names: Names, state: State | None = None) -> dict[str, Any]:
    """Fold so many rows into a state and say what it cost; a snapshot is taken at the end."""
    state = state or State(0, rules_from(Settings(), 1))
    cpu = 0.0
    for offset, block in enumerate(blocks(rows, names)):
        frame = pl.read_ipc_stream(io.BytesIO(block))
        began = time.process_time()
        fold_rows(state, frame, offset)
        cpu += time.process_time() - began
        del frame
    began = time.process_time()
    cells = snapshot(state).cells.height
    return {
        "rows": rows,
        "rows_per_cpu_s": round(rows / cpu),
        "us_per_row": round(cpu / rows * 1e6, 2),
        "scopes": len(state.scopes),
        "cells": cells,
        "snapshot_cpu_s": round(time.process_time() - began, 2),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


def crossings(count: int) -> dict[str, Any]:
    """Give so many keys a budget and let all of them cross it in one block; every alert is found and encoded."""
    state = State(0, rules_from(Settings(), 1))
    for number in range(count):
        policy = Policy(org_id="acme", scope="api_key", name=f"k{number}", daily_limit_micro=1, alert_pcts=(100,))
        fold_policy(state, policy, number, START_US // 1000)
    began, alerts = time.process_time(), []
    for offset, block in enumerate(blocks(count, lambda number: {"api_key_id": f"k{number}"}, 5_000)):
        alerts += fold_rows(state, pl.read_ipc_stream(io.BytesIO(block)), count + offset)
    budgets = {alert.id for alert in alerts if alert.kind == "budget" and alert.facts["threshold_pct"] == 100}
    size = sum(len(alert.wire()) for alert in alerts)
    seconds = time.process_time() - began
    return {"scopes": count, "distinct_alerts": len(budgets), "cpu_s": round(seconds, 2), "bytes": size}


def run_floods(rows: int, scopes: int) -> dict[str, Any]:
    """Run every scenario; the flood of names last, as its memory is what stays."""
    return {
        "ordinary": fold(rows, lambda n: {"api_key_id": f"k{n % 200}", "client_ip": f"10.0.{n % 4}.{n % 200}"}),
        "hot_key_90": fold(rows, lambda n: {"api_key_id": "hot" if n % 10 else f"k{n % 2000}"}),
        "one_org_one_key": fold(rows, lambda _: {"user_id": "u"}),
        "crossings": crossings(scopes),
        "distinct_names": fold(
            rows, lambda n: {"api_key_id": f"k{n}", "client_ip": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"}
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floods", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="in each scenario [1000000]")
    parser.add_argument("--scopes", type=int, default=10_000, help="that cross their budgets at once [10000]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    figures = run_floods(chosen.rows, chosen.scopes)
    sys.stdout.write(json.dumps(figures, indent=None if chosen.json else 2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
