"""Events as the frame that the price book reads: the columns of the priced record that a price depends on."""

from collections.abc import Iterable
from typing import Any, Protocol

import polars as pl

from tollmeter.streams.price.book.book import COUNTER_COLUMNS

_TEXTS = (
    *("provider", "model_sent", "model_used", "deployment", "api_host", "region", "operation"),
    *("service_tier", "processing", "status", "usage_source"),
)
SCHEMA: dict[str, Any] = {
    "event_time": pl.Datetime("us", "UTC"),
    **dict.fromkeys(_TEXTS, pl.String),
    **dict.fromkeys(COUNTER_COLUMNS, pl.Int64),
    "extra_units": pl.List(pl.Struct({"key": pl.String, "value": pl.Float64})),
    "est_cost_nano": pl.Int64,
    "prompt_chars": pl.Int32,
}


class Event(Protocol):
    """A usage event, or what has its fields."""

    @property
    def occurred_at(self) -> object: ...
    @property
    def extra_units(self) -> dict[str, float]: ...


def frame_of(events: Iterable[Event]) -> pl.DataFrame:
    """Return one row for each event."""
    rows = [
        {
            "event_time": event.occurred_at,
            **{name: getattr(event, name) for name in (*_TEXTS, *COUNTER_COLUMNS, "est_cost_nano", "prompt_chars")},
            "extra_units": [{"key": key, "value": value} for key, value in event.extra_units.items()],
        }
        for event in events
    ]
    return pl.DataFrame(rows, schema=SCHEMA)
