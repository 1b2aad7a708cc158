"""What a door is: a function from a body to the calls in it, and from their fate to an answer. All else is shared.

A door reads; it knows no key, no Kafka and no clock. `ingest.py` checks the key and the limits, reads and unpacks the
body, calls `read`, gives ids, writes, and calls `answer` with what became of each call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from tollmeter.server.problems import Headers

Fate = Literal["accepted", "duplicate", "rejected"]
Durable = Literal["kafka", "spool", ""]
"""Where acknowledged events are; "" where there are none."""


class Call(NamedTuple):
    """One call to a model, as the fields of a usage event that the body says; the rest is filled in behind.

    `place` names it within the body ("events[3]", "resourceSpans[0].scopeSpans[0].spans[2]"; "" for the only one).
    `event_id` is given in `fields` where the body has one that is a UUID; any other identity stands in `seed`, of which
    the same id is made again: of nothing ("") comes an id of its own. Texts are cut and cleaned behind, and None is
    "not known"; counts that cannot be are refused there. `token` is the tracking token that the body names.
    """

    place: str
    fields: dict[str, Any]
    seed: str = ""
    token: str = ""


class Bad(NamedTuple):
    """An entry that is no call: where, a code for programs, and a sentence that says what to do."""

    place: str
    code: str
    detail: str
    status: int = 400


Column = Sequence[Any]
"""The values of one field, one for each call; None where a call leaves it out."""


class Events(NamedTuple):
    """Usage events of one body, each member of its kind, column by column.

    `names` are what ids are made of where the events have none of their own that are UUIDs; () where nothing is.
    """

    columns: dict[str, Column]
    names: Sequence[str] = ()


@dataclass(slots=True)
class Reading:
    """What stands in a body, in its order; `ignored` counts by reason what is meant to be no call."""

    entries: list[Call | Bad]
    single: bool = False
    """The body is one call, and the answer's status is about it."""
    ignored: dict[str, int] = field(default_factory=dict)


class Result(NamedTuple):
    """What became of one entry. `code`, `detail` and `status` say why it was rejected."""

    place: str
    fate: Fate
    event_id: str = ""
    code: str = ""
    detail: str = ""
    status: int = 0


_FATE = itemgetter(Result._fields.index("fate"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a body whose calls are where `durable` says: in Kafka, or in the spool on disk."""

    results: Sequence[Result]
    durable: Durable
    single: bool
    ignored: Mapping[str, int]
    request_id: str

    def count(self, fate: Fate) -> int:
        """Return how many entries ended so."""
        return list(map(_FATE, self.results)).count(fate)


@dataclass(frozen=True, slots=True)
class Posted:
    """A request as a door sees it: lower-case headers, the query, the body as it was before it was packed."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The content type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Answer(NamedTuple):
    """An answer on its way out."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Door:
    """One path at which calls come in. `read` raises `Problem` for a body that cannot be read at all.

    A door for `machine`s has limits of its own; `busy_status` is what it answers above them (429, or 503 for a sender
    that gives up on anything below 500). `schemas` names its bodies by media type, for the description in OpenAPI.
    """

    path: str
    read: Callable[[Posted], Reading]
    answer: Callable[[Posted, Outcome], Answer]
    summary: str
    machine: bool = True
    busy_status: int = 429
    deprecated: bool = False
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    columns: Callable[[Posted], Events | None] | None = None
    """A quick way to read a body whose entries are all plain usage events; it returns None for any other."""
    answers: Mapping[int, Any] = field(default_factory=dict)
    """What it answers when calls were taken: the shapes by status; None for an answer without a body."""
    packed: str = ""
    """A media type, not JSON, in which it answers the same to those who send in it."""
