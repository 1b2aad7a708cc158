"""What the log itself says: rows of usage.priced and dead letters, read up to a position, as columns."""

import io
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import polars as pl
from aiokafka import AIOKafkaConsumer, TopicPartition

from tollmeter.schemas import topics
from tollmeter.schemas.priced import H_KIND, KIND_ROWS
from tollmeter.settings import Settings
from tollmeter.verify.position import Position, reader

Advance = Callable[[int], None]

CONTENT = ("model_sent", "status", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
"""Columns that a resend must not change."""
COLUMNS = ("event_id", "event_time", "org_id", "src_partition", "src_offset", "revision", "received_at", "cost_nano")
SCHEMA = pl.Schema({
    "event_id": pl.String(), "event_time": pl.Datetime("us", "UTC"), "org_id": pl.String(),
    "src_partition": pl.UInt16(),
    "src_offset": pl.Int64(), "revision": pl.UInt16(), "received_at": pl.Datetime("ms", "UTC"), "cost_nano": pl.Int64(),
    "content": pl.UInt64(), "priced_offset": pl.Int64(),
})  # fmt: skip


async def read_targets(
    settings: Settings, position: Position, advance: Advance
) -> AsyncIterator[tuple[int, pl.DataFrame]]:
    """Yield the rows of each partition of usage.priced in log order. `advance` hears how many records were read."""
    topic = settings.topic(topics.PRICED)
    async with reader(settings) as consumer:
        for number, end in position.priced_end.items():
            frames = [pl.DataFrame(schema=SCHEMA)]
            async for record in records(consumer, TopicPartition(topic, number), position.priced_begin[number], end):
                advance(1)
                if dict(record.headers).get(H_KIND) == KIND_ROWS:
                    frames.append(_rows(record))
            yield number, pl.concat(frames)


def _rows(record: Any) -> pl.DataFrame:
    frame = pl.read_ipc_stream(io.BytesIO(record.value), columns=[*COLUMNS, *CONTENT])
    return frame.select(
        pl.col("event_id").cast(pl.String()), "event_time", pl.col("org_id").cast(pl.String()), "src_partition",
        "src_offset", "revision", "received_at", "cost_nano",
        pl.concat_str([pl.col(name).cast(pl.String()) for name in CONTENT], separator="\x1f").hash().alias("content"),
        pl.lit(record.offset, pl.Int64()).alias("priced_offset"),
    ).cast(SCHEMA)  # fmt: skip


async def read_rejected(settings: Settings, position: Position) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """Return the source offsets per source partition that PRICE dead-lettered, and those that LEDGER did."""
    topic, events = settings.topic(topics.DLQ), settings.topic(topics.EVENTS).encode()
    found: dict[bytes, dict[int, set[int]]] = {b"price": defaultdict(set), b"ledger": defaultdict(set)}
    async with reader(settings) as consumer:
        for number, end in position.dlq_end.items():
            async for record in records(consumer, TopicPartition(topic, number), position.dlq_begin[number], end):
                headers = dict(record.headers)
                stage = found.get(headers.get("stage", b""))
                if stage is not None and headers.get("source_topic") == events:
                    stage[int(headers["source_partition"])].add(int(headers["source_offset"]))
    return found[b"price"], found[b"ledger"]


async def records(consumer: AIOKafkaConsumer, tp: TopicPartition, begin: int, end: int) -> AsyncIterator[Any]:
    """Yield the records of a partition in [begin, end)."""
    if begin >= end:
        return
    consumer.assign([tp])
    consumer.seek(tp, begin)
    while (await consumer.position(tp)) < end:
        for record in (await consumer.getmany(tp, timeout_ms=1_000)).get(tp, []):
            if record.offset < end:
                yield record
