"""A dead letter: the original bytes, and headers that say what is wrong and where the record stands in its source."""

from typing import NamedTuple, Protocol

from tollmeter import __version__

MAX_DETAIL_BYTES = 300


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


def dead_letter_headers(stage: str, reason: str, detail: str, place: Place) -> list[tuple[str, bytes]]:
    """Return the headers of a dead letter."""
    return [
        ("reason", reason.encode()),
        ("detail", detail.encode("utf-8", "replace")[:MAX_DETAIL_BYTES]),
        ("stage", stage.encode()),
        ("source_topic", place.topic.encode()),
        ("source_partition", str(place.partition).encode()),
        ("source_offset", str(place.offset).encode()),
        ("attempts", b"1"),
        ("code_version", __version__.encode()),
    ]
