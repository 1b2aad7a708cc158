"""Corrections of many slices over one connection: all there when the `with` ends, and what fails is said in a line."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.contracts.test_reprice import Record, event
from tests.exchange import dated
from tests.usage_rows import avro
from tollmeter.admin.corrections import CorrectionError, Plan
from tollmeter.admin.reprice import last_of, parts_of
from tollmeter.admin.sending import sending
from tollmeter.broker.client import kafka_consumer, read_all
from tollmeter.broker.layout import read_layout
from tollmeter.schemas import topics
from tollmeter.schemas.envelope import Corrected, read_envelope
from tollmeter.settings import Settings
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load
from tollmeter.streams.rules.records.decode import PricedBlock, read
from tollmeter.streams.rules.windows.amend import Part, repriced

pytestmark = pytest.mark.stack
SLICES, ROWS = 4, 50


def slices() -> list[list[Part]]:
    """Return the parts of slices, each of calls of its own, of two organisations."""
    book, made = load(dated()), []
    for number in range(SLICES):
        events = [event(at) for at in range(number * ROWS, (number + 1) * ROWS)]
        rows = price_batch([[Record(at, avro(one)) for at, one in enumerate(events)]], book).rows
        now, _ = repriced(rows, book.price)
        made.append(parts_of(rows, now))
    return made


async def corrected(settings: Settings) -> list[str]:
    """Return the ids of all calls that are corrected on the log, as often as they are."""
    layout, topic = await read_layout(settings), settings.topic(topics.PRICED)
    found = []
    async with kafka_consumer(settings) as consumer:
        places = [TopicPartition(topic, number) for number in range(layout.priced)]
        consumer.assign(places)
        async for record in read_all(consumer, places):
            envelope: Any = read_envelope(record)
            if isinstance(envelope, Corrected):
                rows = read(PricedBlock(record.partition, record.offset, envelope.value))
                found += rows["event_id"].cast(str).to_list()[envelope.correction.was :]
    return found


def test_every_slice_is_there_when_it_ends(line_settings: Settings) -> None:
    wanted = [event_id for parts in slices() for part in parts for event_id in part.now["event_id"]]
    with sending(line_settings, "test") as send:
        for parts in slices():
            send(parts)
    assert sorted(asyncio.run(corrected(line_settings))) == sorted(wanted)
    assert len(wanted) == SLICES * ROWS


def test_the_last_call_of_each_organisation_is_waited_for() -> None:
    """Also of one that only an earlier slice has: another partition may be behind."""
    first, second = slices()[:2]
    only = [part for part in second if part.org_id == "org1"]
    last = last_of(only, last_of(first, Plan()))
    ends = {row["org_id"]: row["event_id"] for row in last.revisions.values()}
    org0, org1 = first[0].now["event_id"][-1], only[0].now["event_id"][-1]
    assert (first[0].org_id, ends) == ("org0", {"org0": org0, "org1": org1})


def test_nothing_sent_asks_nobody(line_settings: Settings) -> None:
    with sending(line_settings.model_copy(update={"kafka": "127.0.0.1:9"}), "test"):
        pass


def test_a_broker_that_is_away_is_one_line(line_settings: Settings) -> None:
    away = line_settings.model_copy(update={"kafka": "127.0.0.1:9"})
    parts = slices()[0]
    with (
        pytest.raises(CorrectionError, match="no Kafka broker answers at") as refused,
        sending(away, "x") as send,
    ):
        send(parts)
    assert "\n" not in str(refused.value)


def test_what_the_caller_raises_rises(line_settings: Settings) -> None:
    with pytest.raises(OSError, match="disk"), sending(line_settings, "test"):
        raise OSError("disk")
