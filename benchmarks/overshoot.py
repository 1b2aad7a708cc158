"""`python -m benchmarks.overshoot`: ten processes hammer one budget: how far do they exceed it, and how far may they?

The bound is computed from the settings before the first call. Spent is what the calls that were let through cost, added
up by those who made them. The same run with the guard off shows that there was something to hold back.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tollmeter.broker.policies import set_policy
from tollmeter.embedded.environment import settings_environment
from tollmeter.embedded.stack import Stack
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard.guard import Allow, Guard, overshoot_bound
from tollmeter.schemas.money import NANO_PER_MICRO, NANO_PER_USD
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings

ORG, MODEL, TOKENS = "hammered", "gpt-4o", 4_000
CALL_NANO = 10_000_000
"""4,000 input tokens of gpt-4o: 0.01 USD."""
LIMIT_MICRO = 1_000_000
PAUSE_S = 0.05
UNGUARDED_S = 5.0


@dataclass(frozen=True, slots=True)
class Overshoot:
    """What came of one run, nano-USD."""

    processes: int
    limit_nano: int
    bound_nano: int
    spent_nano: int
    refused: int
    unguarded_nano: int

    @property
    def overshoot_pct(self) -> float:
        return max(0.0, (self.spent_nano - self.limit_nano) * 100 / self.limit_nano)


def run(settings: Settings, processes: int, seconds: float) -> Overshoot:
    """Set the budget, hammer it so long with the guard, then for a moment without. PRICE and WATCH must be at work."""
    guarded = settings.model_copy(update={"guards": processes})
    bound = overshoot_bound(LIMIT_MICRO * NANO_PER_MICRO, guarded.guards, CALL_NANO)
    set_policy(settings, Policy(org_id=ORG, daily_limit_micro=LIMIT_MICRO))
    with_guard = hammer(guarded, processes, seconds, "kafka")
    without = hammer(guarded, processes, min(seconds, UNGUARDED_S), "disabled")
    return Overshoot(
        processes,
        LIMIT_MICRO * NANO_PER_MICRO,
        bound,
        sum(calls for calls, _ in with_guard) * CALL_NANO,
        sum(refused for _, refused in with_guard),
        sum(calls for calls, _ in without) * CALL_NANO,
    )


def hammer(settings: Settings, processes: int, seconds: float, mode: str) -> list[tuple[int, int]]:
    """Let processes call as fast as they are let; return calls made and refused of each. They begin together."""
    environment = {**os.environ, **settings_environment(settings), "TOLLMETER_GUARDS": str(settings.guards)}
    command = [sys.executable, "-m", "benchmarks.overshoot", "--worker", mode, "--seconds", str(seconds)]
    folder = Path(__file__).resolve().parents[1]
    workers = [
        subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline().strip() != "ready":
                raise RuntimeError("a hammering process did not get ready")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        found = [json.loads(worker.communicate(timeout=seconds + 60)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return [(entry["calls"], entry["refused"]) for entry in found]


def work(mode: str, seconds: float) -> None:
    """One of the processes: check, call (which takes no time), record, settle, again."""
    with tempfile.TemporaryDirectory() as spool:
        producer = UsageProducer(service="hammer", spool_dir=spool, mode="disabled" if mode == "disabled" else "kafka")
        guard = Guard(mode="disabled" if mode == "disabled" else "kafka")
        if not guard.ready(60.0):
            sys.stdout.write(f"{guard.problem}\n")
            return
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        calls = refused = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            decision = guard.check(MODEL, prompt_tokens=TOKENS, max_output_tokens=0, org=ORG, provider="openai")
            if isinstance(decision, Allow):
                calls += 1
                producer.record(
                    provider="openai",
                    model_sent=MODEL,
                    org_id=ORG,
                    input_tokens=TOKENS,
                    status="OK",
                    usage_source="PROVIDER",
                )
                decision.reservation.settle(CALL_NANO)
            else:
                refused += 1
            time.sleep(PAUSE_S)
        producer.flush(20.0)
        producer.close()
        guard.close()
        sys.stdout.write(json.dumps({"calls": calls, "refused": refused}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overshoot", description=__doc__)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--worker", choices=["kafka", "disabled"], help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    if chosen.worker:
        work(chosen.worker, chosen.seconds)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0", fx_max_age_days=100_000)
        with Stack(Path(folder), workers=("price", "watch"), settings=wanted) as stack:
            result = run(stack.settings, chosen.processes, chosen.seconds)
    figures = {**asdict(result), "overshoot_pct": result.overshoot_pct}
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        usd = {name: value / NANO_PER_USD if name.endswith("_nano") else value for name, value in figures.items()}
        sys.stdout.writelines(f"{name.replace('_nano', '_usd'):18} {value}\n" for name, value in usd.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
