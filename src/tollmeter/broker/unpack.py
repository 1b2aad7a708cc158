"""What a record batch unpacks to is bounded: what would become gigabytes is passed on as records without value.

Leans on private names of aiokafka 0.14.0, which is pinned; a test fails when one of them changes. The limit holds for
every consumer of the process.
"""

import mmap
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.consumer import fetcher
from aiokafka.record import default_records, legacy_records
from aiokafka.structs import ConsumerRecord

from tollmeter.broker.fetched import VALUE, Fetched, Parsed, as_is, from_offset
from tollmeter.schemas.record import UNREADABLE

BATCH_BYTES = 32 << 20
"""Most bytes of one unpacked batch. Brokers take batches of a megabyte; events shrink to a fifth or a tenth."""
FETCH_BYTES = 64 << 20
"""Most bytes of values that one partition hands over at once, give or take one batch."""

_XERIAL = b"\x82SNAPPY\x00"
_local = threading.local()


Payload = bytes | bytearray | memoryview


class Codec(Protocol):
    """What is used of a codec of cramjam."""

    def decompress_into(self, payload: bytes, room: mmap.mmap) -> int: ...


class NotUnpackedError(Exception):
    """A batch is too large when unpacked, or cannot be unpacked at all."""


def gzip_bounded(payload: Payload) -> bytes:
    """Unpack gzip, of one or several members. Raises `NotUnpackedError`."""
    parts, left, size = [], bytes(payload), 0
    while left:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            part = unpacker.decompress(left, BATCH_BYTES - size + 1)
        except zlib.error as error:
            raise NotUnpackedError(str(error)) from None
        size += len(part)
        if size > BATCH_BYTES or not unpacker.eof:
            raise NotUnpackedError(f"more than {BATCH_BYTES} bytes, or cut off")
        parts.append(part)
        left = unpacker.unused_data
    return b"".join(parts)


def snappy_bounded(payload: Payload) -> bytes:
    """Unpack snappy, whose blocks state their size. Raises `NotUnpackedError`."""
    data = bytes(payload)
    total, at = 0, 16
    try:
        if data.startswith(_XERIAL):
            while at < len(data):
                size = int.from_bytes(data[at : at + 4], "big")
                total += cramjam.snappy.decompress_raw_len(data[at + 4 : at + 4 + size])
                at += 4 + size
                if total > BATCH_BYTES or not size:
                    raise NotUnpackedError(f"more than {BATCH_BYTES} bytes")
        else:
            total = cramjam.snappy.decompress_raw_len(data)
        if total > BATCH_BYTES:
            raise NotUnpackedError(f"more than {BATCH_BYTES} bytes")
        return bytes(snappy_decode(payload))
    except cramjam.DecompressionError as error:
        raise NotUnpackedError(str(error)) from None


def lz4_bounded(payload: Payload) -> bytes:
    """Unpack lz4. Raises `NotUnpackedError`."""
    return _into(cramjam.lz4, payload)


def zstd_bounded(payload: Payload) -> bytes:
    """Unpack zstd. Raises `NotUnpackedError`."""
    return _into(cramjam.zstd, payload)


