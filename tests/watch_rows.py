"""Priced rows for tests of WATCH: a frame with the columns it reads, from short dicts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from tollmeter.streams.rules.anomalies.limits import Limits
from tollmeter.streams.rules.windows.anomalies import SpikeFloors
from tollmeter.streams.rules.windows.fold import COLUMNS_READ
from tollmeter.streams.rules.windows.state import State, WatchRules
from tollmeter.streams.watch.thresholds import shipped_limits

START = int(datetime(2026, 11, 20, 10, 0, tzinfo=UTC).timestamp())
FLOORS = SpikeFloors(minute_nano=10**9, hour_nano=5 * 10**9, new_key_hour_nano=10 * 10**9, factor=3)
RULES = WatchRules(
    sources=2,
    horizon_s=3_600,
    close_after_s=120,
    seen_cap=10_000,
    floors=FLOORS,
    unpriced_share_pct=1.0,
    limits=shipped_limits(),
)


def low(limits: Limits) -> Limits:
    """Return figures at which a handful of calls is suspicious."""
    few = {"least": 1, "factor": 2, "floor_nano": 0, "new_least": 2, "new_floor_nano": 0}
    few |= {"info_least": 1, "info_floor_nano": 0}
    share = {"least_pct": 10, "excess_nano": 0, "keys": 2, "hours": 1, "new_keys": 2, "new_floor_nano": 1}
    share["dearest_factor"] = 1
    return Limits(
        past_windows=2,
        past_age_windows=2,
        critical_nano=10**7,
        floor_nano=10**6,
        shared_address=limits.shared_address.model_copy(update=few),
        model_price_factor=2,
        few_networks=8,
        settled_windows=1,
        settled_used=1,
        dormant_days=7,
        hours_age_days=1,
        hours_most=16,
        cache_lost=limits.cache_lost.model_copy(update={"input_tokens": 1}),
        unusual_use=limits.unusual_use.model_copy(
            update={"hour_nano": 1, "day_pct": 1, "semi_active_pct": 1, "semi_spread_pct": 10_000}
        ),
        clock_ahead=limits.clock_ahead.model_copy(update={"least": 1}),
        fan_out=limits.fan_out.model_copy(update=few),
        error_storm=limits.error_storm.model_copy(update=few),
        same_body=limits.same_body.model_copy(update=few),
        dominance=limits.dominance.model_copy(update=share),
    )


LOW = replace(RULES, limits=low(RULES.limits))
"""Rules about identity that find something in a few calls."""
DEFAULTS: dict[str, Any] = {
    "org_id": "acme",
    "group_id": "g",
    "user_id": "u",
    "agent": "",
    "api_key_id": "k",
    "client_ip": "10.0.0.1",
    "model": "gpt-4o",
    "model_id": "gpt-4o",
    "provider_id": "openai",
    "operation_name": "",
    "status": "OK",
    "flags": "",
    "price_status": "PRICED",
    "billing_scope": "ORG",
    "input_tokens": 10,
    "cache_read_tokens": 0,
    "output_tokens": 2,
    "cost_nano": 100,
    "at_risk_nano": None,
    "cost_eur_nano": 90,
    "at_risk_eur_nano": None,
    "cost_rub_nano": None,
    "prompt_hash": "",
    "at_risk_rub_nano": None,
}
_PLAIN = {"session_id", "trace_id"}
_TEXT = {name for name, value in DEFAULTS.items() if isinstance(value, str)} | _PLAIN


def new_state(partition: int = 0) -> State:
    return State(partition, RULES)


def row(
    number: int, at_s: float = START, *, source: int = 0, offset: int | None = None, **changed: Any
) -> dict[str, Any]:
    """One priced row; `number` makes its id and, unless given, its source offset. `at_s` is its event time."""
    received = changed.pop("received_s", at_s)
    if "model" in changed:
        changed.setdefault("model_id", changed["model"])
    if "provider" in changed:
        changed["provider_id"] = changed.pop("provider")
    return {
        **DEFAULTS,
        "event_id": f"00000000-0000-4000-8000-{number:012x}",
        "event_time": round(at_s * 1_000_000),
        "received_at": round(received * 1_000),
        "src_partition": source,
        "src_offset": number if offset is None else offset,
        **changed,
    }


def frame(rows: list[dict[str, Any]], columns: Sequence[str] = COLUMNS_READ) -> pl.DataFrame:
    schema: dict[str, Any] = {name: pl.Int64 if name not in _TEXT | {"event_id"} else pl.String for name in columns}
    if "tags" in schema:
        schema["tags"] = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))
    made = pl.DataFrame(rows, schema=schema)
    return made.with_columns(
        pl.col("event_time").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        pl.col("received_at").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC"),
        pl.col("src_partition").cast(pl.UInt16),
        pl.col(*sorted(_TEXT - _PLAIN - {"prompt_hash"})).cast(
            pl.Categorical(pl.Categories.random())
        ),  # as PRICE does, for each record
    )
