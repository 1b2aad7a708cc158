"""Forty days of made-up calls for the boards, and plain Python's answers about them."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.priced_rows import insert, row
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
        price_book="b",
        rule_id="rule",
    )


def store(ledger: ClickHouse, rows: list[Row]) -> None:
    """Write the ledger and its minutes."""
    insert(ledger, rows)
    minutes = sorted({int(one["event_time"].timestamp()) // 60 * 60 for one in rows})
    for begin in range(0, len(minutes), 500):
        ledger.command(load("rollup_recompute"), {"minutes": minutes[begin : begin + 500]})


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
