"""A dead letter: the original bytes, and headers that say what is wrong and where the record stands in its source.

It always fits: of a value or key that is too large it holds the head, beside its true size and hash. A letter that is
tried again goes back to its source topic as a new record, whose headers say how often it was tried and where it stood
first; anybody can write such headers, so they count only where a mark or the same bytes confirm them. A mark in the
dead letters says that a letter was tried: a letter of its own, without a value.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple, Protocol

from tollmeter import __version__
from tollmeter.schemas.escapes import one_line
from tollmeter.schemas.record import Headers
from tollmeter.schemas.secrets import mask_secrets
from tollmeter.schemas.times import H_BACKFILL

MAX_DETAIL_BYTES = 300
MAX_ATTEMPTS = 3
VALUE_BYTES, KEY_BYTES = 900_000, 1_000
"""Most of a value and of a key that a letter holds; with its headers it stays under what the topic takes."""
MAX_PLACE_BYTES = 300
H_ATTEMPTS, H_FIRST = "attempts", "first_source"
H_TRIED_ATTEMPTS, H_TRIED_FIRST = "tollmeter-attempts", "tollmeter-first-source"
"""On a record that is tried again. A letter's own headers have the short names: only we write them."""
RETRY_STAGE = "retry"
QUARANTINED = "quarantined"
"""Reason of a record that ends the interpreter when it is decoded."""
PASSED_OVER = "passed_over"
"""Reason of a record of an unknown format that a person has passed over."""
NOT_UNPACKED = "not_unpacked"
"""Reason of a record whose batch becomes too large when it is unpacked."""


class Place(Protocol):
    """Where a record stands; its identity among the dead letters. aiokafka's records have these."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


class Refused(Place, Protocol):
    """A record that becomes a letter."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Iterable[tuple[str, bytes]]: ...


class SourcePlace(NamedTuple):
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def source_place(text: str) -> SourcePlace:
    """Read a place as it is written. Raises `ValueError`."""
    topic, partition, offset = text.rsplit("/", 2)
    return SourcePlace(topic, int(partition), int(offset))


def dead_letter_headers(
    stage: str, reason: str, detail: str, place: Place, source_headers: Iterable[tuple[str, bytes]] = ()
) -> Headers:
    """Return the headers of a dead letter. `source_headers`: those of its record, which say if it was tried before."""
    source_headers = list(source_headers)
    attempts, first = _tried(source_headers)
    return [
        ("reason", reason.encode("utf-8", "backslashreplace")),
        ("detail", one_line(mask_secrets(detail)).encode()[:MAX_DETAIL_BYTES]),
        ("stage", stage.encode()),
        ("source_topic", place.topic.encode()),
        ("source_partition", str(place.partition).encode()),
        ("source_offset", str(place.offset).encode()),
        (H_ATTEMPTS, str(attempts).encode()),
        *([(H_FIRST, str(first).encode())] if first is not None else []),
        ("code_version", __version__.encode()),
        *([(H_BACKFILL, b"1")] if any(name == H_BACKFILL for name, _ in source_headers) else []),
    ]


def _tried(headers: Iterable[tuple[str, bytes]]) -> tuple[int, SourcePlace | None]:
    """Return how often a record says it was tried, and where it stood first; what makes no sense says nothing."""
    said = {name: value for name, value in headers if name in (H_TRIED_ATTEMPTS, H_TRIED_FIRST)}
    place = said.get(H_TRIED_FIRST, b"")
    try:
        attempts = int(said.get(H_TRIED_ATTEMPTS, b""))
        first = source_place(place.decode("ascii"))
    except ValueError:
        return 1, None
    sane = 1 < attempts <= MAX_ATTEMPTS and len(place) <= MAX_PLACE_BYTES and min(first[1:]) >= 0
    return (attempts, first) if sane else (1, None)


class DeadLetter(NamedTuple):
    """What is sent: it fits whatever the record was."""

    key: bytes | None
    value: bytes
    headers: Headers


def dead_letter(stage: str, reason: str, detail: str, record: Refused, value: bytes | None) -> DeadLetter:
    """Return the letter of a record; `value` None: its value rests there no month (it is a secret, or not readable).

    A record with neither key nor value cannot be sent, so an absent value is an empty one.
    """
    headers = dead_letter_headers(stage, reason, detail, record, record.headers)
    key = record.key
    if value is not None:
        headers += [("value_bytes", str(len(value)).encode()), ("value_sha256", sha256(value).hexdigest().encode())]
    if key is not None and len(key) > KEY_BYTES:
        headers.append(("key_bytes", str(len(key)).encode()))
        key = key[:KEY_BYTES]
    return DeadLetter(key, (value or b"")[:VALUE_BYTES], headers)


def again_headers(attempts: int, first: SourcePlace, backfill: bool = False) -> Headers:
    """Return the headers of a record that is tried for the `attempts`th time; what was imported stays so."""
    tried = [(H_TRIED_ATTEMPTS, str(attempts).encode()), (H_TRIED_FIRST, str(first).encode())]
    return [*tried, (H_BACKFILL, b"1")] if backfill else tried


def retry_headers(letter: SourcePlace, attempts: int, first: SourcePlace, as_: SourcePlace) -> Headers:
    """Return the headers of the mark that a letter was tried again, as the record `as_`."""
    headers = dead_letter_headers(RETRY_STAGE, "retried", "", letter, again_headers(attempts, first))
    return [*headers, ("retried_as", str(as_).encode())]


class Letter(NamedTuple):
    """What the headers of a dead letter say."""

    stage: str
    reason: str
    detail: str
    place: SourcePlace
    attempts: int
    first: SourcePlace
    retried_as: SourcePlace | None
    size: int | None
    """True size of the value; None where the letter does not say it."""
    sha256: str
    backfill: bool
    """Imported: it may be of any year."""


def read_letter(headers: Iterable[tuple[str, bytes]]) -> Letter:
    """Read the headers of a dead letter. Raises `ValueError` when they are none."""
    text = {name: value.decode("utf-8", "replace") for name, value in headers}
    try:
        place = SourcePlace(text["source_topic"], int(text["source_partition"]), int(text["source_offset"]))
        again = text.get("retried_as")
        return Letter(
            text["stage"],
            text["reason"],
            text.get("detail", ""),
            place,
            int(text[H_ATTEMPTS]),
            source_place(text[H_FIRST]) if H_FIRST in text else place,
            source_place(again) if again else None,
            int(text["value_bytes"]) if "value_bytes" in text else None,
            text.get("value_sha256", ""),
            H_BACKFILL in text,
        )
    except KeyError as missing:
        raise ValueError(f"no header {missing}") from None
