"""Law: a commit never passes a batch that is not finished, whatever the order in which batches finish."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from itertools import takewhile
from types import SimpleNamespace

from aiokafka import TopicPartition
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from tollmeter.streams.engine.consumer import BatchMessage
from tollmeter.streams.engine.transport import BatchConsumer

TP0 = TP("usage.events", 0)


def consumer_without_broker() -> BatchConsumer:
    """The part of a consumer that keeps deliveries; nothing here touches the network."""
    consumer = BatchConsumer.__new__(BatchConsumer)
    consumer._inflight = defaultdict(deque)
    consumer._acked, consumer._acked_index = defaultdict(list), defaultdict(set)
    return consumer


def batch(first: int, size: int) -> BatchMessage:
    records = [
        SimpleNamespace(
            topic="usage.events", partition=0, offset=first + n, timestamp=1_000, timestamp_type=1, value=b"x"
        )
        for n in range(size)
    ]
    return BatchMessage(TP0, records, generation=1)


@given(st.lists(st.tuples(st.sampled_from(["deliver", "finish", "skip", "commit"]), st.integers(0, 9)), max_size=60))
def test_commit_is_the_finished_prefix(steps: list[tuple[str, int]]) -> None:
    consumer = consumer_without_broker()
    delivered: list[BatchMessage] = []
    next_offset, committed = 0, 0
    for action, number in steps:
        if action == "deliver":
            message = batch(next_offset, number + 1)
            next_offset = message.offset + 1
            delivered.append(message)
            consumer._inflight[TP0].append(message)
        elif action == "finish" and delivered:
            delivered[number % len(delivered)].finished = True
        elif action == "skip" and delivered:
            delivered[number % len(delivered)].acked = True  # Faust acks what its stream skips: no finish
        elif action == "commit":
            offset = consumer._new_offset(TP0)
            finished = list(takewhile(lambda message: message.finished, delivered))  # the oracle: from the start
            expected = finished[-1].offset + 1 if finished else 0
            assert (offset or committed) == expected
            committed = expected


def consumer_that_seeks(sought: list[TP], position: Callable[[TP], Awaitable[int]]) -> BatchConsumer:
    """A consumer of three partitions, of which two have nothing committed; its seeks are noted instead of sent."""
    consumer = consumer_without_broker()
    tps = [TP("usage.events", number) for number in range(3)]

    async def seek_to_beginning(*partitions: TopicPartition) -> None:
        assert all(isinstance(partition, TopicPartition) for partition in partitions)  # aiokafka refuses Faust's TP
        sought.extend(TP(*partition) for partition in partitions)

    async def committed() -> dict[TP, int | None]:
        return dict(zip(tps, (None, 0, 7), strict=True))

    async def before_reading(assigned: set[TP]) -> None:
        assert assigned == set(tps)

    async def starts(*_: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 0)

    async def ends(*_: TP) -> dict[TP, int]:
        return {tp: await position(tp) + 9 for tp in tps}

    async def other_logs(_: object) -> dict[TP, int]:
        return {}

    consumer._committed = consumer.leave_other_logs = other_logs  # type: ignore[assignment]
    stage = SimpleNamespace(own_position=False, assigned=other_logs)
    consumer.app = SimpleNamespace(consumer_generation_id=3, before_reading=before_reading, stage=stage)
    consumer.earliest_offsets, consumer.highwaters = starts, ends
    consumer._read_offset, consumer._committed_offset = defaultdict(lambda: None), defaultdict(lambda: None)
    consumer._drops, consumer._sought = 0, None
    consumer._thread = SimpleNamespace(seek_to_beginning=seek_to_beginning)
    consumer.assignment = lambda: set(tps)
    consumer.seek_to_committed = committed
    return consumer


def test_a_seek_goes_back_to_the_beginning_where_nothing_was_committed() -> None:
    """Records fetched and dropped in a rebalance are read again, also before the first commit of a partition."""
    sought: list[TP] = []

    async def position(tp: TP) -> int:
        return 0 if tp in sought else 7

    consumer = consumer_that_seeks(sought, position)
    asyncio.run(consumer.perform_seek())
    assert sorted(sought) == [TP("usage.events", 0), TP("usage.events", 1)]
    assert sorted(consumer._done.values()) == [0, 0, 7]
    assert consumer._sought == 3


def test_a_fetch_dropped_during_a_seek_is_sought_again() -> None:
    """The seek that was under way when records were dropped does not count: their position had passed already."""
    sought: list[TP] = []

    async def position(tp: TP) -> int:
        consumer._drop()  # a fetch of the last generation returns while the seek waits for the broker
        return 7

    consumer = consumer_that_seeks(sought, position)
    asyncio.run(consumer.perform_seek())
    assert consumer._sought is None
