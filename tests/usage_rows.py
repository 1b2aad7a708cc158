"""Usage events for tests of the line: wire fields, their bytes in every format, and hypothesis strategies for them."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from tollmeter.schemas import codec

AT = 1_795_341_600_000_000  # 2026-11-22T10:00:00Z in microseconds
ORGS = ("acme", "umbra", "initech", "globex", "cyberdyne", "oscorp", "wayne", "soylent")


def fields(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the wire fields of an event; the same number gives the same event."""
    return {
        **codec.DEFAULTS,
        "event_id": str(uuid.UUID(int=number + (4 << 76) + (8 << 60))),
        "occurred_at": AT + number,
        "service": "checkout",
        "provider": "openai",
        "model_sent": "gpt-4o",
        "org_id": ORGS[number % len(ORGS)],
        "user_id": f"user-{number % 97}",
        "api_key_id": f"{number % 13:016x}",
        "client_ip": f"10.0.{number % 5}.{number % 251}",
        "billing_scope": "ORG",
        "status": "OK",
        "usage_source": "PROVIDER",
        "input_tokens": 1_000 + number % 500,
        "output_tokens": number % 300,
        **changes,
    }


def avro(event: dict[str, Any]) -> bytes:
    return codec.SINGLE_OBJECT_HEADER + codec.encode_body(event)


def confluent(event: dict[str, Any]) -> bytes:
    return codec.CONFLUENT_HEADER + codec.encode_body(event)


def as_json(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


def cloudevent(event: dict[str, Any]) -> bytes:
    """The event as CloudEvents 1.0 structured JSON; id and time stand in the envelope alone."""
    data = {name: value for name, value in event.items() if name not in ("event_id", "occurred_at")}
    at = datetime.fromtimestamp(event["occurred_at"] // 1_000_000, tz=UTC)
    time = at.replace(microsecond=event["occurred_at"] % 1_000_000).isoformat()
    envelope = {"specversion": "1.0", "id": event["event_id"], "source": "tests", "type": "usage", "time": time}
    return json.dumps({**envelope, "data": data}).encode()


def wire(row: dict[str, Any]) -> dict[str, Any]:
    """Return a decoded row as wire fields: pairs become maps again."""
    maps = ("tags", "extra_units")
    return {k: {p["key"]: p["value"] for p in v} if k in maps else v for k, v in row.items()}


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)
_LONG = st.integers(-(2**63), 2**63 - 1)
_INT = st.integers(-(2**31), 2**31 - 1)
_BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "string": _TEXT,
    "long": _LONG,
    "int": _INT,
    "boolean": st.booleans(),
    "double": st.floats(allow_nan=False),
}


def _field(schema: Any) -> st.SearchStrategy[Any]:
    if isinstance(schema, list):
        return st.none() | _BY_TYPE[schema[1]]
    if isinstance(schema, dict) and schema["type"] == "enum":
        return st.sampled_from(schema["symbols"])
    if isinstance(schema, dict):
        return st.dictionaries(_TEXT, _BY_TYPE[schema["values"]], max_size=4)
    return _BY_TYPE[schema]


def any_event() -> st.SearchStrategy[dict[str, Any]]:
    """Any event that Avro can carry, whether it makes sense or not; only its id is a UUID."""
    strategies = {field["name"]: _field(field["type"]) for field in codec.PLAIN_SCHEMA["fields"]}
    strategies["event_id"] = st.uuids().map(str)
    return st.fixed_dictionaries(strategies)
