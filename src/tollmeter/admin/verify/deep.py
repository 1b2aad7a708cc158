"""The source log read and judged again, record by record: what the line says of it must come out the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from tollmeter.admin.verify.count import Difference
from tollmeter.admin.verify.log import DEEP_SCHEMA, read_sources
from tollmeter.admin.verify.position import Position
from tollmeter.admin.verify.spill import Spill
from tollmeter.settings import Settings

NAMES = ("records", "accepted", "rejected", "distinct", "resends")


class Counted(Protocol):
    """What the line says: records, accepted, rejected, distinct, resends."""

    records: int
    accepted: int
    rejected: int
    distinct: int
    resends: int


async def recount(
    settings: Settings,
    begin: dict[int, int],
    at: Position,
    killers: set[tuple[int, int]],
    folder: Path,
    buckets: int,
    said: Counted,
    start: Callable[[int], Any],
) -> tuple[dict[str, int], list[Difference]]:
    """Return what the source log holds by this count, and where the line's count differs from it."""
    advance = start(sum(max(0, end - begin[number]) for number, end in at.price_done.items()))
    spill = Spill(folder, "deep", buckets, DEEP_SCHEMA)
    counted = dict.fromkeys(NAMES, 0)
    async for records, rejected, rows in read_sources(settings, begin, at, killers, advance):
        counted["records"] += records
        counted["rejected"] += rejected
        counted["accepted"] += rows.height
        spill.add(rows)
    for bucket in range(buckets):
        rows = spill.read(bucket)
        before = pl.int_range(pl.len()).over(list(DEEP_SCHEMA))
        counted["distinct"] += rows.n_unique() if rows.height else 0
        counted["resends"] += int(rows.select((before > 0).sum()).item())
    waiting = at.waiting("price")
    found = []
    for name in NAMES:
        line = getattr(said, name) - (waiting if name == "records" else 0)
        if line != counted[name]:
            text = f"the source log holds {counted[name]}, the line counted {line}"
            found.append(Difference(f"deep_{name}", "all", abs(line - counted[name]), text))
    return counted, found
