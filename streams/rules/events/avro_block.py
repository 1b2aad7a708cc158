"""Joined Avro bodies to columns: an in-memory container file around them, a mark behind each.

Its schema has the same bytes as ours and none of what polars lacks: enums are ints, maps lists of pairs. Behind each
body stand eight bytes that nobody can foresee, read as a column of the row before: a body that ends elsewhere than its
row shows there. Bytes of a record cannot be taken for the mark (they do not hold it, and it does not overlap itself),
and a block has as many marks as rows: when every row has its mark, each was read from exactly its own bytes.
"""

import io
import json
import math
import secrets
import struct
from collections.abc import Sequence

import fastavro
import polars as pl

from tollmeter.schemas import codec

ID_BYTES = 36
_BLOCK = 500  # records of one Avro block: what it fills while decoding stays in the processor's cache
_SYNC = b"tollmeter-blocks"
_FRAMING = len(codec.SINGLE_OBJECT_HEADER)


def _column_schema(node: object, name: str = "") -> object:
    """Return a schema with the same bytes that has none of what polars lacks: enums are ints, maps lists of pairs."""
    if isinstance(node, list):
        return [_column_schema(branch) for branch in node]
    if not isinstance(node, dict):
        return node
    if node["type"] == "enum":
        return "int"
    if node["type"] == "map":
        pair = [{"name": "key", "type": "string"}, {"name": "value", "type": node["values"]}]
        return {"type": "array", "items": {"type": "record", "name": f"{name}_pair", "fields": pair}}
    return _column_schema(node["type"], name)


def _long(value: int) -> bytes:
    """Return an integer as Avro writes it: zigzag, seven bits a byte, low bits first."""
    rest, out = value << 1 if value >= 0 else (-value << 1) - 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _new_mark() -> bytes:
    """Return eight random bytes that are a number to compare, and whose beginning is never their end."""
    while True:
        mark = secrets.token_bytes(8)
        overlaps = any(mark[:size] == mark[-size:] for size in range(1, 8))
        if not overlaps and math.isfinite(_as_number(mark)) and _as_number(mark):
            return mark


def _as_number(mark: bytes) -> float:
    number: float = struct.unpack("<d", mark)[0]
    return number


def _header(*before: object) -> bytes:
    fields = [
        *before,
        *(
            {"name": field["name"], "type": _column_schema(field["type"], field["name"])}
            for field in codec.PLAIN_SCHEMA["fields"]
        ),
        {"name": "_mark", "type": "double"},
    ]
    schema = json.dumps({"type": "record", "name": "UsageEvent", "fields": fields}).encode()
    return b"Obj\x01" + _long(1) + _long(11) + b"avro.schema" + _long(len(schema)) + schema + _long(0) + _SYNC


_MARK = _new_mark()
_BARE = _header()
_FRAMED = _header({"name": "_framing", "type": {"type": "fixed", "name": "framing", "size": _FRAMING}})
_MARKED = (pl.col("_mark") == _as_number(_MARK)).all()
_OURS = (
    _MARKED
    & (pl.col("_framing") == pl.lit(codec.SINGLE_OBJECT_HEADER)).all()
    & (pl.col("event_id").str.len_bytes() == ID_BYTES).all()
)
ROW_SCHEMA = fastavro.parse_schema(json.loads(json.dumps(codec.PLAIN_SCHEMA)))
_ENUMS: dict[str, list[str]] = {
    field["name"]: field["type"]["symbols"]
    for field in codec.PLAIN_SCHEMA["fields"]
    if isinstance(field["type"], dict) and field["type"]["type"] == "enum"
}


def read_block(bodies: Sequence[bytes]) -> pl.DataFrame | None:
    """Decode joined bodies; None unless every row was read from exactly its own bytes."""
    if not bodies:
        return EMPTY_BLOCK
    frame = _read(_BARE, bodies)
    return frame.drop("_mark") if frame is not None and frame.select(_MARKED).item() else None


def read_framed(values: Sequence[bytes]) -> pl.DataFrame | None:
    """Decode values in single-object framing; None unless each is one with an id of 36 bytes, read as it stands."""
    if not values:
        return EMPTY_BLOCK
    frame = _read(_FRAMED, values)
    return frame.drop("_framing", "_mark") if frame is not None and frame.select(_OURS).item() else None


def _read(header: bytes, records: Sequence[bytes]) -> pl.DataFrame | None:
    """Decode records, a mark behind each; None where that is no row a record."""
    parts = [header]
    for begin in range(0, len(records), _BLOCK):
        some = [*records[begin : begin + _BLOCK], b""]
        block = _MARK.join(some)
        parts += (_long(len(some) - 1), _long(len(block)), block, _SYNC)
    try:
        frame = pl.read_avro(io.BytesIO(b"".join(parts)))
    except (Exception, pl.exceptions.PanicException):  # lengths that lie make polars panic, which is no Exception
        return None
    return frame if frame.height == len(records) else None


_ENUM_NAMES = [
    pl.col(name).replace_strict(list(range(len(symbols))), symbols, default=None, return_dtype=pl.String)
    for name, symbols in _ENUMS.items()
]


def with_names(frame: pl.DataFrame) -> pl.DataFrame:
    """Turn enum numbers into names; a number without a name becomes null, which validation refuses."""
    return frame.with_columns(_ENUM_NAMES)


def _empty_block() -> pl.DataFrame:
    event = {**codec.DEFAULTS, "event_id": "", "occurred_at": 0, "service": "", "provider": "", "model_sent": ""}
    frame = _read(_BARE, [codec.encode_body(event)])
    assert frame is not None
    return frame.drop("_mark").clear()


EMPTY_BLOCK = _empty_block()
