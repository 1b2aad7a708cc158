"""A Kafka record and a delivery of records, as far as anybody here looks at them; aiokafka's have this shape."""

from collections.abc import Sequence
from typing import Protocol

Headers = list[tuple[str, bytes]]
Place = tuple[int, int]
"""Partition and offset."""
UNREADABLE = b"\x00tollmeter: not unpacked"
"""Stands for the value of each record of a batch that was not unpacked. It is no event, and compared by identity."""


class Entry(Protocol):
    """A record without the partition that it stands in."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Append time, milliseconds since 1970 UTC."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Record(Entry, Protocol):
    """One entry of a topic."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...


class Delivery(Protocol):
    """What one fetch brought of one partition."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int:
        """That of the last record."""

    @property
    def size(self) -> int:
        """Bytes of all values."""

    @property
    def generation_id(self) -> int:
        """The generation of the consumer group that it was fetched in: another one makes it somebody else's."""

    @property
    def value(self) -> Sequence[Record]:
        """The records in offset order, at least one."""
