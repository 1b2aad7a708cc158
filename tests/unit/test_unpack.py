"""A batch that would unpack to gigabytes takes bounded memory, its neighbours are read, all others read as before."""

import gzip

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from tollmeter.broker import unpack
from tollmeter.schemas.record import UNREADABLE

CODECS = pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
BOUNDED = (unpack.gzip_bounded, unpack.lz4_bounded, unpack.snappy_bounded, unpack.zstd_bounded)
AROUND = [b"one", b"", b"x" * 5_000]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    unpack.bound()
    monkeypatch.setattr(unpack, "BATCH_BYTES", 1 << 20)


def batch(values: list[bytes], codec: int, first: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 30)
    for number, value in enumerate(values):
        builder.append(number, 1_000 + number, None, value, [])
    wire = bytearray(builder.build())
    wire[:8] = first.to_bytes(8, "big")  # the broker writes the base offset, which the checksum does not cover
    return bytes(wire)


def read(wire: bytes, at: int = 0) -> list[tuple[int, bytes]]:
    records = fetcher.PartitionRecords(TopicPartition("t", 0), MemoryRecords(wire), [], at, None, None, True, 0)
    found = [(record.offset, record.value) for record in records]
    assert list(records) == []
    return found


@CODECS
def test_ordinary_batches_read_as_before(codec: int) -> None:
    assert read(batch(AROUND, codec) + batch(AROUND, 0, 3)) == list(enumerate(AROUND * 2))


@CODECS
def test_the_room_is_that_of_the_present_limit(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    large = batch([b"a", b" " * (2 << 20)], codec)
    assert [value is UNREADABLE for _, value in read(large)] == [True, True]
    monkeypatch.setattr(unpack, "BATCH_BYTES", 4 << 20)
    assert [value is UNREADABLE for _, value in read(large)] == [False, False]


@CODECS
@pytest.mark.parametrize("size", [(1 << 20) + 100, 30 << 20])
def test_a_batch_that_grows_too_large_stands_aside(codec: int, size: int) -> None:
    bomb = batch([b"a", b" " * size, b"c"], codec, 3)
    found = read(batch(AROUND, codec) + bomb + batch(AROUND, codec, 6))
    assert [offset for offset, _ in found] == list(range(9))
    assert [value is UNREADABLE for _, value in found] == [False] * 3 + [True] * 3 + [False] * 3
    assert [value for _, value in found[6:]] == AROUND


@CODECS
def test_reading_from_the_middle_of_such_a_batch(codec: int) -> None:
    found = read(batch([b" " * (2 << 20)] * 4, codec) + batch(AROUND, codec, 4), at=2)
    assert [(offset, value is UNREADABLE) for offset, value in found[:2]] == [(2, True), (3, True)]
    assert [offset for offset, _ in found] == [2, 3, 4, 5, 6]


def test_several_gzip_members_are_bounded_together() -> None:
    part = gzip.compress(b"x" * 1_000)
    assert unpack.gzip_bounded(part * 3) == b"x" * 3_000
    with pytest.raises(unpack.NotUnpackedError):
        unpack.gzip_bounded(part * 2_000)
    with pytest.raises(unpack.NotUnpackedError):
        unpack.gzip_bounded(part[:-9])


@pytest.mark.parametrize(
    "decode", [unpack.gzip_bounded, unpack.snappy_bounded, unpack.lz4_bounded, unpack.zstd_bounded]
)
def test_bytes_that_are_no_such_stream(decode: object) -> None:
    for junk in (b"\xff" * 40, b"\x82SNAPPY\x00" + b"\xff" * 30, bytes(cramjam.zstd.compress(b"x" * 100))[:-3]):
        with pytest.raises(unpack.NotUnpackedError):
            decode(junk)  # type: ignore[operator]


def test_a_fetch_is_handed_over_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "FETCH_BYTES", 10_000)

    class State:
        active = True
        paused = False
        position = 0

        def state_value(self, tp: object) -> "State":
            return self

        def consumed_to(self, position: int) -> None:
            self.position = position

    tp = TopicPartition("t", 0)
    wire = MemoryRecords(batch([b"x" * 4_000] * 7, 4))
    records = fetcher.PartitionRecords(tp, wire, [], 0, None, None, True, 0)
    result = fetcher.FetchResult(tp, assignment=State(), partition_records=records, backoff=0)
    parts = []
    while result.has_more():
        parts.append([record.offset for record in result.getall(100)])
    assert [part for part in parts if part] == [[0, 1, 2], [3, 4, 5], [6]]
