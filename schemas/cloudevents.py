"""A CloudEvent (1.0, structured JSON) is unwrapped to the usage event it carries; the same one gives the same id."""

import re
from typing import Any
from uuid import NAMESPACE_URL, uuid5

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
REQUIRED = ("specversion", "id", "source", "type")


def is_cloudevent(obj: dict[str, Any]) -> bool:
    """Say whether a JSON object claims to be a CloudEvent."""
    return "specversion" in obj


def unwrap(obj: dict[str, Any]) -> dict[str, Any]:
    """Return the usage event fields of a CloudEvent: those of `data`, and the envelope's id and time where it has none.

    An id that is a UUID is the event id; any other becomes one by hashing it with its source, so that resends agree.
    `time` stays text (RFC 3339) under `occurred_at`. Raises ValueError when the envelope is broken.
    """
    for name in REQUIRED:
        if not isinstance(obj.get(name), str) or not obj[name]:
            raise ValueError(f"{name} is missing")
    if not obj["specversion"].startswith("1."):
        raise ValueError(f"specversion {obj['specversion'][:16]!r}; 1.0 is understood")
    if "data_base64" in obj:
        raise ValueError("data_base64 is not taken; data must be a JSON object")
    data = obj.get("data")
    if not isinstance(data, dict):
        raise ValueError("data is no JSON object")
    fields = dict(data)
    fields.setdefault("event_id", event_id_of(obj["id"], obj["source"]))
    if obj.get("time") is not None:
        fields.setdefault("occurred_at", obj["time"])
    return fields


def event_id_of(identity: str, source: str) -> str:
    """Return a UUID for an id that is unique within its source: itself when it is one, else a name-based one."""
    text = identity.lower()
    # The length keeps ("a", "bc") and ("ab", "c") apart.
    return text if _UUID.fullmatch(text) else str(uuid5(NAMESPACE_URL, f"{len(source)}:{source}{identity}"))
