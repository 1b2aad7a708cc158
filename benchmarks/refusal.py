"""`python -m benchmarks.refusal`: spend crosses a limit; how long until a guard in another process refuses the key?

Traffic of 1,000 events a second runs through the whole line. From the append time of the event that carried a key's
spend to its limit (its alert says when) to the first refusal by a guard that asks for every key all the time.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.delays import STEP_S, set_budgets
from benchmarks.line import wait_settled
from benchmarks.measure import TooLateError, quantile, wait_for
from benchmarks.preload import ORGS, SEED, preload
from tollmeter.admin import setup as provision
from tollmeter.broker.policies import list_policies
from tollmeter.embedded.environment import settings_environment
from tollmeter.embedded.stack import Stack
from tollmeter.producers.guard.guard import Guard
from tollmeter.producers.imports.publish import publish_timed
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire

PAUSE_S = 0.005
CROSSED = """
SELECT org_id, name, toInt64(toUnixTimestamp64Milli(received_at)) AS received_ms,
       toInt64(toUnixTimestamp64Milli(appended_at)) AS alerted_ms
FROM alerts FINAL
WHERE kind = 'budget' AND scope = 'api_key' AND JSONExtractInt(data, 'threshold_pct') = 100
    AND received_at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refusal", description=__doc__)
    parser.add_argument("--rate", type=int, default=1_000, help="events per second [1000]")
    parser.add_argument("--seconds", type=int, default=60, help="of live traffic [60]")
    parser.add_argument("--preload-events", type=int, default=60_000, help="loaded before [60000]")
    parser.add_argument("--keys", type=int, default=100, help="with a budget that is crossed [100]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        watch_keys(json.loads(Path(chosen.worker).read_text(encoding="utf-8")))
        return 0
    try:
        found = measure(chosen.rate, chosen.seconds, chosen.preload_events, chosen.keys)
    except TooLateError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 2
    delays = [crossing.refused_s for crossing in found]
    figures = {
        "rate": chosen.rate,
        "crossings": len(delays),
        "refusal_delay_p50_s": round(quantile(delays, 0.5), 3),
        "refusal_delay_p95_s": round(quantile(delays, 0.95), 3),
        "refusal_delay_max_s": round(max(delays), 3),
        "alert_delay_p95_s": round(quantile([crossing.alerted_s for crossing in found], 0.95), 3),
    }
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.writelines(f"{name:20} {value}\n" for name, value in figures.items())
    return 0


class Crossing(NamedTuple):
    """How long after the event that crossed its limit a key was refused, and WATCH's alert was on the log, seconds."""

    refused_s: float
    alerted_s: float


def measure(rate: int, seconds: int, preloaded: int, keys: int) -> list[Crossing]:
    """Return the delays of each crossing. Raises `TooLateError`."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0", fx_max_age_days=100_000)
        with Stack(Path(folder), workers=(), settings=wanted) as stack:
            provision.apply(stack.settings)
            loaded = preload(stack.settings, preloaded, 600)
            for stage in ("price", "ledger", "watch"):
                stack.start_worker(stage)
            clickhouse = connect(stack.settings)
            wait_settled(clickhouse, loaded, 300)
            begun_ms = time.time_ns() // 1_000_000
            set_budgets(stack.settings, clickhouse, keys, seconds * rate / preloaded)
            return _live(stack.settings, clickhouse, Path(folder) / "keys.json", rate, seconds, begun_ms)


def _live(
    settings: Settings, clickhouse: ClickHouse, listed: Path, rate: int, seconds: int, begun_ms: int
) -> list[Crossing]:
    keys = [(policy.org_id, policy.name) for policy in list_policies(settings)]
    listed.write_text(json.dumps(keys), encoding="utf-8")
    guard = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.refusal", "--worker", str(listed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings_environment(settings)},
        cwd=Path(__file__).resolve().parents[1],
    )
    try:
        assert guard.stdout is not None
        if guard.stdout.readline().strip() != "ready":
            raise TooLateError("the guard did not get ready")
        asyncio.run(publish_timed(settings, _paced(rate, seconds)))
        wait_for("the last alerts", lambda: _quiet(clickhouse, begun_ms), 60)
        refused = {(org, name): at_ms for org, name, at_ms in json.loads(guard.communicate("stop\n", timeout=30)[0])}
    finally:
        guard.kill()
        guard.wait()
    found: list[dict[str, Any]] = clickhouse.query(CROSSED, {"since": begun_ms})
    clickhouse.close()
    crossed = {(row["org_id"], row["name"]): (row["received_ms"], row["alerted_ms"]) for row in found}
    missing = [key for key in crossed if key not in refused]
    if missing or not crossed:
        raise TooLateError(f"the refusal of {len(missing)} of {len(crossed)} keys")
    return [
        Crossing((refused[key] - received_ms) / 1_000, (alerted_ms - received_ms) / 1_000)
        for key, (received_ms, alerted_ms) in crossed.items()
    ]


async def _paced(rate: int, seconds: int) -> AsyncIterator[list[bytes]]:
    now_us = time.time_ns() // 1_000
    wire = Wire(
        company(SEED, ORGS),
        rate * seconds,
        now_us,
        seconds * 1_000_000,
        duplicates=0.0,
        block=max(1, round(rate * STEP_S)),
    )
    for due_us, values in wire.blocks():
        await asyncio.sleep(max(0.0, due_us / 1e6 - time.time()))
        yield values


def _quiet(clickhouse: ClickHouse, since_ms: int) -> bool:
    """Tell whether no further alert has come for three seconds."""
    before = len(clickhouse.query(CROSSED, {"since": since_ms}))
    time.sleep(3)
    return len(clickhouse.query(CROSSED, {"since": since_ms})) == before


def watch_keys(keys: list[tuple[str, str]]) -> None:
    """Ask for every key all the time; tell when each was refused first. Ends with the first line on stdin."""
    stopped = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        stopped.set()

    refused: dict[tuple[str, str], int] = {}
    with Guard() as guard:
        if not guard.ready(60.0):
            sys.stdout.write(f"{guard.problem}\n")
            return
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        threading.Thread(target=listen, daemon=True).start()
        open_keys = {(org, name) for org, name in keys}
        while not stopped.is_set():
            for key in list(open_keys):
                decision = guard.check("gpt-4o", prompt_tokens=0, org=key[0], api_key_id=key[1], provider="openai")
                if decision:
                    decision.reservation.release()
                else:
                    refused[key] = time.time_ns() // 1_000_000
                    open_keys.discard(key)
            time.sleep(PAUSE_S)
    sys.stdout.write(json.dumps([[*key, at_ms] for key, at_ms in refused.items()]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
