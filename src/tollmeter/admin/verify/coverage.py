"""Coverage is a function of the log of priced records: written again it says what LEDGER said."""

import asyncio

from aiokafka import TopicPartition

from tollmeter.admin.verify.position import reader
from tollmeter.broker.client import read_all
from tollmeter.broker.layout import read_layout
from tollmeter.schemas import topics
from tollmeter.schemas.envelope import Rows, read_envelope
from tollmeter.schemas.record import Record
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.streams.ledger.rows import COVERAGE_COLUMNS, CoverageRow

_AT_ONCE = 20_000


async def refill(settings: Settings, client: ClickHouse) -> int:
    """Insert the coverage of every priced record that the log keeps, and return how many rows that are.

    What is there already stays: a row is known by its priced record and source partition.
    """
    layout, waiting, count = await read_layout(settings), list[CoverageRow](), 0
    places = [TopicPartition(settings.topic(topics.PRICED), number) for number in range(layout.priced)]
    async with reader(settings) as consumer:
        async for record in read_all(consumer, places):
            waiting += _rows(record)
            if len(waiting) >= _AT_ONCE:
                count += await _insert(client, waiting)
                waiting = []
    return count + await _insert(client, waiting)


async def _insert(client: ClickHouse, rows: list[CoverageRow]) -> int:
    await asyncio.to_thread(client.insert_rows, "ledger_coverage", COVERAGE_COLUMNS, rows)
    return len(rows)


def _rows(record: Record) -> list[CoverageRow]:
    envelope = read_envelope(record)
    if not isinstance(envelope, Rows):
        return []
    try:
        return [(record.partition, record.offset, *one) for one in envelope.coverage()]
    except (KeyError, ValueError, TypeError):
        return []  # LEDGER dead-letters it
