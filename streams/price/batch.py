"""One batch of source records, priced by whole columns: decode, validate, price; what is no event keeps its reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from tollmeter.broker.unpack import BATCH_BYTES
from tollmeter.schemas.dead_letter import NOT_UNPACKED, QUARANTINED
from tollmeter.schemas.envelope import Source
from tollmeter.schemas.record import UNREADABLE, Place, Record
from tollmeter.schemas.times import is_backfill
from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.rules.events.arrival import within_reach
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
    records = [record for batch in batches for record in batch]
    values, aside = _set_aside(records, quarantined)
    decoded = decode(values)
    good = within_reach(validate(decoded.frame, decoded.index), records)
    found = [aside.get(reject.position, reject) for reject in decoded.rejects] + good.rejects
    rejects = [_not_unpacked(reject) if records[reject.position].value is UNREADABLE else reject for reject in found]
    at = [records[position] for position in good.index]
    events = event_columns(
        good.frame,
        pl.Series("src_partition", [record.partition for record in at], dtype=pl.UInt16),
        pl.Series("src_offset", [record.offset for record in at], dtype=pl.Int64),
        pl.Series("received_at", [record.timestamp for record in at], dtype=pl.Int64),
    )
    by_header = pl.Series([bool(record.headers) and is_backfill(record.headers) for record in at], dtype=pl.Boolean)
    events = events.with_columns((by_header | good.frame["backfill"]).alias("backfill")).with_columns(FLAGS)
    rejected = Counter(records[reject.position].partition for reject in rejects)
    return PricedBatch(records, priced_columns(events, book.price(events)), rejects, _sources(batches, rejected))


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
    records: Sequence[Record], quarantined: Mapping[Place, str]
) -> tuple[list[bytes | None], dict[int, Reject]]:
    """Return the values to decode, and by position what is said instead of those that must not be."""
    values = [record.value for record in records]
    if not quarantined:
        return values, {}
    aside = {
        at: Reject(at, QUARANTINED, quarantined[place])
        for at, record in enumerate(records)
        if (place := (record.partition, record.offset)) in quarantined
    }
    for at in aside:
        values[at] = None
    return values, aside
