"""Joined Avro bodies to columns: an in-memory container file around them, a sentinel behind them.

Its schema has the same bytes as ours and none of what polars lacks: enums are ints, maps lists of pairs.
"""

import io
import json
from collections.abc import Sequence

import fastavro
import polars as pl

from tollmeter.schemas import codec

ID_BYTES = 36
_BLOCK = 2_000  # records of one Avro block: what it fills while decoding stays in the processor's cache
_SYNC = b"tollmeter-blocks"


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


def _header() -> bytes:
    fields = [
        {"name": field["name"], "type": _column_schema(field["type"], field["name"])}
        for field in codec.PLAIN_SCHEMA["fields"]
    ]
    schema = json.dumps({"type": "record", "name": "UsageEvent", "fields": fields}).encode()
    return b"Obj\x01" + _long(1) + _long(11) + b"avro.schema" + _long(len(schema)) + schema + _long(0) + _SYNC


_HEADER = _header()
ROW_SCHEMA = fastavro.parse_schema(json.loads(json.dumps(codec.PLAIN_SCHEMA)))
_ENUMS: dict[str, list[str]] = {
    field["name"]: field["type"]["symbols"]
    for field in codec.PLAIN_SCHEMA["fields"]
    if isinstance(field["type"], dict) and field["type"]["type"] == "enum"
}
_SENTINEL_ID = "ffffffff-0000-4000-8000-746f6c6c6d65"
_SENTINEL = codec.encode_body(
    {**codec.DEFAULTS, "event_id": _SENTINEL_ID, "occurred_at": 0, "service": "", "provider": "", "model_sent": ""}
)


def read_block(bodies: Sequence[bytes]) -> pl.DataFrame | None:
    """Decode joined bodies; None unless every row was read from exactly its own bytes."""
    if not bodies:
        return EMPTY_BLOCK
    records = [*bodies, _SENTINEL]
    parts = [_HEADER]
    for begin in range(0, len(records), _BLOCK):
        block = b"".join(records[begin : begin + _BLOCK])
        parts += (_long(min(_BLOCK, len(records) - begin)), _long(len(block)), block, _SYNC)
    try:
        frame = pl.read_avro(io.BytesIO(b"".join(parts)))
    except (Exception, pl.exceptions.PanicException):  # lengths that lie make polars panic, which is no Exception
        return None
    ids = [body[1 : 1 + ID_BYTES] for body in bodies]
    ids.append(_SENTINEL_ID.encode())
    if frame.height != len(ids) or not (frame["event_id"].cast(pl.Binary) == pl.Series(ids, dtype=pl.Binary)).all():
        return None
    # What a block holds behind its last record goes unnoticed: records there are read once more, before a sentinel.
    ends = [bodies[end - 1] for end in range(_BLOCK, len(bodies) + 1, _BLOCK)]
    if frame.row(-1) != _SENTINEL_ROW or (ends and ends != list(bodies) and read_block(ends) is None):
        return None
    return frame.head(-1)


_ENUM_NAMES = [
    pl.col(name).replace_strict(list(range(len(symbols))), symbols, default=None, return_dtype=pl.String)
    for name, symbols in _ENUMS.items()
]


def with_names(frame: pl.DataFrame) -> pl.DataFrame:
    """Turn enum numbers into names; a number without a name becomes null, which validation refuses."""
    return frame.with_columns(_ENUM_NAMES)


def _read_sentinel() -> pl.DataFrame:
    file = b"".join((_HEADER, _long(1), _long(len(_SENTINEL)), _SENTINEL, _SYNC))
    return pl.read_avro(io.BytesIO(file))


_SENTINEL_FRAME = _read_sentinel()
_SENTINEL_ROW = _SENTINEL_FRAME.row(0)
EMPTY_BLOCK = _SENTINEL_FRAME.clear()
