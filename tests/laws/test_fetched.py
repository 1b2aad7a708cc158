"""Laws: records left as they were parsed are those that aiokafka hands over, whatever the batches hold, and damaged.

Both roads read the same bytes: upstream's, a record object each, and ours, looked at only where somebody asks.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.usage_rows import any_event, as_json, avro, fields
from tollmeter.broker import unpack
from tollmeter.broker.fetched import Fetched, Joined, as_is
from tollmeter.schemas.record import UNREADABLE
from tollmeter.settings import Settings
from tollmeter.streams.price.batch import price_batch
from tollmeter.streams.price.book.book import load

BOOK = load(Settings())
TP = TopicPartition("t", 3)
APPENDED_MS = 1_780_000_000_000
BEGIN = 1_000
NO_PRODUCER, COMMITTED, ABORTED = -1, 5, 6
LOG_APPEND_TIME, CONTROL, ABORT, COMMIT = 0x08, 0x20, 0, 1
HEADERS: list[list[tuple[str, bytes | None]]] = [
    [],
    [("tollmeter-backfill", b"1")],
    [("traceparent", b"00-1"), ("x", None)],
    [("ä", b"")],
]


class One(NamedTuple):
    """A record as its producer sends it, so many offsets behind the one before (more than one after compaction)."""

    step: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Batch(NamedTuple):
    codec: int
    producer: int
    append_time: bool
    records: list[One]
    damage: str
    at: int


def sealed(wire: bytearray) -> bytes:
    """Return the batch with the length and checksum of what it holds now."""
    wire[8:12] = struct.pack(">i", len(wire) - 12)
    wire[17:21] = struct.pack(">I", calc_crc32c(bytes(wire[21:])))
    return bytes(wire)


def written(batch: Batch, base: int) -> tuple[bytes, int]:
    """Return the bytes of a batch and the offset behind it."""
    transactional = batch.producer != NO_PRODUCER
    codec = 0 if batch.damage in ("varint", "body") else batch.codec
    builder = DefaultRecordBatchBuilder(2, codec, transactional, batch.producer, 0, 0, 1 << 30)
    offset = -1
    for one in batch.records:
        offset += one.step
        builder.append(offset, APPENDED_MS + offset, one.key, one.value, one.headers)
    wire = bytearray(builder.build())
    wire[:8] = struct.pack(">q", base)
    if batch.append_time:
        wire[22] |= LOG_APPEND_TIME
    if batch.damage == "varint":  # a length of more than 64 bits
        wire[61:61] = b"\xff" * 11
    elif batch.damage == "body":
        wire[61 + batch.at % (len(wire) - 61)] ^= 1 + batch.at % 255
    elif batch.damage == "cut":
        del wire[61 + batch.at % (len(wire) - 61) :]
    elif batch.damage == "more":
        wire += b"\0\x01"
    elif batch.damage == "offset delta":
        struct.pack_into(">i", wire, 23, offset + batch.at % 3)
    found = sealed(wire)
    if batch.damage == "checksum":
        found = found[:-1] + bytes([found[-1] ^ 1])
    return found, base + max(1, offset + 1 + (batch.at % 3 if batch.damage == "offset delta" else 0))


def marker(producer: int, kind: int, base: int) -> bytes:
    """Return the control batch that ends a transaction."""
    builder = DefaultRecordBatchBuilder(2, 0, True, producer, 0, 0, 1 << 20)
    builder.append(0, APPENDED_MS, struct.pack(">hh", 0, kind), b"", [])
    wire = bytearray(builder.build())
    wire[:8] = struct.pack(">q", base)
    wire[22] |= CONTROL
    return sealed(wire)


def log_of(batches: Sequence[Batch]) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the bytes of a fetch and its aborted transactions (producer, first offset), each ended at once."""
    parts, aborted, base = [], [], BEGIN
    for batch in batches:
        wire, end = written(batch, base)
        parts.append(wire)
        if batch.producer != NO_PRODUCER:
            if batch.producer == ABORTED:
                aborted.append((batch.producer, base))
            parts.append(marker(batch.producer, ABORT if batch.producer == ABORTED else COMMIT, end))
            end += 1
        base = end
    return b"".join(parts), aborted


class Assignment:
    """One partition that is ours, and where its reader stands."""

    active, paused = True, False

    def __init__(self, position: int) -> None:
        self.position = position

    def state_value(self, tp: object) -> "Assignment":
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


class Read(NamedTuple):
    records: list[Any]
    position: int
    error: str


def read(wire: bytes, aborted: list[tuple[int, int]], position: int, most: int | None, how: Any) -> Read:
    """Read a fetch to its end or its first fault."""
    unpack.bound()
    state, found, error = Assignment(position), list[Any](), ""
    records = fetcher.PartitionRecords(TP, MemoryRecords(wire), list(aborted), position, None, how, True, 1)
    result = fetcher.FetchResult(TP, assignment=state, partition_records=records, backoff=0)
    try:
        while result.has_more():
            part = result.getall(most)
            assert most is None or len(part) <= most
            assert isinstance(part, Fetched) == (how is as_is)
            found += part
            assert not part or state.position > part[-1].offset
    except Exception as fault:
        error = type(fault).__name__
    return Read(found, state.position, error)


values = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.just(b" " * 3_000),
    st.builds(avro, any_event()),
    st.builds(as_json, any_event()),
    st.just(avro(fields(1))),
)
ones = st.builds(
    One, st.sampled_from([1, 1, 1, 2, 7]), st.none() | st.binary(max_size=9), values, st.sampled_from(HEADERS)
)
whole = st.builds(
    Batch,
    st.integers(0, 4),
    st.sampled_from([NO_PRODUCER, NO_PRODUCER, COMMITTED, ABORTED]),
    st.booleans(),
    st.lists(ones, min_size=1, max_size=6),
    st.just(""),
    st.just(0),
)
DAMAGE = ["checksum", "varint", "body", "cut", "more", "offset delta"]
damaged = st.builds(
    lambda batch, damage, at: batch._replace(damage=damage, at=at),
    whole,
    st.sampled_from(DAMAGE),
    st.integers(0, 5_000),
)
starts, mosts = st.integers(BEGIN, BEGIN + 12), st.none() | st.integers(1, 7)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some batches here are too large when unpacked."""
    monkeypatch.setattr(unpack, "BATCH_BYTES", 6_000)


def law(**effort: Any) -> settings:
    return settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], **effort)


@given(st.lists(whole, min_size=1, max_size=5), starts, mosts)
@law(max_examples=examples(120))
def test_both_roads_read_the_same(batches: list[Batch], position: int, most: int | None) -> None:
    """Compressions, keys, headers, tombstones, gaps, transactions, too large to unpack, starts in the middle."""
    wire, aborted = log_of(batches)
    theirs, ours = (read(wire, aborted, position, most, how) for how in (None, as_is))
    assert ours == theirs
    assert ours.error == ""
    assert [one.value is UNREADABLE for one in ours.records] == [one.value is UNREADABLE for one in theirs.records]


@given(st.lists(whole, max_size=2), damaged, st.lists(whole, max_size=2), starts, mosts)
@law(max_examples=examples(200))
def test_damage_is_the_same_fault(
    before: list[Batch], bad: Batch, after: list[Batch], position: int, most: int | None
) -> None:
    """What lies before a broken batch is handed over, and nothing of it. Upstream may keep the one back in front of the
    fault, or hand over some of the other, as many as it is asked for at a time.
    """
    wire, aborted = log_of([*before, bad, *after])
    theirs, ours = (read(wire, aborted, position, most, how) for how in (None, as_is))
    assert ours.error == theirs.error
    if not ours.error:
        assert ours == theirs
    else:
        assert ours.records == read(*log_of(before), position, most, as_is).records
        both = min(len(ours.records), len(theirs.records))
        assert ours.records[:both] == theirs.records[:both]


def test_a_fault_is_told_once_what_lies_before_it_was_handed_over() -> None:
    one = One(1, None, b"x", [])
    good = Batch(0, NO_PRODUCER, False, [one, one], "", 0)
    for most in (None, 1, 2, 3, 10_000):
        found = read(*log_of([good, good._replace(damage="checksum")]), BEGIN, most, as_is)
        assert ([record.offset for record in found.records], found.position) == ([BEGIN, BEGIN + 1], BEGIN + 2)
        assert found.error == "CorruptRecordException"


@given(st.lists(whole, min_size=1, max_size=5), mosts)
@law(max_examples=examples(60))
def test_both_price_the_same(batches: list[Batch], most: int | None) -> None:
    """Rows, rejects with their reasons, letters' records, coverage."""
    wire, aborted = log_of(batches)
    theirs, ours = (read_parts(wire, aborted, most, how) for how in (None, as_is))
    if not any(theirs):
        return
    theirs, ours = [part for part in theirs if part], [part for part in ours if part]
    quarantined = {(TP.partition, theirs[0][0].offset): "ends the process"}
    for aside in ({}, quarantined):
        one, two = price_batch(theirs, BOOK, aside), price_batch(ours, BOOK, aside)
        assert one.rows.equals(two.rows)
        assert (one.rejects, one.sources) == (two.rejects, two.sources)
        assert list(one.records) == list(two.records)
        assert [one.records[reject.position] for reject in one.rejects] == [
            two.records[reject.position] for reject in two.rejects
        ]


def read_parts(wire: bytes, aborted: list[tuple[int, int]], most: int | None, how: Any) -> list[Sequence[Any]]:
    unpack.bound()
    records = fetcher.PartitionRecords(TP, MemoryRecords(wire), list(aborted), BEGIN, None, how, True, 1)
    result = fetcher.FetchResult(TP, assignment=Assignment(BEGIN), partition_records=records, backoff=0)
    parts = []
    while result.has_more():
        parts.append(result.getall(most))
    return parts


def test_a_pause_in_the_middle_of_a_batch_loses_nothing() -> None:
    """What was parsed and not handed over is fetched again: the position stands in front of it."""
    unpack.bound()
    wire, _ = log_of([Batch(0, NO_PRODUCER, True, [One(1, None, b"%d" % at, []) for at in range(6)], "", 0)])
    state = Assignment(BEGIN)
    records = fetcher.PartitionRecords(TP, MemoryRecords(wire), [], BEGIN, None, as_is, True, 1)
    result = fetcher.FetchResult(TP, assignment=state, partition_records=records, backoff=0)
    assert [record.value for record in result.getall(4)] == [b"0", b"1", b"2", b"3"]
    assert state.position == BEGIN + 4
    state.paused = True  # type: ignore[misc]
    assert result.getall(4) == []
    assert not result.has_more()
    again = read(wire, [], state.position, None, as_is)
    assert [record.value for record in again.records] == [b"4", b"5"]


def test_joined_records_stand_at_their_places() -> None:
    parts = [["a", "b"], ["c"], ["d", "e", "f"]]
    joined: Any = Joined(parts)  # type: ignore[arg-type]
    assert [joined[at] for at in range(6)] == list(joined) == list("abcdef")
    assert (joined[-1], joined[1:4], len(joined), len(Joined([]))) == ("f", ["b", "c", "d"], 6, 0)
    with pytest.raises(IndexError):
        joined[6]
