"""One batch of source records, priced by whole columns: decode, validate, price; what is no event keeps its reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import polars as pl

from tollmeter.broker.fetched import OFFSET, VALUE, Joined, entries_of
from tollmeter.broker.unpack import BATCH_BYTES
from tollmeter.schemas.dead_letter import NOT_UNPACKED, QUARANTINED
from tollmeter.schemas.envelope import Source
from tollmeter.schemas.record import UNREADABLE, Entry, Place, Record
from tollmeter.schemas.times import is_backfill
from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.rules.events.arrival import picked, within_reach
from tollmeter.streams.rules.events.decode_avro import Reject, decode
from tollmeter.streams.rules.events.validate import FLAGS, validate
from tollmeter.streams.rules.records.encode import (
    Block,
    blocks,
    by_target,
    encoded,
    event_columns,
    priced_columns,
)

NOTHING: Mapping[Place, str] = {}
_TIMESTAMP, _HEADERS = attrgetter("timestamp"), attrgetter("headers")


class PricedBatch(NamedTuple):
    """What became of the records of one batch."""

    records: Sequence[Record]
    rows: pl.DataFrame
    """In the columns of the contract, in the order of the records."""
    rejects: list[Reject]
    """What is no event, by its position among the records."""
    sources: list[Source]

    def blocks(self, partitions: int, book_id: str, boot: str) -> dict[int, list[Block]]:
        """Return the records to send to each target. A batch without rows still says what it has read, in target 0."""
        rows = encoded(self.rows)
        targets = by_target(rows, partitions) if rows.height else {0: rows}
        return {target: blocks(rows, self.sources, book_id, boot) for target, rows in targets.items()}

    @property
    def accepted(self) -> int:
        return self.rows.height

    @property
    def unpriced(self) -> int:
        return int(self.rows["cost_nano"].null_count())


def price_batch(
    batches: Sequence[Sequence[Record]], book: PriceBook, quarantined: Mapping[Place, str] = NOTHING
) -> PricedBatch:
    """Price source records: each part of one partition, in offset order; those in quarantine are not decoded."""
    records, entries = Joined(batches), list(chain.from_iterable(map(entries_of, batches)))
    partitions = _partitions(batches)
    values, aside = _set_aside(partitions, entries, quarantined)
    decoded = decode(values)
    good = within_reach(validate(decoded.frame, decoded.index), entries)
    found = [aside.get(reject.position, reject) for reject in decoded.rejects] + good.rejects
    rejects = [_not_unpacked(reject) if entries[reject.position].value is UNREADABLE else reject for reject in found]
    at = picked(entries, good.index)
    events = event_columns(
        good.frame,
        partitions if len(at) == len(entries) else partitions[good.index],
        pl.Series(list(map(OFFSET, at)), dtype=pl.Int64),
        pl.Series(list(map(_TIMESTAMP, at)), dtype=pl.Int64),
    )
    events = events.with_columns((_marked(at) | good.frame["backfill"]).alias("backfill")).with_columns(FLAGS)
    rejected = Counter(partitions[[reject.position for reject in rejects]].to_list())
    return PricedBatch(records, priced_columns(events, book.price(events)), rejects, _sources(batches, rejected))


def _partitions(batches: Sequence[Sequence[Record]]) -> pl.Series:
    """Return the partition of every record."""
    numbers = [batch[0].partition for batch in batches]
    return pl.Series(np.repeat(np.array(numbers, dtype=np.uint16), list(map(len, batches))), dtype=pl.UInt16)


def _marked(entries: Sequence[Entry]) -> pl.Series:
    """Tell of each record whether its headers mark it as brought in afterwards; hardly any has some."""
    headers = list(map(_HEADERS, entries))
    marks = [bool(some) and is_backfill(some) for some in headers] if any(headers) else [False] * len(headers)
    return pl.Series(marks, dtype=pl.Boolean)


def _not_unpacked(reject: Reject) -> Reject:
    return Reject(reject.position, NOT_UNPACKED, f"its batch unpacks to more than {BATCH_BYTES} bytes, or not at all")


def _sources(batches: Sequence[Sequence[Record]], rejected: Mapping[int, int]) -> list[Source]:
    sources: dict[int, Source] = {}
    for batch in batches:
        first, last = batch[0], batch[-1]
        known = sources.get(first.partition)
        if known is None:
            known = Source(first.partition, first.offset, last.offset, 0, rejected.get(first.partition, 0))
        sources[first.partition] = known._replace(last_offset=last.offset, records=known.records + len(batch))
    return list(sources.values())


def _set_aside(
    partitions: pl.Series, entries: Sequence[Entry], quarantined: Mapping[Place, str]
) -> tuple[list[bytes | None], dict[int, Reject]]:
    """Return the values to decode, and by position what is said instead of those that must not be."""
    values = list(map(VALUE, entries))
    if not quarantined:
        return values, {}
    places = zip(partitions.to_list(), map(OFFSET, entries), strict=True)
    aside = {at: Reject(at, QUARANTINED, quarantined[place]) for at, place in enumerate(places) if place in quarantined}
    for at in aside:
        values[at] = None
    return values, aside
