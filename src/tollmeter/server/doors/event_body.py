"""A usage event in JSON as Kafka takes it (docs/json.md), bare or as a CloudEvent's data; id and time may be absent.

Types are as strict as there: a number is no text, text is no number, and null is the default.
"""

import re
from types import UnionType
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tollmeter.producers.extract.clean import with_tag
from tollmeter.producers.telemetry.facts import SUSPECT
from tollmeter.schemas import codec
from tollmeter.server.door import Bad, Call
from tollmeter.server.json_body import TOO_DEEP

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
