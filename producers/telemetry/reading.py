"""What telemetry turned out to be: calls as the fields of their events, what is no call, and what had to be refused."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Scalar = str | int | float | bool


class UnreadableError(ValueError):
    """The whole body is no such request; the text says why, without repeating it."""


class RefusedError(ValueError):
    """One span or record cannot become an event; the text names the field."""


class Damaged(NamedTuple):
    """A span or record that could not be read: where, and why."""

    place: str
    detail: str


class Span(NamedTuple):
    """A span as far as it matters here: its times in nanoseconds since 1970, attributes by their meaning."""

    place: str
    scope: str
    """Name of the instrumentation that tells it."""
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    failed: bool
    facts: Mapping[str, Scalar]


class LogRecord(NamedTuple):
    """A log record: its name, its time in nanoseconds since 1970, and the attributes that a table names."""

    place: str
    name: str
    at_ns: int
    facts: Mapping[str, Scalar]


class Found(NamedTuple):
    """A call: the fields of its event that telemetry says, `event_id` and `occurred_at` (microseconds) among them."""

    place: str
    fields: dict[str, Any]


def record_name(attribute: object, named: str, body: str) -> str:
    """Return the name of a record: of its attribute, its own field or its body; one with the sender's prefix wins."""
    name = str(attribute or named or body)[:80]
    return body if name and body.endswith(f".{name}") else name


@dataclass(slots=True)
class Reading:
    """`ignored` counts by reason what is no call; `refused` says why what looked like one gave no event."""

    calls: list[Found] = field(default_factory=list)
    refused: list[Damaged] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    """Operations of spans that no table knows: they are not counted, and the sender is told."""
