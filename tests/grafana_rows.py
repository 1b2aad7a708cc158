"""Forty days of made-up calls for the boards, and plain Python's answers about them."""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.priced_rows import event_id, insert, row
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load

DAY = timedelta(days=1)
MODELS = {"openai": ("gpt-4o", "o3"), "anthropic": ("claude-sonnet-4-5",), "google": ("gemini-2.5-pro",)}
Row = dict[str, Any]


def made(now: datetime, count: int = 3_000, seed: int = 5) -> list[Row]:
    """Return rows before `now`, half of them of the last two days; some unpriced, free, failed, refused, estimated."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        age = rng.random() * 2 if number % 2 else 2 + rng.random() * 38
        rows.append(_row(rng, number, now - timedelta(days=age, seconds=3)))
    late = {
        "api_key_id": "key-new",
        "model": "model-new",
        "client_ip": "203.0.113.9",
        "cost_nano": 5_000_000_000,
        "at_risk_nano": None,
    }
    rows.append({**_row(rng, count, now - timedelta(hours=2)), **late, "status": "OK", "price_status": "PRICED"})
    midnight = now.replace(hour=0, minute=0, second=0)  # the last instant of yesterday, the first of today
    for cost_nano, at in enumerate((midnight - timedelta(microseconds=1), midnight), 1):
        edge = {
            "org_id": "edge",
            "cost_nano": cost_nano,
            "at_risk_nano": None,
            "price_status": "PRICED",
            "status": "OK",
        }
        rows.append({**_row(rng, count + cost_nano, at), **edge})
    return rows


def steady(now: datetime) -> list[Row]:
    """Return a call every two minutes for eight days up to `now`: one service and key, always the same cost."""
    common = {"org_id": "acme", "service": "checkout", "api_key_id": "k", "provider": "openai", "model": "gpt-4o"}
    priced = {"status": "OK", "price_status": "PRICED", "cost_nano": 200_000_000}
    times = (now - timedelta(minutes=2 * number) for number in range(8 * 720))
    return [row(n, event_time=at, received_at=at, **common, **priced) for n, at in enumerate(times)]


def leaking(now: datetime) -> list[Row]:
    """Return the same with a key that spends a hundred times as much, a service that stopped, calls without a price."""
    calls = steady(now)
    last_hour = [one for one in calls if now - one["event_time"] < timedelta(hours=1)]
    more: list[Row] = []
    for one in last_hour:
        more += [{**one, "cost_nano": 20_000_000_000}, {**one, "cost_nano": None, "org_id": "umbra"}]
    more += [{**one, "service": "quiet"} for one in calls if now - one["event_time"] > timedelta(hours=12)]
    return calls + [{**one, "event_id": event_id(100_000 + number)} for number, one in enumerate(more)]


def store_calm_line(ledger: ClickHouse, now: datetime) -> None:
    """Write a budget that is hardly used and workers that are up to date."""
    policy = Policy(org_id="acme", daily_limit_micro=2_000_000_000)
    ledger.insert_rows("watch_policies", _POLICY, [(0, policy.policy_id, 1, 0, policy.model_dump_json())])
    ledger.insert_rows("ledger_coverage", _BATCH, [(0, 10, 0, 0, 99, 100, 0, 100, "b", "boot", now)])
    ledger.insert_rows("watch_progress", _PLACE, [(0, 8, 8, "{}", now)])


def _row(rng: random.Random, number: int, at: datetime) -> Row:
    provider = rng.choice(list(MODELS))
    inputs, cached = rng.randrange(20_000), rng.random()
    state = rng.choices(("OK", "ERROR", "BLOCKED", "UNKNOWN_MODEL", "FREE"), (80, 5, 3, 8, 4))[0]
    priced = state in ("OK", "FREE", "BLOCKED")
    return row(
        number,
        event_time=at,
        received_at=at + timedelta(milliseconds=rng.randrange(2_000)),
        org_id=rng.choice(("acme", "umbra", "initech")),
        user_id=f"user-{rng.randrange(40)}",
        operation_name=rng.choice(("search", "summary", "ingest", "")),
        api_key_id=f"key-{rng.randrange(12)}",
        client_ip=f"10.0.0.{rng.randrange(60)}",
        provider=provider,
        model=rng.choice(MODELS[provider]),
        status=state if state in ("OK", "ERROR", "BLOCKED") else "OK",
        usage_source="ESTIMATED" if rng.random() < 0.1 else "PROVIDER",
        price_status={"ERROR": "NO_USAGE", "UNKNOWN_MODEL": "UNKNOWN_MODEL", "FREE": "FREE"}.get(state, "PRICED"),
        input_tokens=inputs,
        cache_read_tokens=int(inputs * cached * 0.5),
        cache_write_tokens=int(inputs * (1 - cached) * 0.1),
        output_tokens=rng.randrange(2_000),
        cost_nano=rng.randrange(1, 90_000_000) if state == "OK" else 0 if priced else None,
        at_risk_nano=rng.randrange(50_000_000) if state == "UNKNOWN_MODEL" else None,
        request_id=f"r-{number}",
        service=rng.choice(("checkout", "search")),
        agent=rng.choice(("", "", "claude-code", "codex")),
        session_id=f"s-{number % 25}",
        tags=[{"key": "repository", "value": f"repo-{number % 4}"}] if number % 3 else [],
        price_book="b",
        rule_id="rule",
    )


def store(ledger: ClickHouse, rows: list[Row]) -> None:
    """Write the ledger and its minutes."""
    insert(ledger, rows)
    minutes = sorted({int(one["event_time"].timestamp()) // 60 * 60 for one in rows})
    for begin in range(0, len(minutes), 500):
        ledger.command(load("rollup_recompute"), {"minutes": minutes[begin : begin + 500]})


def store_line(ledger: ClickHouse, now: datetime) -> None:
    """Write budgets with what is used of them, batches and places of the workers, a gap, and alerts."""
    day, month = (int(at.replace(hour=0, minute=0, second=0).timestamp()) for at in (now, now.replace(day=1)))
    policies = (
        Policy(org_id="acme", daily_limit_micro=2_000_000, monthly_limit_micro=100_000_000),
        Policy(org_id="acme", scope="user", name="ann", limits=(Limit(period="day", measure="tokens", amount=1_000),)),
    )
    rows = [(0, one.policy_id, 1, 0, one.model_dump_json()) for one in policies]
    ledger.insert_rows("watch_policies", _POLICY, rows)
    windows = [
        ("day", day, "acme", "org", "", 0, 7, 10, 2, 500, 100, 3_000_000_000, 500_000_000),
        ("month", month, "acme", "org", "", 0, 7, 30, 2, 900, 300, 9_000_000_000, 500_000_000),
        ("day", day - 86_400, "acme", "org", "", 0, 7, 10, 2, 500, 100, 77_000_000_000, 0),
        ("day", day, "acme", "user", "ann", 0, 7, 4, 0, 700, 100, 1_000_000, 0),
        ("month", month, "acme", "user", "ann", 0, 7, 9, 1, 800, 200, 0, 4_000_000),
    ]
    ledger.insert_rows("usage_windows", _WINDOW, windows)
    stored = now - timedelta(minutes=12)
    batches = [(0, 10, 0, 0, 99, 100, 4, 60), (1, 10, 0, 0, 99, 100, 4, 36), (0, 11, 1, 0, 9, 10, 0, 10)]
    ledger.insert_rows("ledger_coverage", _BATCH, [(*one, "b", "boot", stored) for one in [*batches, batches[0]]])
    ledger.insert_rows("watch_progress", _PLACE, [(0, 5, 5, "{}", now - timedelta(hours=1))])
    ledger.insert_rows("ledger_gaps", _GAP, [("watch", 0, 3, 7, "gone", now - timedelta(minutes=5), "t", "")])
    billed = ("openai", "a", "openai.costs", f"{(now - DAY).date()}", 1)
    ledger.insert_rows("provider_costs", _COST, [(*billed, 1, "all", "123.5", "123.5")])
    ledger.insert_rows("provider_cost_days", _BILL, [(*billed, 1, True, True, now)])
    kinds = ("verify_difference", "budget", "ingest_loop", "spend_spike")
    events = [(json.dumps(_alert(kind, now - timedelta(minutes=9))), now) for kind in kinds]
    ledger.insert_rows("alerts", ("event", "appended_at"), events)


_COST = ("provider", "account", "source", "day", "revision", "line", "meter", "amount", "amount_usd")
_BILL = ("provider", "account", "source", "day", "revision", "lines", "is_whole", "is_final", "fetched_at")
_POLICY = ("priced_partition", "policy_id", "stamp", "deleted", "policy")
_WINDOW = (
    *("level", "bucket", "org_id", "scope", "name", "priced_partition", "stamp", "calls", "unknown_model"),
    *("input_tokens", "output_tokens", "cost_nano", "at_risk_nano"),
)
_BATCH = (
    *("priced_partition", "priced_offset", "source_partition", "first_offset", "last_offset", "records", "rejected"),
    *("rows", "price_book", "boot", "inserted_at"),
)
_PLACE = ("priced_partition", "applied", "stamp", "state", "written_at")
_GAP = ("stage", "priced_partition", "first_offset", "last_offset", "reason", "found_at", "topic", "topic_id")


def _alert(kind: str, at: datetime) -> Row:
    data = {
        "kind": kind,
        "severity": "warning",
        "org_id": "acme",
        "scope": "org",
        "name": "",
        "period": "",
        "text": kind,
    }
    return {"id": f"a-{kind}", "time": at.isoformat().replace("+00:00", "Z"), "data": data}


@dataclass(slots=True)
class Money:
    """What a group of calls adds up to, in plain integers; `usd` is None where nothing of it is known."""

    calls: int = 0
    nano: int = 0
    unpriced: int = 0
    at_risk: int = 0
    inputs: int = 0
    outputs: int = 0
    rows: list[Row] = field(default_factory=list)

    def add(self, one: Row) -> None:
        self.calls += 1
        self.nano += one["cost_nano"] or 0
        self.unpriced += unpriced(one)
        self.at_risk += one["at_risk_nano"] or 0
        self.inputs += one["input_tokens"]
        self.outputs += one["output_tokens"]
        self.rows.append(one)

    @property
    def usd(self) -> int | None:
        return None if self.unpriced and not self.nano else self.nano


def unpriced(one: Row) -> bool:
    return one["cost_nano"] is None and not (one["status"] == "ERROR" and one["price_status"] == "NO_USAGE")


def groups(rows: Iterable[Row], name: Callable[[Row], Any]) -> dict[Any, Money]:
    """Return the sums by name."""
    found: dict[Any, Money] = {}
    for one in rows:
        found.setdefault(name(one), Money()).add(one)
    return found


def between(rows: Iterable[Row], since: datetime, until: datetime) -> list[Row]:
    return [one for one in rows if since <= one["event_time"] < until]


def instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)