def _into(codec: Codec, payload: Payload) -> bytes:
    """Unpack into a buffer of the largest size: only what is written of it takes memory."""
    room = getattr(_local, "room", None)
    if room is None or len(room) != BATCH_BYTES:
        room = _local.room = mmap.mmap(-1, BATCH_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        size = codec.decompress_into(bytes(payload), room)
    except (cramjam.DecompressionError, OSError, ValueError) as error:
        room.madvise(mmap.MADV_DONTNEED)
        raise NotUnpackedError(str(error).partition("\n")[0][:200]) from None
    return bytes(room[:size])


class ParsedBatch(NamedTuple):
    """The records of one batch that lie behind the position, standing for its last one."""

    offset: int
    entries: Sequence[Parsed]


class _WholeBatch:
    """A batch whose records come as one: upstream looks at it as at any other, and at them not at all."""

    def __init__(self, batch: Any, position: Callable[[], int]) -> None:
        self._batch, self._position = batch, position

    def __getattr__(self, name: str) -> object:
        return getattr(self._batch, name)

    def __next__(self) -> object:
        """Return a record of its own: upstream reads the mark in a control batch so."""
        return next(self._batch)

    def __iter__(self) -> Iterator[ParsedBatch]:
        entries = from_offset(list(self._batch), self._position())
        if entries:
            yield ParsedBatch(entries[-1].offset, entries)


class _Remembering:
    """The batches of a fetch; knows which one was taken last."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.batch: Any = None
        self.has_next = records.has_next
        self.position: Callable[[], int] | None = None
        """Where it stands, when batches shall come whole."""

    def next_batch(self) -> object:
        self.batch = self._records.next_batch()
        if self.position is None or self.batch is None:
            return self.batch
        return _WholeBatch(self.batch, self.position)


class BoundedRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka is read untyped
    """Records of one partition; those of a batch that is not unpacked come without key, value and headers.

    Where the consumer asks for `Fetched` (`as_is`), batch by batch: then each item is a `ParsedBatch`, or a record that
    stands in for one that is not unpacked.
    """

    def __init__(self, tp: object, records: object, *options: object) -> None:
        remembering = _Remembering(records)
        super().__init__(tp, remembering, *options)
        self._standing_in: Iterator[ConsumerRecord] | None = None
        self._records_iterator: Iterator[Any]
        self.whole = self._value_deserializer is as_is
        if self.whole:
            remembering.position = lambda: self.next_fetch_offset

    def _consumer_record(self, tp: object, record: object) -> object:
        return record if self.whole else super()._consumer_record(tp, record)

    def __next__(self) -> "ConsumerRecord | ParsedBatch":
        if self._standing_in is not None:
            record = next(self._standing_in, None)
            if record is not None:
                self.next_fetch_offset = record.offset + 1
                return record
            self._standing_in = None
            self.next_fetch_offset = self._records.batch.next_offset
        try:
            return next(self._records_iterator)
        except NotUnpackedError:
            self._standing_in = self._stand_ins(self._records.batch)
            self._records_iterator = self._unpack_records()  # goes on behind the batch
            return self.__next__()
        except StopIteration:
            self._records_iterator = iter(())
            self._records.position = None  # knows this object, which knows it
            raise

    def _stand_ins(self, batch: Any) -> Iterator[ConsumerRecord]:
        first = max(batch.base_offset, self.next_fetch_offset)
        for offset in range(first, batch.next_offset):
            yield ConsumerRecord(
                topic=self._tp.topic,
                partition=self._tp.partition,
                offset=offset,
                timestamp=batch.max_timestamp,
                timestamp_type=batch.timestamp_type,
                key=None,
                value=UNREADABLE,
                checksum=None,
                serialized_key_size=-1,
                serialized_value_size=-1,
                headers=(),
            )


class BoundedResult(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka is read untyped
    """What a fetch of one partition holds, handed over in parts of bounded size."""

    _partition_records: Any
    _rest: Sequence[Parsed] = ()
    """What is left of a batch of which only a part was asked for; the position stands in front of it."""
    _fault: Exception | None = None
    """Of a batch that cannot be read: raised once the ones in front of it were handed over."""

    def getall(self, max_records: int | None = None) -> Sequence[ConsumerRecord]:
        """Return records, at most so many, and none behind FETCH_BYTES of values, give or take a batch."""
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        if self._partition_records.whole:
            return self._get_whole(max_records)
        found: list[ConsumerRecord] = []
        size = 0
        for record in self._partition_records:
            found.append(record)
            size += record.serialized_value_size
            if len(found) == max_records or size >= FETCH_BYTES:
                self._update_position()
                return found
        self._update_position()
        self._partition_records = None
        return found

    def _get_whole(self, max_records: int | None) -> Sequence[ConsumerRecord]:
        records, tp, found, size = self._partition_records, self._topic_partition, list[Parsed](), 0
        room = sys.maxsize if max_records is None else max_records
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        while len(found) < room and size < FETCH_BYTES:
            try:
                entries = self._rest or self._next_entries()
            except Exception as fault:
                if not found:
                    raise
                self._fault = fault
                break
            if not entries:
                self._update_position()
                self._partition_records = None
                return Fetched(tp.topic, tp.partition, found)
            taken, self._rest = entries[: room - len(found)], entries[room - len(found) :]
            found += taken
            size += sum(map(len, filter(None, map(VALUE, taken))))
            records.next_fetch_offset = taken[-1].offset + 1
        self._update_position()
        return Fetched(tp.topic, tp.partition, found)

    def _next_entries(self) -> Sequence[Parsed]:
        item = next(self._partition_records, None)
        if item is None:
            return ()
        return item.entries if isinstance(item, ParsedBatch) else [item]


def bound() -> None:
    """Make the limits hold for every consumer of this process."""
    decoders = {
        "gzip_decode": gzip_bounded,
        "snappy_decode": snappy_bounded,
        "lz4_decode": lz4_bounded,
        "zstd_decode": zstd_bounded,
    }
    import aiokafka.record._crecords.default_records as fast

    for module in (fast, default_records, legacy_records):
        for name, decoder in decoders.items():
            if hasattr(module, name):
                setattr(module, name, decoder)
    fetcher.PartitionRecords, fetcher.FetchResult = BoundedRecords, BoundedResult
