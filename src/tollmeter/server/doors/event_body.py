"""A usage event in JSON as Kafka takes it (docs/json.md), bare or as a CloudEvent's data; id and time may be absent."""

import re
from typing import Any

import msgspec

from tollmeter.schemas.event import UsageEvent
from tollmeter.server.door import Bad, Call
from tollmeter.server.json_body import TOO_DEEP

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
FIELDS = frozenset(UsageEvent.model_fields)
TOKEN = "tracking_token"  # noqa: S105 - the name of a member


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID as event ids are written; its letters may be capitals."""
    return _UUID.fullmatch(text.lower()) is not None


def read(raw: bytes, name: str, key: str) -> Call | Bad:
    """Return the call of an object."""
    try:
        document = msgspec.json.decode(raw)
    except RecursionError:
        return TOO_DEEP._replace(place=name)
    except msgspec.DecodeError as error:
        return Bad(name, "not_json", f"not JSON: {error}")
    if not isinstance(document, dict):
        return Bad(name, "not_an_object", "a call is a JSON object")
    return of_fields(document, name, key and f"key:{key}")


def of_fields(document: dict[str, Any], name: str, seed: str) -> Call | Bad:
    """Return the call of an event's members. `seed` makes its id where the event has none."""
    if unknown := sorted(document.keys() - FIELDS - {TOKEN}):
        return Bad(name, "unknown_field", f"{str(unknown[0])[:64]}: no field of a call (docs/json.md lists them)")
    if not document.get("model_sent"):
        return Bad(name, "missing_field", "model (of a call's counts) or model_sent (of a usage event): missing")
    fields = {member: value for member, value in document.items() if member != TOKEN}
    given = fields.get("event_id")
    if given is not None and (not isinstance(given, str) or not is_uuid(given)):
        if not isinstance(given, str) or not 0 < len(given) <= 256:
            return Bad(name, "bad_field", "event_id: text of 1 to 256 characters")
        fields.pop("event_id")
        seed = f"id:{given}"
    token = document.get(TOKEN, "")
    if not isinstance(token, str) or len(token) > 64:
        return Bad(name, "bad_field", "tracking_token: text of at most 64 characters")
    return Call(name, fields, seed, token)
