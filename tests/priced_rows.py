"""Whole rows of `usage.priced` for tests: frames with the exact types of the contract, from short dicts."""

from datetime import UTC, datetime
from typing import Any

import polars as pl

from tollmeter.schemas.priced import PRICED_COLUMNS
from tollmeter.sinks.clickhouse.client import ClickHouse

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)

_PAIR = {"units": pl.Float64, "tags": pl.String}
_TYPES: dict[str, Any] = {
    "text": pl.String,
    "dict": pl.String,
    "i64": pl.Int64,
    "i32": pl.Int32,
    "u16": pl.UInt16,
    "bool": pl.Boolean,
    "ts_us": pl.Datetime("us", "UTC"),
    "ts_ms": pl.Datetime("ms", "UTC"),
    "date": pl.Date,
    **{kind: pl.List(pl.Struct({"key": pl.String, "value": value})) for kind, value in _PAIR.items()},
}
_EMPTY: dict[str, Any] = {
    "text": "",
    "dict": "",
    "i64": 0,
    "i32": 0,
    "u16": 0,
    "bool": False,
    "units": [],
    "tags": [],
    "ts_us": START,
    "ts_ms": START,
}

SCHEMA: dict[str, Any] = {column.name: _TYPES[column.kind.rstrip("?")] for column in PRICED_COLUMNS}
DEFAULTS: dict[str, Any] = {
    column.name: None if column.kind.endswith("?") else _EMPTY[column.kind] for column in PRICED_COLUMNS
}
"""A row where every field that may be absent is absent."""


def event_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def row(number: int, **changed: Any) -> dict[str, Any]:
    """One priced row; `number` makes its id."""
    unknown = changed.keys() - DEFAULTS.keys()
    assert not unknown, f"no such column: {unknown}"
    if named := changed.get("model_used") or changed.get("model_sent"):
        changed.setdefault("model", named)
    for name in ("model", "provider"):
        if name in changed:
            changed.setdefault(f"{name}_id", changed[name])
    return {**DEFAULTS, "event_id": event_id(number), **changed}


def frame(rows: list[dict[str, Any]], *, partition: int = 0, offset: int = 0) -> pl.DataFrame:
    """Rows as LEDGER inserts them: dictionary columns as categories, partition and offset of the record added."""
    repeated = [column.name for column in PRICED_COLUMNS if column.kind == "dict"]
    return pl.DataFrame(rows, schema=SCHEMA).with_columns(
        pl.col(repeated).cast(pl.Categorical),
        pl.lit(partition, pl.UInt16).alias("priced_partition"),
        pl.lit(offset, pl.UInt64).alias("priced_offset"),
    )


def ipc(rows: pl.DataFrame) -> bytes:
    """The frame as one Arrow IPC stream, lz4."""
    return rows.write_ipc_stream(None, compression="lz4").getvalue()


def insert(
    ledger: ClickHouse, rows: list[dict[str, Any]], *, partition: int = 0, offset: int = 0, at: datetime | None = None
) -> None:
    """Insert rows into usage_events as of one priced record; `at` another time than now, for the rollup."""
    made = frame(rows, partition=partition, offset=offset)
    if at is not None:
        made = made.with_columns(pl.lit(at, pl.Datetime("us", "UTC")).alias("inserted_at"))
    ledger.insert_arrow("usage_events", ipc(made), made.columns)
