"""`python -m benchmarks.outage`: ClickHouse goes away for minutes under steady traffic, on a stack of its own.

Shown: memory, rebalances and alerts during the outage, the backlog and how fast it is stored afterwards, what is lost.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console

from benchmarks.line import pids
from benchmarks.measure import CpuMark, TooLateError, quantile, rss_mb, wait_for
from benchmarks.pipeline import fresh_stack
from benchmarks.preload import ORGS, SEED
from tollmeter.admin.verify.alerts import read_alerts
from tollmeter.broker.layout import ProvisionError
from tollmeter.broker.policies import set_policy
from tollmeter.embedded.jars import EmbeddedError
from tollmeter.embedded.stack import FRONT, STAGES, Stack
from tollmeter.producers.imports.publish import publish_timed
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Unavailable, connect
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire

STEP_S = 0.02
SAMPLE_S = 2.0
POLICY_EVERY_S = 5.0
STORED = "SELECT uniqExact(event_id) AS n FROM usage_events"
err = Console(stderr=True, highlight=False)


@dataclass
class Seen:
    """What was sampled while ClickHouse was away."""

    memory: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    restarts: int = 0
    rebalances: float = 0.0
    unready: bool = False
    alive: bool = True
    policies: int = 0


class Traffic:
    """Steady traffic of this moment in a thread, until told to stop."""

    def __init__(self, settings: Settings, rate: int, seconds: float, seed: int = SEED) -> None:
        self._settings, self._rate = settings, rate
        now_us = time.time_ns() // 1_000
        self._wire = Wire(
            company(seed, ORGS), int(rate * seconds), now_us, int(seconds * 1e6), block=max(1, round(rate * STEP_S))
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self.error: BaseException | None = None

    @property
    def sent(self) -> int:
        return self._wire.sent_events

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            asyncio.run(publish_timed(self._settings, self._paced()))
        except BaseException as error:
            self.error = error

    async def _paced(self) -> AsyncIterator[list[bytes]]:
        for due_us, values in self._wire.blocks():
            await asyncio.sleep(max(0.0, due_us / 1e6 - time.time()))
            yield values
            if self._stop.is_set():
                return


def run_outage(stack: Stack, minutes: float, rate: int, warm_s: float, timeout_s: float) -> dict[str, Any]:
    """Run the scenario and return its figures. Raises `TooLateError` when something never happens."""
    settings = stack.settings
    for stage in STAGES:
        stack.start_worker(stage)
    wait_for("the workers", lambda: all(stack.worker_ready(stage) for stage in STAGES), 90)
    traffic = Traffic(settings, rate, minutes * 60 + warm_s + timeout_s)
    traffic.start()
    clickhouse = connect(settings)
    wait_for("the first rows", lambda: _stored(clickhouse) > rate, 60)
    time.sleep(warm_s)
    before, restarts = _rebalances(stack), _restarts(stack)
    stored_before = _stored(clickhouse)
    stack.kill(FRONT, signal.SIGKILL, restart=False)
    gone_at = time.time()
    err.print(f"ClickHouse is gone with {stored_before:,} events stored")
    seen = _watch(stack, minutes * 60)
    seen.rebalances = _rebalances(stack) - before
    back_at = time.time()
    traffic.stop()
    err.print(f"over: {seen.rebalances:.0f} rebalances; MB " + str({k: _span(v) for k, v in seen.memory.items()}))
    stack.resume(FRONT)
    cpu = CpuMark.now(pids(stack))
    stored, backlog, seconds = _drained(clickhouse, traffic, timeout_s)
    cost = cpu.per_event_us(CpuMark.now(pids(stack)), max(1, stored))
    lag = wait_for("every event in the ledger", lambda: _stored(clickhouse) == traffic.sent or None, timeout_s)
    seen.restarts = _restarts(stack) - restarts
    alerts = [
        delay
        for event, delay in asyncio.run(read_alerts(settings, settings.partitions_priced))
        if event["data"]["kind"] == "budget" and gone_at <= _at(event) + delay <= back_at
    ]
    windows = windows_equal(clickhouse, timeout_s)
    clickhouse.close()
    return {
        "outage_s": round(back_at - gone_at),
        "rate": rate,
        "sent": traffic.sent,
        "lost": 0 if lag else None,
        "windows_equal_ledger": windows,
        "rebalances": seen.rebalances,
        "restarts": seen.restarts,
        "unready_in_outage": seen.unready,
        "alive_in_outage": seen.alive,
        "policies_set_in_outage": seen.policies,
        "alerts_in_outage": len(alerts),
        "alert_delay_p95_s": round(quantile(alerts, 0.95), 3) if alerts else None,
        "memory_mb": {stage: _span(values) for stage, values in seen.memory.items()},
        "backlog": backlog,
        "drain_s": round(seconds, 1),
        "drained_per_s": round(stored / max(seconds, 0.1)),
        "drain_cpu_us_per_event": cost,
        "load_average": os.getloadavg()[0],
    }


def _watch(stack: Stack, seconds: float) -> Seen:
    """Sample until the outage is over; a budget that is crossed already is set every few seconds."""
    seen, until, policy_at = Seen(), time.monotonic() + seconds, 0.0
    while time.monotonic() < until:
        for stage, pid in pids(stack).items():
            if stage in seen.memory:
                seen.memory[stage].append(rss_mb(pid))
        if time.monotonic() >= policy_at:
            policy_at = time.monotonic() + POLICY_EVERY_S
            seen.policies += 1
            org = company(SEED, ORGS).orgs[seen.policies % ORGS]
            set_policy(stack.settings, Policy(org_id=org, daily_limit_micro=1_000 + seen.policies, alert_pcts=(100,)))
        if time.monotonic() > until - seconds / 4:
            seen.unready |= not _answer(stack, "ledger", "readyz")[0]
            seen.alive &= all(_answer(stack, stage, "livez")[0] for stage in STAGES)
        time.sleep(SAMPLE_S)
    return seen


def _drained(clickhouse: ClickHouse, traffic: Traffic, timeout_s: float) -> tuple[int, int, float]:
    """Return rows stored until the ledger has caught up, the backlog at its beginning, and the seconds it took."""
    first = wait_for("ClickHouse", lambda: _reachable(clickhouse), 60)
    began, backlog = time.monotonic(), traffic.sent - first
    err.print(f"ClickHouse is back; {backlog:,} events wait")
    wait_for("the backlog", lambda: _reachable(clickhouse, first) >= traffic.sent, timeout_s)
    seconds = time.monotonic() - began
    return _stored(clickhouse) - first, backlog, seconds


def windows_equal(clickhouse: ClickHouse, timeout_s: float) -> bool:
    """Tell whether the days of WATCH hold what the ledger holds, once its checkpoint has come so far."""
    calls = "SELECT sum(calls) AS n FROM usage_windows FINAL WHERE level = 'month' AND scope = 'org'"
    ledger = "SELECT count() AS n FROM usage_events FINAL"
    try:
        wait_for(
            "windows equal to the ledger",
            lambda: int(clickhouse.query(calls)[0]["n"]) == int(clickhouse.query(ledger)[0]["n"]),
            timeout_s,
        )
    except TooLateError:
        return False
    return True


def _stored(clickhouse: ClickHouse) -> int:
    return int(clickhouse.query(STORED)[0]["n"])


def _reachable(clickhouse: ClickHouse, otherwise: int | None = None) -> Any:
    try:
        return _stored(clickhouse)
    except Unavailable:
        return otherwise


def _restarts(stack: Stack) -> int:
    return sum(stack.processes()[stage].restarts for stage in STAGES)


def _rebalances(stack: Stack) -> float:
    total = 0.0
    for stage in STAGES:
        for line in _answer(stack, stage, "metrics")[1].splitlines():
            if line.startswith("tollmeter_rebalances_total"):
                total += float(line.rpartition(" ")[2])
    return total


def _answer(stack: Stack, stage: str, path: str) -> tuple[bool, str]:
    try:
        with urllib.request.urlopen(f"{stack.health(stage)}/{path}", timeout=10) as answer:
            return True, answer.read().decode()
    except OSError as error:
        return False, str(error)


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _span(values: list[float]) -> dict[str, int]:
    third = max(1, len(values) // 3)
    return {
        "first_third_max": round(max(values[:third])),
        "last_third_max": round(max(values[-third:])),
        "max": round(max(values)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long ClickHouse is away [20]")
    parser.add_argument("--rate", type=int, default=2_000, help="events per second all the time [2000]")
    parser.add_argument("--warm-seconds", type=float, default=30.0, help="of traffic before the outage [30]")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for catching up [900]")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    try:
        with fresh_stack() as stack:
            figures = run_outage(stack, chosen.minutes, chosen.rate, chosen.warm_seconds, chosen.timeout)
    except (EmbeddedError, ProvisionError, TooLateError) as error:
        err.print(f"benchmarks: {error}", markup=False, soft_wrap=True)
        return 2
    sys.stdout.write(json.dumps(figures, indent=None if chosen.json else 2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
