"""JSON records to columns: strict types, one row or one reject for each; no number is guessed from text or bool.

Plain usage events and CloudEvents in structured mode. Absent and null mean the default; an unknown field is refused,
because a misspelt counter must not read as 0.
"""

from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Any

import orjson
import polars as pl

from tollmeter.schemas import codec
from tollmeter.schemas.cloudevents import is_cloudevent, unwrap
from tollmeter.schemas.event import micros
from tollmeter.schemas.times import EXPECTED, is_number, micros_of

_INT64 = 2**63

Check = Callable[[Any], bool]


def _are_units(value: dict[str, Any]) -> bool:
    return all(
        type(amount) is float or (type(amount) is int and -_INT64 <= amount < _INT64) for amount in value.values()
    )


def _are_tags(value: dict[str, Any]) -> bool:
    return all(type(text) is str for text in value.values())


def _is_long(value: int) -> bool:
    return bool(-_INT64 <= value < _INT64)


def _is_int(value: int) -> bool:
    return bool(-(2**31) <= value < 2**31)


def _pairs(value: pl.DataType) -> pl.List:
    return pl.List(pl.Struct({"key": pl.String(), "value": value}))


_TYPES: dict[str, tuple[pl.DataType, type, Check | None, str]] = {
    "string": (pl.String(), str, None, "text"),
    "long": (pl.Int64(), int, _is_long, "a whole number of 64 bits"),
    "int": (pl.Int32(), int, _is_int, "a whole number of 32 bits"),
    "boolean": (pl.Boolean(), bool, None, "true or false"),
    "double": (_pairs(pl.Float64()), dict, _are_units, "an object of numbers"),
    "tags": (_pairs(pl.String()), dict, _are_tags, "an object of texts"),
}


def _kind(schema: object) -> str:
    if isinstance(schema, list):
        return str(schema[1])
    if isinstance(schema, dict):
        if schema["type"] == "enum":
            return "string"
        return "tags" if schema["values"] == "string" else "double"
    return str(schema)


_FIELDS = {field["name"]: _TYPES[_kind(field["type"])] for field in codec.PLAIN_SCHEMA["fields"]}
WIRE_DTYPES: dict[str, pl.DataType] = {name: dtype for name, (dtype, _, _, _) in _FIELDS.items()}
"""Polars types of the wire columns, in order; enums are text."""

_CHECKS = {name: (kind, check) for name, (_, kind, check, _) in _FIELDS.items()}
_MAPS = tuple(name for name, dtype in WIRE_DTYPES.items() if isinstance(dtype, pl.List))
_FLAT = tuple(name for name in WIRE_DTYPES if name not in _MAPS)
_VALUES = itemgetter(*_FLAT)
_REQUIRED = tuple(name for name in codec.FIELDS if name not in codec.DEFAULTS)

Bad = list[tuple[int, str, str]]


def decode_json(texts: list[bytes]) -> tuple[pl.DataFrame, list[int], Bad]:
    """Decode JSON texts; return rows in wire columns, the positions they came from, and what was refused."""
    rows: list[dict[str, Any]] = []
    kept: list[int] = []
    bad: Bad = []
    for at, text in enumerate(texts):
        fields = _parse(text)
        if isinstance(fields, tuple):
            bad.append((at, *fields))
        else:
            rows.append({**codec.DEFAULTS, **fields})
            kept.append(at)
    by_name = zip(*map(_VALUES, rows), strict=True) if rows else ([] for _ in _FLAT)
    columns = [
        pl.Series(name, values, dtype=WIRE_DTYPES[name], strict=True)
        for name, values in zip(_FLAT, by_name, strict=True)
    ]
    columns += [_map_column(name, rows) for name in _MAPS]
    return pl.DataFrame(columns).select(list(WIRE_DTYPES)), kept, bad


def _map_column(name: str, rows: list[dict[str, Any]]) -> pl.Series:
    """Build a column of pairs from one flat list: a nested list for each row would cost 50 microseconds."""
    dtype = WIRE_DTYPES[name]
    pairs = [(at, key, value) for at, row in enumerate(rows) for key, value in row[name].items()]
    if not pairs:
        return pl.Series(name, [[]], dtype=dtype).new_from_index(0, len(rows))
    at, keys, values = zip(*pairs, strict=True)
    value_type = dtype.inner.fields[1].dtype  # type: ignore[attr-defined]  # a list of structs, see `_pairs`
    flat = pl.DataFrame(
        {"at": at, "key": keys, "value": pl.Series([float(v) for v in values] if value_type.is_float() else values)}
    )
    grouped = flat.group_by("at", maintain_order=True).agg(pl.struct("key", "value").alias(name))
    every = pl.DataFrame({"at": pl.int_range(0, len(rows), eager=True)})
    joined = every.join(grouped, on="at", how="left", maintain_order="left")[name]
    return joined.fill_null(pl.Series([[]], dtype=dtype))


def _parse(text: bytes) -> dict[str, Any] | tuple[str, str]:
    """Return checked wire fields, or reason and detail."""
    try:
        document = orjson.loads(text)
    except (orjson.JSONDecodeError, RecursionError) as error:
        return "bad_json", str(error)[:200]
    if type(document) is not dict:
        return "not_an_object", f"JSON {type(document).__name__}, not an object"
    if is_cloudevent(document):
        try:
            document = unwrap(document)
        except ValueError as error:
            return "bad_value", f"CloudEvent: {error}"[:200]
    fields = {name: value for name, value in document.items() if value is not None}
    return _problem(fields) or fields


def _problem(fields: dict[str, Any]) -> tuple[str, str] | None:
    at = fields.get("occurred_at")
    if isinstance(at, int | float | str) and not isinstance(at, bool):
        moment = _micros(at)
        if isinstance(moment, tuple):
            return moment
        fields["occurred_at"] = moment
    for name in _REQUIRED:
        if name not in fields:
            return ("bad_event_id" if name == "event_id" else "missing_field"), f"{name} is missing"
    for name, value in fields.items():
        if name not in _CHECKS:
            return "bad_value", f"unknown field {name[:64]!r}"
        kind, check = _CHECKS[name]
        if type(value) is not kind or (check is not None and not check(value)):
            return "bad_value", f"{name} is {type(value).__name__}, not {_FIELDS[name][3]}"
    return None


def _micros(at: int | float | str) -> int | tuple[str, str]:
    """Return microseconds since 1970, or reason and detail."""
    if not isinstance(at, str) or is_number(at):
        found = micros_of(at)
        return ("time_out_of_range", f"occurred_at {str(at)[:40]} is {EXPECTED}") if found is None else found
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is not None:
            return micros(moment)
    except (ValueError, OverflowError):
        pass
    return "bad_value", "occurred_at is neither a number since 1970 nor RFC 3339 with a time zone"
