"""Usage event <-> bytes: Avro single-object encoding, Confluent framing with a known local schema id, and JSON.

Row by row; the hot path reads the same bytes in columns. The fingerprint is that of a vendored schema: none else is
accepted, and no registry is asked. A version adds fields with defaults at the end of the one before it, so an old body
with the bytes of those defaults behind it is a new body.
"""

import copy
import io
import json
from importlib import resources
from typing import Any, NamedTuple, cast

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from tollmeter.schemas.event import UsageEvent

VERSION = 2
"""The version that is written, which is its schema id in Confluent framing (00, then four bytes), too."""


def schema_text(version: int = VERSION) -> str:
    """Return a vendored Avro schema as it stands in its file."""
    return (resources.files(__package__) / "avro" / f"usage_event.v{version}.avsc").read_text(encoding="utf-8")


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


class Framing(NamedTuple):
    """How a body begins that was written under one version, and what it lacks of the newest."""

    single: bytes
    confluent: bytes
    lacks: bytes


def _framing(version: int) -> Framing:
    """Return single-object and Confluent header of a version, and the defaults of the fields added since, encoded."""
    schema = _plain(json.loads(schema_text(version)))
    print_of = bytes.fromhex(fingerprint(to_parsing_canonical_form(copy.deepcopy(schema)), "CRC-64-AVRO"))
    added = PLAIN_SCHEMA["fields"][len(schema["fields"]) :]
    lacks = io.BytesIO()
    rest = fastavro.parse_schema({"type": "record", "name": "Added", "fields": copy.deepcopy(added)})
    fastavro.schemaless_writer(lacks, rest, {field["name"]: field["default"] for field in added})
    return Framing(b"\xc3\x01" + print_of, b"\x00" + version.to_bytes(4, "big"), lacks.getvalue())


FRAMINGS: tuple[Framing, ...] = tuple(_framing(version) for version in range(VERSION, 0, -1))
"""Every version that is read, the newest first."""
SINGLE_OBJECT_HEADER, CONFLUENT_HEADER, _ = FRAMINGS[0]
FINGERPRINT = SINGLE_OBJECT_HEADER[2:]


def body_of(value: bytes) -> bytes | None:
    """Return the body, in the newest version, of a framed event of any version; None when it is framed otherwise."""
    for single, confluent, lacks in FRAMINGS:
        for head in (single, confluent):
            if value.startswith(head):
                return value[len(head) :] + lacks
    return None


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
