"""What a record batch unpacks to is bounded: what would become gigabytes is passed on as records without value.

Leans on private names of aiokafka 0.14.0, which is pinned; a test fails when one of them changes. The limit holds for
every consumer of the process.
"""

import mmap
import threading
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.consumer import fetcher
from aiokafka.record import default_records, legacy_records
from aiokafka.structs import ConsumerRecord

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
    if room is None:
        room = _local.room = mmap.mmap(-1, BATCH_BYTES)
    try:
        size = codec.decompress_into(bytes(payload), room)
    except (cramjam.DecompressionError, OSError, ValueError) as error:
        room.madvise(mmap.MADV_DONTNEED)
        raise NotUnpackedError(str(error).partition("\n")[0][:200]) from None
    return bytes(room[:size])


class _Remembering:
    """The batches of a fetch; knows which one was taken last."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.batch: Any = None
        self.has_next = records.has_next

    def next_batch(self) -> object:
        self.batch = self._records.next_batch()
        return self.batch


class BoundedRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka is read untyped
    """Records of one partition; those of a batch that is not unpacked come without key, value and headers."""

    def __init__(self, tp: object, records: object, *options: object) -> None:
        super().__init__(tp, _Remembering(records), *options)
        self._standing_in: Iterator[ConsumerRecord] | None = None
        self._records_iterator: Iterator[ConsumerRecord]

    def __next__(self) -> ConsumerRecord:
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

    def getall(self, max_records: int | None = None) -> list[ConsumerRecord]:
        """Return records, at most so many, and none behind FETCH_BYTES of values."""
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
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
