"""The envelope of `usage.priced`: which kind of record it is and what its headers say. Read here, and written here.

What is inside (Arrow rows) stays bytes: services load no Arrow.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tollmeter.schemas.control import Control as ControlBody
from tollmeter.schemas.control import ControlRecord, Correction, Round, Tick
from tollmeter.schemas.json_values import loads
from tollmeter.schemas.priced import (
    FIRST_FORMAT,
    FORMAT_VERSION,
    H_BOOT,
    H_CORRECTION,
    H_FORMAT,
    H_KIND,
    H_PRICE_BOOK,
    H_REPAIR,
    H_ROWS,
    H_SOURCE_ID,
    H_SOURCES,
    KIND_CONTROL,
    KIND_CORRECTION,
    KIND_REPAIR,
    KIND_ROWS,
    KIND_TICK,
)
from tollmeter.schemas.record import Delivery, Headers, Record

NEWEST_KNOWN = FORMAT_VERSION
"""Readers stop in front of a newer format: they are upgraded before the writers."""
_BITS = (16, 63, 63, 32, 32, 32)
"""How large the numbers of a source can be: partition, two offsets, three counts."""


class Source(NamedTuple):
    """The part of one source partition that a batch of PRICE has read."""

    partition: int
    first_offset: int
    last_offset: int
    records: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Priced rows of one batch of PRICE, an Arrow IPC stream."""

    value: bytes
    headers: Mapping[str, bytes]

    @property
    def source_id(self) -> str:
        """The id of the topic that the rows were read of, "" where the broker gives none."""
        return self.headers.get(H_SOURCE_ID, b"").decode()

    def coverage(self) -> Iterator[tuple[int, int, int, int, int, int, str, str]]:
        """Yield the fields of each `Source`, how many of its rows are here, the price book and the boot id.

        Raises KeyError, ValueError or TypeError when the headers do not say so.
        """
        book, boot = self.headers[H_PRICE_BOOK].decode(), self.headers[H_BOOT].decode()
        for source in loads(self.headers[H_SOURCES]):
            partition, first, last, records, rejected, rows = source
            if not all(
                type(number) is int and 0 <= number < 1 << bits for number, bits in zip(source, _BITS, strict=True)
            ):
                raise ValueError(f"{source} is no part of a source partition")
            yield partition, first, last, records, rejected, rows, book, boot


@dataclass(frozen=True, slots=True)
class Control:
    """A rule changed."""

    body: ControlBody


@dataclass(frozen=True, slots=True)
class Repair:
    """Cells of windows, an Arrow IPC stream."""

    round: Round
    value: bytes


@dataclass(frozen=True, slots=True)
class Corrected:
    """Rows as the ledger had them, then as it shall have them, an Arrow IPC stream."""

    correction: Correction
    value: bytes


@dataclass(frozen=True, slots=True)
class Newer:
    """A record of a format that is not known here yet."""

    why: str


@dataclass(frozen=True, slots=True)
class Broken:
    """No record of usage.priced at all."""

    why: str


Envelope = Rows | Tick | Control | Repair | Corrected | Newer | Broken


def is_tick(record: Record) -> bool:
    """Tell by its headers alone whether a record moves clocks, and nothing else."""
    return (H_KIND, KIND_TICK) in record.headers


def rows_of(delivery: Delivery) -> int:
    """Return how many rows a delivery brings, as its headers say."""
    counts = (value for record in delivery.value for name, value in record.headers if name == H_ROWS)
    return sum(int(count) for count in counts if count.isdigit())


def read_envelope(record: Record) -> Envelope:
    """Return what a record of usage.priced is; never raises."""
    headers = dict(record.headers)
    value = b"" if record.value is None else record.value
    try:
        version = int(headers[H_FORMAT])
        if version > NEWEST_KNOWN:
            return Newer(f"its format {version} is newer than {NEWEST_KNOWN}, the newest known here")
        kind = headers[H_KIND]
        if kind == KIND_ROWS:
            return Rows(value, headers)
        if kind == KIND_TICK:
            return Tick.model_validate_json(value)
        if kind == KIND_CONTROL:
            return Control(ControlRecord.model_validate_json(value).body)
        if kind == KIND_CORRECTION:
            return Corrected(Correction.model_validate_json(headers[H_CORRECTION]), value)
        if kind == KIND_REPAIR:
            return Repair(Round.model_validate_json(headers[H_REPAIR]), value)
        return Broken(f"unknown kind {bytes(kind)!r}")
    except (KeyError, TypeError, ValueError) as error:
        return Broken(f"{type(error).__name__}: {error}")


def _head(kind: bytes) -> Headers:
    version = FORMAT_VERSION if kind in (KIND_ROWS, KIND_CORRECTION) else FIRST_FORMAT
    return [(H_FORMAT, str(version).encode()), (H_KIND, kind)]


def rows_headers(rows: int, sources: Sequence[tuple[Source, int]], book: str, boot: str) -> Headers:
    """Return the headers of so many priced rows; beside each source how many of them are its."""
    listed = [[*source, count] for source, count in sources]
    return [
        *_head(KIND_ROWS),
        (H_ROWS, str(rows).encode()),
        (H_SOURCES, json.dumps(listed, separators=(",", ":")).encode()),
        (H_PRICE_BOOK, book.encode()),
        (H_BOOT, boot.encode()),
    ]


def source_id_header(topic_id: str) -> Headers:
    """Return the header that names the source topic by its id; none where the broker gives none."""
    return [(H_SOURCE_ID, topic_id.encode())] if topic_id else []


def control_record(body: ControlBody) -> tuple[bytes, Headers]:
    """Return value and headers of a control record."""
    return ControlRecord(body=body).model_dump_json().encode(), _head(KIND_CONTROL)


def tick_record(clocks: dict[int, int]) -> tuple[bytes, Headers]:
    """Return value and headers of a tick."""
    return Tick(clocks=clocks).model_dump_json().encode(), _head(KIND_TICK)


def correction_headers(correction: Correction, rows: int) -> Headers:
    """Return the headers of a correction record that holds so many rows in all."""
    return [
        *_head(KIND_CORRECTION),
        (H_ROWS, str(rows - correction.was).encode()),
        (H_CORRECTION, correction.model_dump_json().encode()),
    ]


def repair_headers(round_: Round) -> Headers:
    """Return the headers of a repair record."""
    return [*_head(KIND_REPAIR), (H_REPAIR, round_.model_dump_json().encode())]
