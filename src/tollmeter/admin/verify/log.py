"""What the log itself says: rows of usage.priced, dead letters and source records, as they come, never all at once."""

import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import polars as pl
from aiokafka import TopicPartition

from tollmeter.admin.verify.position import Position, reader
from tollmeter.admin.verify.sources import SourceMap
from tollmeter.broker.client import read_between
from tollmeter.broker.make import Consumer
from tollmeter.schemas import topics
from tollmeter.schemas.dead_letter import QUARANTINED, read_letter
from tollmeter.schemas.envelope import Corrected, Rows, read_envelope
from tollmeter.schemas.record import Record
from tollmeter.settings import Settings
from tollmeter.streams.rules.events.arrival import within_reach
from tollmeter.streams.rules.events.decode_avro import decode
from tollmeter.streams.rules.events.validate import validate

Advance = Callable[[int], None]

CONTENT = ("model_sent", "status", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
"""Columns that a resend must not change."""
COLUMNS = (
    "event_id",
    "event_time",
    "org_id",
    "src_partition",
    "src_offset",
    "revision",
    "received_at",
    "status",
    "cost_nano",
)
SCHEMA = pl.Schema(
    {
        "event_id": pl.String(),
        "event_time": pl.Datetime("us", "UTC"),
        "org_id": pl.String(),
        "src_partition": pl.UInt16(),
        "src_offset": pl.Int64(),
        "revision": pl.UInt16(),
        "received_at": pl.Datetime("ms", "UTC"),
        "status": pl.String(),
        "cost_nano": pl.Int64(),
        "content": pl.UInt64(),
        "priced_offset": pl.Int64(),
        "priced_partition": pl.UInt16(),
        "corrected": pl.Boolean(),
    }
)
DEEP_SCHEMA = pl.Schema({name: SCHEMA[name] for name in ("event_id", "event_time", "org_id")})
CHUNK = 20_000


async def read_rows(settings: Settings, position: Position, advance: Advance) -> AsyncIterator[pl.DataFrame]:
    """Yield the rows of usage.priced, record by record and in log order within a partition.

    Of a correction those are the rows that the ledger shall have. What is no priced record is passed over.
    """
    topic = settings.topic(topics.PRICED)
    async with reader(settings) as consumer:
        for number, end in position.priced_end.items():
            tp = TopicPartition(topic, number)
            async for record in read_between(consumer, tp, position.priced_from[number], end):
                advance(1)
                try:
                    match read_envelope(record):
                        case Rows(value=value):
                            yield _rows(record, value, corrected=False)
                        case Corrected(correction, value):
                            yield _rows(record, value, corrected=True)[correction.was :]
                except (ValueError, OSError, pl.exceptions.PolarsError):
                    continue  # LEDGER dead-letters it


def rows_replaced(record: Record) -> int:
    """Return how many rows of a record come first that say what was: none of one of PRICE."""
    envelope = read_envelope(record)
    return envelope.correction.was if isinstance(envelope, Corrected) else 0


def _rows(record: Record, value: bytes, *, corrected: bool) -> pl.DataFrame:
    frame = pl.read_ipc_stream(io.BytesIO(value), columns=list(dict.fromkeys((*COLUMNS, *CONTENT))))
    return frame.select(
        pl.col("event_id").cast(pl.String),
        "event_time",
        pl.col("org_id").cast(pl.String),
        "src_partition",
        "src_offset",
        "revision",
        "received_at",
        pl.col("status").cast(pl.String),
        "cost_nano",
        pl.concat_str([pl.col(name).cast(pl.String) for name in CONTENT], separator="\x1f").hash().alias("content"),
        pl.lit(record.offset, pl.Int64()).alias("priced_offset"),
        pl.lit(record.partition, pl.UInt16()).alias("priced_partition"),
        pl.lit(corrected).alias("corrected"),
    ).cast(SCHEMA)


@dataclass
class Letters:
    """Source records among the dead letters: of LEDGER, and those that kill who decodes them."""

    refused: list[tuple[int, int]] = field(default_factory=list)
    killers: set[tuple[int, int]] = field(default_factory=set)

    def refused_frame(self) -> pl.DataFrame:
        schema = {name: SCHEMA[name] for name in ("src_partition", "src_offset")}
        return pl.DataFrame(sorted(set(self.refused)), schema=schema, orient="row")


async def read_letters(settings: Settings, position: Position, sources: SourceMap) -> Letters:
    """Mark the source records that PRICE dead-lettered; return what else the dead letters say."""
    topic, events = settings.topic(topics.DLQ), settings.topic(topics.EVENTS)
    found = Letters()
    async with reader(settings) as consumer:
        for number, end in position.dlq_end.items():
            async for record in read_between(consumer, TopicPartition(topic, number), position.dlq_begin[number], end):
                try:
                    letter = read_letter(record.headers)
                except ValueError:  # nothing of ours
                    continue
                place = letter.place.partition, letter.place.offset
                if letter.place.topic != events or place[0] not in position.price_done:
                    continue
                if letter.stage == "price":
                    sources.reject(*place)
                elif letter.stage == "ledger":
                    found.refused.append(place)
                if letter.reason == QUARANTINED:
                    found.killers.add(place)
    return found


async def resolve(settings: Settings, sources: SourceMap, advance: Advance) -> None:
    """Look at the offsets nothing is known of, and mark those at which the source log holds no record."""
    topic = settings.topic(topics.EVENTS)
    async with reader(settings) as consumer:
        for number, offsets in list(sources.unaccounted()):
            tp = TopicPartition(topic, number)
            consumer.assign([tp])
            at = 0
            while at < len(offsets):
                consumer.seek(tp, offsets[at])
                held, until = await _stretch(consumer, tp, offsets[at], offsets[-1] + 1)
                while at < len(offsets) and offsets[at] < until:
                    if offsets[at] not in held:
                        sources.no_record(number, offsets[at])
                    at += 1
                advance(0)


async def _stretch(consumer: Consumer, tp: TopicPartition, begin: int, end: int) -> tuple[set[int], int]:
    """Return the offsets of records read from `begin` on, and up to where nothing else stands."""
    while True:
        found = (await consumer.getmany(tp, timeout_ms=1_000)).get(tp, [])
        until = await consumer.position(tp)
        if found or until > begin:
            return {record.offset for record in found}, max(until, begin + 1)
        if until >= end:
            return set(), end


async def read_sources(
    settings: Settings, begin: dict[int, int], position: Position, killers: set[tuple[int, int]], advance: Advance
) -> AsyncIterator[tuple[int, int, pl.DataFrame]]:
    """Read usage.events again and yield, by chunks, records, rejects and the identities of what is accepted."""
    topic = settings.topic(topics.EVENTS)
    async with reader(settings) as consumer:
        for number, end in position.price_done.items():
            chunk: list[tuple[bytes | None, Record]] = []
            async for record in read_between(consumer, TopicPartition(topic, number), begin[number], end):
                value = b"" if (number, record.offset) in killers else record.value
                chunk.append((value, record))
                if len(chunk) == CHUNK:
                    advance(CHUNK)
                    yield _judged(chunk)
                    chunk = []
            advance(len(chunk))
            yield _judged(chunk)


def _judged(records: list[tuple[bytes | None, Record]]) -> tuple[int, int, pl.DataFrame]:
    decoded = decode([value for value, _ in records])
    good = within_reach(validate(decoded.frame, decoded.index), [record for _, record in records])
    rows = good.frame.select(
        "event_id", pl.col("occurred_at").alias("event_time").cast(pl.Datetime("us", "UTC")), "org_id"
    )
    return len(records), len(decoded.rejects) + len(good.rejects), rows
