"""An event is filed under its own time only within 400 days of its arrival, or when it is marked as backfill.

Any other is refused: it would be priced in a wrong year, outside every budget, report and alert.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol, TypeVar

import polars as pl

from tollmeter.schemas.times import H_BACKFILL, REACH_DAYS, is_backfill
from tollmeter.streams.rules.events.decode_avro import Reject
from tollmeter.streams.rules.events.validate import Validated

T = TypeVar("T")

DAY_US = 86_400_000_000
REACH_US = REACH_DAYS * DAY_US
_TIMESTAMP = attrgetter("timestamp")


class Arrived(Protocol):
    """What is asked of a source record; `timestamp` is its append time in milliseconds since 1970."""

    @property
    def timestamp(self) -> int: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


def picked(items: Sequence[T], index: Sequence[int]) -> Sequence[T]:
    """Return the items at these ascending positions; mostly they are all."""
    return items if len(index) == len(items) else [items[at] for at in index]


def within_reach(good: Validated, records: Sequence[Arrived]) -> Validated:
    """Keep the valid rows that are near their arrival or backfill; `records` are all of the batch, by position."""
    arrived_us = pl.Series(list(map(_TIMESTAMP, picked(records, good.index))), dtype=pl.Int64) * 1_000
    late_us = arrived_us - good.frame["occurred_at"]
    far = (~late_us.is_between(-REACH_US, REACH_US)).arg_true().to_list()
    marked = good.frame["backfill"]
    bad = {row for row in far if not (marked[row] or is_backfill(records[good.index[row]].headers))}
    if not bad:
        return good
    rejects = [Reject(good.index[row], "time_out_of_range", _detail(late_us[row])) for row in sorted(bad)]
    keep = [row for row in range(good.frame.height) if row not in bad]
    return Validated(good.frame[keep], [good.index[row] for row in keep], good.rejects + rejects)


def _detail(late_us: int) -> str:
    side = "before" if late_us > 0 else "after"
    return (
        f"occurred_at, in microseconds since 1970, is {abs(late_us) // DAY_US} days {side} the event arrived; "
        f"at most {REACH_DAYS} are taken, unless it is marked as backfill (field backfill, header {H_BACKFILL})"
    )
