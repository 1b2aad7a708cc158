"""Usage event <-> bytes: Avro single-object encoding, Confluent framing with a known local schema id, and JSON.

Row by row; the hot path reads the same bytes in columns. The fingerprint is that of the vendored schema: none else is
accepted, and no registry is asked.
"""

import copy
import io
import json
from importlib import resources
from typing import Any, cast

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from tollmeter.schemas.event import UsageEvent

LOCAL_SCHEMA_ID = 1
"""Schema id in Confluent framing (00, then four bytes): version 1 of our vendored schema."""


def schema_text() -> str:
    """Return the vendored Avro schema as it stands in the file."""
    return (resources.files(__package__) / "avro" / "usage_event.v1.avsc").read_text(encoding="utf-8")


def _plain(node: object) -> Any:
    """Drop logical types (same fingerprint): at run time we want plain text and integers."""
    if isinstance(node, dict):
        if "logicalType" in node and set(node) <= {"type", "logicalType"}:
            return node["type"]
        return {key: _plain(value) for key, value in node.items() if key != "logicalType"}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return node


SCHEMA: dict[str, Any] = json.loads(schema_text())
PLAIN_SCHEMA: dict[str, Any] = _plain(copy.deepcopy(SCHEMA))
_PARSED = fastavro.parse_schema(copy.deepcopy(PLAIN_SCHEMA))
FIELDS: tuple[str, ...] = tuple(field["name"] for field in SCHEMA["fields"])
DEFAULTS: dict[str, Any] = {field["name"]: field["default"] for field in SCHEMA["fields"] if "default" in field}
FINGERPRINT = bytes.fromhex(fingerprint(to_parsing_canonical_form(copy.deepcopy(PLAIN_SCHEMA)), "CRC-64-AVRO"))
SINGLE_OBJECT_HEADER = b"\xc3\x01" + FINGERPRINT
CONFLUENT_HEADER = b"\x00" + LOCAL_SCHEMA_ID.to_bytes(4, "big")


def encode_body(fields: dict[str, Any]) -> bytes:
    """Encode wire fields (see `UsageEvent.wire`) as a bare Avro body, without framing."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _PARSED, fields)
    return out.getvalue()


def decode_body(body: bytes) -> dict[str, Any]:
    """Decode one bare Avro body into wire fields. Raises ValueError when it is malformed or has trailing bytes."""
    stream = io.BytesIO(body)
    try:
        fields = cast("dict[str, Any]", fastavro.schemaless_reader(stream, _PARSED, None))
    except Exception as error:  # fastavro raises EOFError, IndexError, UnicodeDecodeError, ... for malformed bytes
        raise ValueError(f"not an Avro usage event: {type(error).__name__}") from error
    if stream.tell() != len(body):
        raise ValueError(f"{len(body) - stream.tell()} bytes behind the end of the Avro body")
    return fields


def encode(event: UsageEvent) -> bytes:
    """Encode an event in Avro single-object encoding, the format our producers send."""
    return SINGLE_OBJECT_HEADER + encode_body(event.wire())
