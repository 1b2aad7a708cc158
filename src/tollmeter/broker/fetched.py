"""Fetched records stay as aiokafka's parser made them until somebody looks at one: columns are read without any other.

A record of its own per entry, with eleven fields that are set one by one, costs more than parsing it does.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Protocol, overload

from aiokafka.structs import ConsumerRecord

from tollmeter.schemas.record import Entry, Record

VALUE, OFFSET = attrgetter("value"), attrgetter("offset")


class Parsed(Entry, Protocol):
    """What the parser makes of a record; a whole one stands for those of a batch that is not unpacked."""

    @property
    def timestamp_type(self) -> int: ...


def as_is(value: bytes | None) -> bytes | None:
    """Return a value as it is. As the deserializer of a consumer it asks for `Fetched` instead of lists of records."""
    return value


def values_size(batch: Sequence[Record]) -> int:
    """Return the bytes of all values."""
    return sum(map(len, filter(None, map(VALUE, entries_of(batch)))))


def entries_of(batch: Sequence[Record]) -> Sequence[Entry]:
    """Return what to read columns of: offset, time, key, value and headers, not the place."""
    return batch.entries if isinstance(batch, Fetched) else batch


def from_offset(records: Sequence[Parsed], position: int) -> Sequence[Parsed]:
    """Leave out what lies before the position, or before the record in front of it, as upstream's loop does."""
    first = records[0].offset if records else position
    if first >= position and list(map(OFFSET, records)) == list(range(first, first + len(records))):
        return records
    kept: list[Parsed] = []
    for record in records:
        if record.offset >= position:
            kept.append(record)
            position = record.offset + 1
    return kept


class Fetched(Sequence[Record]):
    """The records that a fetch brought of one partition, in offset order; each is made when it is asked for."""

    __slots__ = ("entries", "partition", "topic")

    def __init__(self, topic: str, partition: int, entries: Sequence[Parsed]) -> None:
        self.topic, self.partition, self.entries = topic, partition, entries

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> "Fetched": ...
    def __getitem__(self, at: int | slice) -> "Record | Fetched":
        if isinstance(at, slice):
            return Fetched(self.topic, self.partition, self.entries[at])
        return self._record(self.entries[at])

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self.entries)

    def _record(self, entry: Parsed) -> Record:
        record: Record
        if isinstance(entry, ConsumerRecord):
            record = entry
            return record
        key, value = entry.key, entry.value
        record = ConsumerRecord(
            topic=self.topic,
            partition=self.partition,
            offset=entry.offset,
            timestamp=entry.timestamp,
            timestamp_type=entry.timestamp_type,
            key=key,
            value=value,
            checksum=None,
            serialized_key_size=-1 if key is None else len(key),
            serialized_value_size=-1 if value is None else len(value),
            headers=tuple(entry.headers),
        )
        return record


class Joined(Sequence[Record]):
    """The records of several batches, one after the other."""

    def __init__(self, batches: Sequence[Sequence[Record]]) -> None:
        self._batches = batches
        self._ends = list(accumulate(map(len, batches)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | Sequence[Record]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        number = bisect(self._ends, place)
        return self._batches[number][place - self._ends[number]]

    def __iter__(self) -> Iterator[Record]:
        for batch in self._batches:
            yield from batch
