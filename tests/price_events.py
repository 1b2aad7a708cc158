"""Frames of events as PRICE hands them to the price book, from short dicts."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import polars as pl

from tests.exchange import dated
from tollmeter.streams.price.book.book import PriceBook, load

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)

SCHEMA: dict[str, Any] = {
    "event_time": pl.Datetime("us", "UTC"),
    **dict.fromkeys(
        (
            "provider",
            "model_sent",
            "model_used",
            "deployment",
            "api_host",
            "region",
            "operation",
            "service_tier",
            "processing",
            "status",
            "usage_source",
        ),
        pl.String,
    ),
    **dict.fromkeys(
        (
            "input_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "cache_write_1h_tokens",
            "output_tokens",
            "reasoning_tokens",
        ),
        pl.Int64,
    ),
    "extra_units": pl.List(pl.Struct({"key": pl.String, "value": pl.Float64})),
    "est_cost_nano": pl.Int64,
    "prompt_chars": pl.Int32,
}

DEFAULTS: dict[str, Any] = {
    **{name: "" if kind == pl.String else 0 for name, kind in SCHEMA.items()},
    "event_time": AT,
    "provider": "openai",
    "operation": "chat",
    "processing": "REALTIME",
    "status": "OK",
    "usage_source": "PROVIDER",
    "extra_units": [],
    "est_cost_nano": None,
    "prompt_chars": None,
}


@cache
def shipped_book() -> PriceBook:
    """The book with the rules that ship with the package."""
    return load(dated())


def frame(*rows: Mapping[str, Any]) -> pl.DataFrame:
    """Events with these fields and defaults for the rest; extra_units may be a dict."""
    full = [DEFAULTS | dict(row) for row in rows]
    for row in full:
        if isinstance(row["extra_units"], dict):
            row["extra_units"] = [{"key": key, "value": value} for key, value in row["extra_units"].items()]
    return pl.DataFrame(full, schema=SCHEMA)


def priced(book: PriceBook, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Price these events; one dict per row."""
    return book.price(frame(*rows)).to_dicts()


def price_one_of(book: PriceBook, **fields: Any) -> dict[str, Any]:
    """Price one event."""
    return priced(book, [fields])[0]
