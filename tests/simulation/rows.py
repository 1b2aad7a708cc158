"""The row-by-row kernels of PRICE and LEDGER: events and rows are plain tuples, nothing is encoded."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from tollmeter.schemas.envelope import Source
from tollmeter.schemas.priced import (
    FORMAT_VERSION,
    H_BOOT,
    H_FORMAT,
    H_KIND,
    H_PRICE_BOOK,
    H_ROWS,
    H_SOURCES,
    KIND_ROWS,
    row_version,
)
from tollmeter.schemas.topics import org_partition
from tollmeter.streams.ledger.block import LedgerKernel
from tollmeter.streams.rules.events.decode_avro import Reject
from tollmeter.streams.rules.records.encode import Block

BLOCK_ROWS = 3
"""So few rows fit a record here that a batch often needs several."""


class Event(NamedTuple):
    """What a producer sends. `units` is what the price multiplies; `poison` is refused by ClickHouse alone."""

    number: int
    org: str
    user: str
    key: str
    at_us: int
    units: int
    poison: bool = False

    @property
    def event_id(self) -> str:
        return f"00000000-0000-4000-8000-{self.number:012x}"

    @property
    def identity(self) -> tuple[int, str, str]:
        return self.at_us, self.org, self.event_id


class Row(NamedTuple):
    """A priced row; the last three are LEDGER's."""

    event_id: str
    event_us: int
    received_ms: int
    src_partition: int
    src_offset: int
    org: str
    user: str
    key: str
    cost_nano: int
    book: str
    poison: bool = False
    revision: int = 0
    void: bool = False
    """The call is gone: the row stays, and counts nowhere."""
    priced_partition: int = -1
    priced_offset: int = -1
    version: int = 0

    @property
    def identity(self) -> tuple[int, str, str]:
        return self.event_us, self.org, self.event_id

    @property
    def charged_us(self) -> int:
        return min(self.event_us, self.received_ms * 1000)


class Rows(tuple[Row, ...]):
    """Rows with as much of a frame as LEDGER uses."""

    __slots__ = ()

    @property
    def height(self) -> int:
        return len(self)

    def __getitem__(self, key: Any) -> Any:
        found = tuple.__getitem__(self, key)
        return Rows(found) if isinstance(key, slice) else found

    def row(self, at: int, *, named: bool) -> dict[str, Any]:
        return tuple.__getitem__(self, at)._asdict()


class Book(NamedTuple):
    """A price book: nano-USD for a unit."""

    book_id: str
    nano: int


class Pricing:
    """PRICE's kernel: one event, one row."""

    def __init__(self, book: Book) -> None:
        self.book, self.book_id = book, book.book_id

    def price(self, batches: Sequence[Sequence[Any]]) -> "Pass":
        return Pass(batches, self.book)

    def refresh(self) -> bool:
        return False

    def document(self) -> tuple[bytes, bytes]:
        return self.book_id.encode(), json.dumps({"price_book": self.book_id, "rules": [], "fx": []}).encode()


class Pass:
    """What one batch made of its records."""

    unpriced = 0

    def __init__(self, batches: Sequence[Sequence[Any]], book: Book) -> None:
        self.records = [record for batch in batches for record in batch]
        self.rejects: list[Reject] = []
        self.rows: list[Row] = []
        for at, record in enumerate(self.records):
            event = record.value
            if isinstance(event, Event):
                self.rows.append(
                    Row(
                        event.event_id,
                        event.at_us,
                        record.timestamp,
                        record.partition,
                        record.offset,
                        event.org,
                        event.user,
                        event.key,
                        event.units * book.nano,
                        book.book_id,
                        event.poison,
                    )
                )
            else:
                self.rejects.append(Reject(at, "bad_json", "not an event"))
        self.sources = _sources(self.records, self.rejects)

    @property
    def accepted(self) -> int:
        return len(self.rows)

    def blocks(self, partitions: int, book_id: str, boot: str) -> dict[int, list[Block]]:
        targets: dict[int, list[Row]] = {}
        for row in self.rows:
            targets.setdefault(org_partition(row.org, partitions), []).append(row)
        if not targets:
            targets[0] = []
        return {
            target: [
                self._block(rows[begin : begin + BLOCK_ROWS], book_id, boot)
                for begin in range(0, max(1, len(rows)), BLOCK_ROWS)
            ]
            for target, rows in sorted(targets.items())
        }

    def _block(self, rows: list[Row], book_id: str, boot: str) -> Block:
        counts = Counter(row.src_partition for row in rows)
        listed = [[*source, counts[source.partition]] for source in self.sources]
        headers = [
            (H_FORMAT, str(FORMAT_VERSION).encode()),
            (H_KIND, KIND_ROWS),
            (H_ROWS, str(len(rows)).encode()),
            (H_SOURCES, json.dumps(listed).encode()),
            (H_PRICE_BOOK, book_id.encode()),
            (H_BOOT, boot.encode()),
        ]
        return Block(Rows(rows), headers)  # type: ignore[arg-type]


def _sources(records: Sequence[Any], rejects: Sequence[Reject]) -> list[Source]:
    rejected = Counter(records[reject.position].partition for reject in rejects)
    by_partition: dict[int, list[int]] = {}
    for record in records:
        by_partition.setdefault(record.partition, []).append(record.offset)
    return [
        Source(partition, min(offsets), max(offsets), len(offsets), rejected[partition])
        for partition, offsets in by_partition.items()
    ]


def read(block: Any) -> Rows:
    """Give rows their place in usage.priced and their version."""
    if not isinstance(block.value, Rows):
        raise ValueError("no priced rows")
    place = {"priced_partition": block.partition, "priced_offset": block.offset}
    placed = [
        row._replace(**place, version=row_version(row.revision, block.offset)) for row in block.value[block.was :]
    ]
    first: dict[Any, Row] = {}
    for row in placed:  # what ClickHouse takes and what it refuses are not the same to it
        first.setdefault((row.identity, row.revision, row.poison), row)
    return Rows(first.values())


def together(blocks: list[Rows]) -> Rows:
    return Rows(row for rows in blocks for row in rows)


LEDGER_KERNEL = LedgerKernel(read, together, lambda rows: rows)  # type: ignore[arg-type,return-value]
