"""`python -m benchmarks.guard`: what one `Guard.check` costs its caller while the guard's reader takes in updates.

Every check is limited by the organisation, three groups, the user, the key and the address, each by the day and by the
month: 14 limits; and by rules about models of the organisation, the groups and the key. Updates are records of
`usage.spend` as WATCH writes them, taken in by the reader's own code on a thread of its own, with an `as_of` every
second, so that settled calls are forgotten as in life. No network is used.
"""

import argparse
import gc
import json
import random
import sys
import threading
import time
from itertools import cycle, islice
from typing import Any

from aiokafka import ConsumerRecord

from benchmarks.measure import quantile
from tollmeter.producers.guard.alert_queue import AlertQueue
from tollmeter.producers.guard.guard import Guard
from tollmeter.producers.guard.reader import Reader
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.spend import AsOf, Spend, period_key
from tollmeter.settings import Settings
from tollmeter.streams.price.book.book import load
from tollmeter.streams.price.book.publish import document
from tollmeter.streams.rules.limits.periods import period_of

ORG, GROUPS, MOST_CALLERS = "acme", 30, 300
LIMIT_MICRO = 10**12
BURST_S = 0.01


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--policies", type=int, default=1_000)
    parser.add_argument("--spend-rows", type=int, default=10_000)
    parser.add_argument("--updates-per-s", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    guard = Guard(mode="memory", settings=Settings())
    rows = prepare(guard, chosen.policies, chosen.spend_rows)
    applied, took = measure(guard, rows, chosen.updates_per_s, chosen.seconds)
    figures = {
        "policies": guard._known.limits.policies,
        "spend_rows": guard._known.spend.rows,
        "updates_per_s": round(applied / chosen.seconds),
        "checks": len(took),
        "limits_per_check": 14,
        "p50_us": round(quantile(took, 0.5) / 1_000, 1),
        "p99_us": round(quantile(took, 0.99) / 1_000, 1),
        "p999_us": round(quantile(took, 0.999) / 1_000, 1),
        "network_calls": 0,
    }
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.writelines(f"{name:18} {value}\n" for name, value in figures.items())
    return 0


def policies(count: int) -> list[Policy]:
    """Return policies of the organisation, of groups, users, keys and addresses, each with two limits."""
    scopes = [("org", ""), *(("group", f"g{number}") for number in range(GROUPS))]
    for number in range(count):
        scopes += [
            ("user", f"u{number}"),
            ("api_key", f"k{number}"),
            ("client_ip", f"10.0.{number >> 8}.{number & 255}"),
        ]
    return [
        Policy(org_id=ORG, scope=scope, name=name, daily_limit_micro=LIMIT_MICRO, monthly_limit_micro=LIMIT_MICRO)  # type: ignore[arg-type]
        for scope, name in scopes[:count]
    ]


def address(number: int) -> str:
    """Return the address of a caller."""
    return f"10.0.{number >> 8}.{number & 255}"


def prepare(guard: Guard, policy_count: int, row_count: int) -> list[Spend]:
    """Fill a guard; return its spend rows."""
    guard.apply("prices", *document(load(Settings())))
    guard.apply("policies", "layout", b'{"events":4,"priced":4,"hash":"crc32-1"}')
    made = policies(policy_count)
    for policy in made:
        guard.apply("policies", f"policy:{policy.policy_id}", policy.model_dump_json().encode())
    for policy in made:
        if policy.scope in ("org", "group", "api_key"):
            allowed = ModelRule(org_id=ORG, scope=policy.scope, name=policy.name, allowed=("gpt-4o", "gpt-4o-mini"))  # type: ignore[arg-type]
            guard.apply("policies", allowed.key, allowed.model_dump_json().encode())
    scopes = [(policy.scope, policy.name) for policy in made]
    scopes += [("user", f"other{number}") for number in range(row_count)]
    now = int(time.time())
    rows = [
        Spend(
            partition=0,
            stamp=1,
            org_id=ORG,
            scope=scope,
            name=name,
            period=period_key(window, "UTC"),
            starts_s=period_of(window, "UTC", now)[0],
            ends_s=period_of(window, "UTC", now)[1],
            unit="USD",
            spent=1_000_000,
            at_risk_nano=0,
            limit=LIMIT_MICRO * 1_000,
            policy_id="p",
            remaining=LIMIT_MICRO * 1_000 - 1_000_000,
            percent=0,
            forecast=None,
        )
        for scope, name in scopes
        for window in ("day", "month")
    ][:row_count]
    for row in rows:
        guard.apply("spend", row.key, row.model_dump_json().encode())
    return rows


def updates(guard: Guard, rows: list[Spend], per_s: int, seconds: float) -> list[list[ConsumerRecord[Any, Any]]]:
    """Return the records of each burst, made beforehand: the thread that applies them shall do nothing else."""
    per_burst = max(1, round(per_s * BURST_S))
    partition = guard._known.partition(ORG) or 0
    source, stamps = cycle(random.Random(7).sample(rows, len(rows))), iter(range(2, 10**9))
    began_ms, bursts = time.time_ns() // 1_000_000, []
    for number in range(round(seconds / BURST_S)):
        burst = [
            row.model_copy(update={"partition": partition, "stamp": next(stamps), "spent": row.spent + number})
            for row in islice(source, per_burst)
        ]
        records = [_record(row.key, row.model_dump_json().encode()) for row in burst]
        if number % round(1 / BURST_S) == 0:
            as_of = AsOf(partition=partition, stamp=next(stamps), as_of_ms=began_ms + round(number * BURST_S * 1_000))
            records.append(_record(as_of.key, as_of.model_dump_json().encode()))
        bursts.append(records)
    return bursts


def _record(key: str, value: bytes) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord("usage.spend", 0, 0, time.time_ns() // 1_000_000, 0, key.encode(), value, None, 0, 0, ())


def measure(guard: Guard, rows: list[Spend], per_s: int, seconds: float) -> tuple[int, list[int]]:
    """Return how many updates were applied, and what each check took meanwhile, nanoseconds."""
    reader = Reader(guard._lookup, guard._known, AlertQueue())
    callers = min(MOST_CALLERS, (guard._known.limits.policies - 1 - GROUPS) // 3)
    bursts, applied, done = updates(guard, rows, per_s, seconds), 0, threading.Event()

    def take_in() -> None:
        nonlocal applied
        due = time.monotonic()
        for burst in bursts:
            reader._apply("spend", burst, True)
            guard._known.accounts.expire()
            applied += len(burst)
            due += BURST_S
            time.sleep(max(0.0, due - time.monotonic()))
        done.set()

    calls = [
        {
            "prompt_chars": 4_000,
            "max_output_tokens": 100,
            "org": ORG,
            "provider": "openai",
            "user": f"u{number}",
            "groups": tuple(f"g{(number + step) % GROUPS}" for step in (0, 7, 14)),
            "api_key_id": f"k{number}",
            "client_ip": address(number),
        }
        for number in range(callers)
    ]
    for call in calls:  # each combination of names is resolved once
        assert len(guard.check("gpt-4o", **call).reservation.bounds) == 14  # type: ignore[union-attr, arg-type]
    took: list[int] = []
    gc.collect()
    gc.freeze()
    threading.Thread(target=take_in, name="reader", daemon=True).start()
    for call in cycle(calls):
        began = time.perf_counter_ns()
        decision = guard.check("gpt-4o", **call)  # type: ignore[arg-type]
        took.append(time.perf_counter_ns() - began)
        decision.reservation.settle(3_000_000)  # type: ignore[union-attr]
        if len(took) % 200 == 0:
            time.sleep(0.004)  # a service does other things as well
            if done.is_set():
                return applied, took
    return applied, took


if __name__ == "__main__":
    sys.exit(main())
