"""A usage event in JSON as Kafka takes it (docs/json.md), bare or as a CloudEvent's data; id and time may be absent.

Types are as strict as there: a number is no text, text is no number, and null is the default.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from types import UnionType
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tollmeter.producers.extract.clean import with_tag
from tollmeter.producers.telemetry.facts import SUSPECT
from tollmeter.schemas import codec
from tollmeter.server.door import Bad, Call, Column, Events
from tollmeter.server.json_body import MAX_EVENT_BYTES, TOO_DEEP

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TOKEN = "tracking_token"  # noqa: S105 - the name of a member
_TIME = str | int | float
_KINDS: dict[str, type | UnionType] = {"string": str, "long": int, "int": int, "boolean": bool}


def _kind(name: str, schema: object) -> type | UnionType:
    """Return what JSON has for a field of the Avro schema."""
    if name == "occurred_at":
        return _TIME
    if isinstance(schema, list):
        return _kind(name, schema[1])
    if not isinstance(schema, dict):
        return _KINDS[str(schema)]
    if schema["type"] == "enum":
        return str
    return dict[str, str] if schema["values"] == "string" else dict[str, float]


_MEMBERS = {
    **{field["name"]: _kind(field["name"], field["type"]) for field in codec.PLAIN_SCHEMA["fields"]},
    TOKEN: str,
}
EventBody = msgspec.defstruct(
    "EventBody",
    [(name, kind | None | UnsetType, UNSET) for name, kind in _MEMBERS.items()],
    forbid_unknown_fields=True,
    module=__name__,
)
"""The members of an event, each of its kind, null, or left out."""
_decoder = msgspec.json.Decoder(EventBody)
_ABSENT = {UnsetType, type(None)}
_ANY_UUID = re.compile(_UUID.pattern, re.IGNORECASE)


@lru_cache(maxsize=4_096)
def _members(names: tuple[str, ...]) -> Callable[[object], tuple[object, ...]]:
    return attrgetter(*names)


def _named_by(events: Sequence[object], first: Iterable[str]) -> tuple[str, ...]:
    """Return the members that these events name: those of the first, where no other event names more."""
    names = ("event_id", "model_sent", *(name for name in first if name not in ("event_id", "model_sent")))
    others = tuple(name for name in _MEMBERS if name not in names)
    if len(others) < 2:  # of one name there would be no tuples
        return tuple(_MEMBERS)
    said_none = list(map(_members(others), events)).count((UNSET,) * len(others))
    return names if said_none == len(events) else tuple(_MEMBERS)


def columns_of(found: list[bytes], key: str) -> Events | None:
    """Return the events of several objects by their members; None where one of them is no plain event."""
    if len(found) < 2 or max(map(len, found)) > MAX_EVENT_BYTES:
        return None
    try:
        events = list(map(_decoder.decode, found))
        names = _named_by(events, msgspec.json.decode(found[0]))
    except (msgspec.DecodeError, RecursionError):
        return None
    columns: dict[str, Column] = {}
    for name, column in zip(names, zip(*map(_members(names), events), strict=True), strict=True):
        kinds = set(map(type, column))
        if not kinds <= _ABSENT:
            columns[name] = [None if one is UNSET else one for one in column] if UnsetType in kinds else column
    if TOKEN in columns or not all(columns.get("model_sent", [""])):
        return None
    return _named(columns, key)


def _named(columns: dict[str, Column], key: str) -> Events | None:
    """Return the events with what their ids are made of; None where they differ in that."""
    ids = columns.get("event_id")
    if ids is None:
        return Events(columns, [f"key:{key}#{place}" for place in range(len(columns["model_sent"]))] if key else ())
    if None in ids:
        return None
    if all(map(_UUID.fullmatch, ids)):
        return Events(columns)
    if any(map(_ANY_UUID.fullmatch, ids)) or not all(ids) or max(map(len, ids)) > 256:
        return None
    del columns["event_id"]
    return Events(columns, list(map("id:".__add__, ids)))


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID as event ids are written; its letters may be capitals."""
    return _UUID.fullmatch(text.lower()) is not None


def read(raw: bytes, name: str, key: str) -> Call | Bad:
    """Return the call of an object."""
    try:
        document = msgspec.to_builtins(_decoder.decode(raw))
    except RecursionError:
        return TOO_DEEP._replace(place=name)
    except msgspec.ValidationError as error:
        return _why(raw, name, error)
    except msgspec.DecodeError as error:
        return Bad(name, "not_json", f"not JSON: {error}")
    return _of_fields(document, name, key and f"key:{key}")


def of_fields(document: dict[str, Any], name: str, seed: str) -> Call | Bad:
    """Return the call of an event's members. `seed` makes its id where the event has none."""
    try:
        msgspec.convert(document, EventBody)
    except msgspec.ValidationError as error:
        return _why_not(document, name, error)
    return _of_fields(document, name, seed)


def _of_fields(document: dict[str, Any], name: str, seed: str) -> Call | Bad:
    if not document.get("model_sent"):
        return Bad(name, "missing_field", "model (of a call's counts) or model_sent (of a usage event): missing")
    fields = {member: value for member, value in document.items() if member != TOKEN}
    given = fields.get("event_id")
    if given is not None and not is_uuid(given):
        if not 0 < len(given) <= 256:
            return Bad(name, "bad_field", "event_id: text of 1 to 256 characters")
        fields.pop("event_id")
        seed = f"id:{given}"
    token = document.get(TOKEN) or ""
    if len(token) > 64:
        return Bad(name, "bad_field", "tracking_token: text of at most 64 characters")
    return Call(name, fields, seed, token)


def take_total(fields: dict[str, Any], said: int, sum_: int) -> str:
    """Put a stated total above the counts' sum into the fields, with a tag; say what is wrong with one below it."""
    if said < sum_:
        return f"total_tokens: {said} is less than prompt and completion together ({sum_})"
    if said > sum_:
        fields["total_tokens"] = said
        text = f"total_tokens {said} exceed the sum {sum_}"
        fields["tags"] = with_tag(fields.get("tags") or {}, SUSPECT, text)
    return ""


def _why(raw: bytes, name: str, error: msgspec.ValidationError) -> Bad:
    """Say why an object is no event."""
    try:
        document = msgspec.json.decode(raw)
    except msgspec.DecodeError as wrong:
        return Bad(name, "not_json", f"not JSON: {wrong}")
    return _why_not(document, name, error)


def _why_not(document: object, name: str, error: msgspec.ValidationError) -> Bad:
    if not isinstance(document, dict):
        return Bad(name, "not_an_object", "a call is a JSON object")
    if unknown := sorted(document.keys() - _MEMBERS.keys()):
        return Bad(name, "unknown_field", f"{str(unknown[0])[:64]}: no field of a call (docs/json.md lists them)")
    what, _, where = str(error).partition(" - at `$.")
    return Bad(name, "bad_field", f"{where.rstrip('`')}: {what}" if where else what)
