"""The end of usage.priced, read along: the last hour first, then what comes. Needs Kafka alone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import polars as pl
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tollmeter.broker.client import BrokerAway, BrokerError, kafka_consumer
from tollmeter.broker.layout import read_layout
from tollmeter.broker.make import Consumer
from tollmeter.schemas import topics
from tollmeter.schemas.control import Tick
from tollmeter.schemas.envelope import Rows, read_envelope
from tollmeter.schemas.record import Record
from tollmeter.settings import Settings
from tollmeter.streams.rules.records.decode import PricedBlock, read
from tollmeter.streams.rules.windows.dimensions import KEPT_S
from tollmeter.streams.rules.windows.recent import COLUMNS, Recent

_AT_ONCE = 500
"""Records of one look."""


class Tail:
    """Reads along into `recent`; `caught_up` once it stands where the log ended when it began."""

    def __init__(self, consumer: Consumer, ends: dict[TopicPartition, int]) -> None:
        self._consumer, self._ends = consumer, ends
        self.recent = Recent()
        self.unreadable = 0
        """Records that were no priced rows, or of a newer format: their calls are missing here."""

    async def step(self, timeout_ms: int = 500) -> bool:
        """Read what there is; return whether the end has been reached. Raises `BrokerError`."""
        try:
            found = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=_AT_ONCE)
            records = [record for part in found.values() for record in part]
            if records:
                await asyncio.to_thread(self._fold, records)
            for tp in [tp for tp, end in self._ends.items() if await self._consumer.position(tp) >= end]:
                del self._ends[tp]
        except (KafkaError, OSError) as error:
            raise BrokerError(f"the log cannot be read: {type(error).__name__}") from error
        return not self._ends

    async def catch_up(self) -> None:
        """Read to where the log ended at the beginning."""
        while not await self.step():
            pass

    def _fold(self, records: list[Record]) -> None:
        frames = []
        for record in records:
            match read_envelope(record):
                case Rows(value=value):
                    try:
                        frames.append(read(PricedBlock(record.partition, record.offset, value)).select(COLUMNS))
                    except ValueError:
                        self.unreadable += 1
                case Tick(clocks=clocks):
                    self.recent.tick(clocks)
        if frames:
            texts = [frame.with_columns(pl.col(pl.Categorical).cast(pl.String)) for frame in frames]
            self.recent.add(pl.concat(texts), time.time())


@asynccontextmanager
async def tail(settings: Settings) -> AsyncIterator[Tail]:
    """Open the log an hour before its end. Raises `BrokerError`, `ProvisionError`."""
    topic = settings.topic(topics.PRICED)
    layout = await read_layout(settings)
    try:
        async with kafka_consumer(settings, timeout_ms=10_000) as consumer:
            tps = [TopicPartition(topic, number) for number in range(layout.priced)]
            consumer.assign(tps)
            since_ms = int((time.time() - KEPT_S) * 1000)
            begins = await consumer.offsets_for_times(dict.fromkeys(tps, since_ms))
            ends = await consumer.end_offsets(tps)
            for tp in tps:
                found = begins.get(tp)
                consumer.seek(tp, ends[tp] if found is None else found.offset)
            yield Tail(consumer, {tp: end for tp, end in ends.items() if begins.get(tp) is not None})
    except (KafkaError, OSError) as error:
        raise BrokerAway(settings, error) from error
