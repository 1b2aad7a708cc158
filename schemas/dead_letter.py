"""A dead letter: the original bytes, and headers that say what is wrong and where the record stands in its source.

A letter that is tried again goes back to its source topic as a new record, whose headers say how often it was tried and
where it stood first. A mark in the dead letters says that it was: a letter of its own, without a value.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from tollmeter import __version__
from tollmeter.schemas.record import Headers
from tollmeter.schemas.secrets import mask_secrets

MAX_DETAIL_BYTES = 300
MAX_ATTEMPTS = 3
H_ATTEMPTS, H_FIRST = "attempts", "first_source"
RETRY_STAGE = "retry"
QUARANTINED = "quarantined"
"""Reason of a record that ends the interpreter when it is decoded."""


class Place(Protocol):
    """Where a record stands; its identity among the dead letters. aiokafka's records have these."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


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
    tried = {name: value for name, value in source_headers if name in (H_ATTEMPTS, H_FIRST)}
    return [
        ("reason", reason.encode()),
        ("detail", mask_secrets(detail).encode("utf-8", "replace")[:MAX_DETAIL_BYTES]),
        ("stage", stage.encode()),
        ("source_topic", place.topic.encode()),
        ("source_partition", str(place.partition).encode()),
        ("source_offset", str(place.offset).encode()),
        (H_ATTEMPTS, tried.get(H_ATTEMPTS, b"1")),
        *([(H_FIRST, tried[H_FIRST])] if H_FIRST in tried else []),
        ("code_version", __version__.encode()),
    ]


def letter_value(value: bytes | None) -> bytes:
    """Return the value of a letter: a record with neither key nor value cannot be sent."""
    return value if value is not None else b""


def again_headers(attempts: int, first: SourcePlace) -> Headers:
    """Return the headers of a record that is tried for the `attempts`th time."""
    return [(H_ATTEMPTS, str(attempts).encode()), (H_FIRST, str(first).encode())]


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
        )
    except KeyError as missing:
        raise ValueError(f"no header {missing}") from None
