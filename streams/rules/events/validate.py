"""A decoded row is good or has one reason: a vectorised screen finds suspects, an exact row rule judges them alone.

The screen lets no bad row pass (a law holds it to the row rule), and may suspect a good one.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from tollmeter.schemas import codec
from tollmeter.schemas.event import (
    MAX_TAG_CHARS,
    MAX_TAGS,
    MAX_TOKENS,
    MAX_TOTAL_TOKENS,
    counter_problem,
    total_problem,
)
from tollmeter.schemas.money import MAX_EVENT_NANO
from tollmeter.streams.rules.events.decode_avro import Reject
from tollmeter.streams.rules.events.decode_json import WIRE_DTYPES

MAX_TEXT_CHARS = 256
MAX_UNITS = 1e9
MAX_UNIT_KEYS = 64
FIRST_MICROS = 0
END_MICROS = 4_102_444_800_000_000  # 2100-01-01
_FEW = 64  # so few rows are judged sooner than a screen of 80 expressions is set up
_DAY_MS = 86_400_000
OLD_MS = 35 * _DAY_MS
AHEAD_MS = 5 * 60_000
BEFORE_2020_MICROS = 1_577_836_800_000_000

_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_KEY_TEXT = r"^(sk-[\w-]{20,}|AIza[\w-]{30,}|xox[a-z]-[\w-]{10,}|ghp_\w{30,}|eyJ[\w-]{5,}\.[\w-]{5,}\..*)"
_IS_UUID = re.compile(_UUID.removesuffix("$"))
_IS_KEY = re.compile(_KEY_TEXT)

_ENUMS = {
    field["name"]: tuple(field["type"]["symbols"])
    for field in codec.PLAIN_SCHEMA["fields"]
    if isinstance(field["type"], dict) and field["type"]["type"] == "enum"
}
_TEXTS = tuple(name for name, dtype in WIRE_DTYPES.items() if dtype == pl.String and name not in _ENUMS)
_TOTAL = "total_tokens"
_COUNTS = tuple(name for name in WIRE_DTYPES if name.endswith("_tokens") and name != _TOTAL)
_NANOS = ("est_cost_nano", "reported_cost_nano")
_INTS = ("http_status", "latency_ms", "ttft_ms", "prompt_chars")


@dataclass(frozen=True, slots=True)
class Validated:
    frame: pl.DataFrame
    index: list[int]
    rejects: list[Reject]


def validate(frame: pl.DataFrame, index: list[int]) -> Validated:
    """Keep the good rows with their positions; give each bad one a reason. Times only far off are kept, see `flags`."""
    suspects = range(frame.height) if frame.height <= _FEW else _suspects(frame)
    bad: dict[int, Reject] = {}
    for at in suspects:
        problem = row_problem(frame.row(at, named=True))
        if problem:
            bad[at] = Reject(index[at], *problem)
    if not bad:
        return Validated(frame, index, [])
    keep = [at for at in range(frame.height) if at not in bad]
    return Validated(frame[keep], [index[at] for at in keep], list(bad.values()))


def _suspects(frame: pl.DataFrame) -> list[int]:
    return frame.select(_SUSPECT).to_series().fill_null(value=True).arg_true().to_list()


def row_problem(row: dict[str, Any]) -> tuple[str, str] | None:
    """Judge one row of wire columns; None when it is good, else reason and detail. No value is repeated in full."""
    if not _IS_UUID.fullmatch(row["event_id"]):
        return "bad_event_id", "event_id is not a lower-case UUID"
    if not FIRST_MICROS <= row["occurred_at"] < END_MICROS:
        return "time_out_of_range", f"occurred_at {row['occurred_at']} microseconds is not between 1970 and 2100"
    if _IS_KEY.match(row["api_key_id"]):
        return "secret", "api_key_id looks like the key itself: send a keyed hash of it"
    detail = _text_problem(row) or _number_problem(row) or _map_problem(row)
    return ("bad_value", detail) if detail else None


def _text_problem(row: dict[str, Any]) -> str:
    for name, symbols in _ENUMS.items():
        if row[name] not in symbols:
            return f"{name} is none of {', '.join(symbols)}"
    for name in _TEXTS:
        if len(row[name]) > MAX_TEXT_CHARS:
            return f"{name} has {len(row[name])} characters; at most {MAX_TEXT_CHARS} are kept"
    return ""


def _number_problem(row: dict[str, Any]) -> str:
    bounds = (*((name, MAX_TOKENS) for name in _COUNTS), *((name, MAX_EVENT_NANO) for name in _NANOS))
    for name, most in (*bounds, (_TOTAL, MAX_TOTAL_TOKENS), *((name, 2**31 - 1) for name in _INTS)):
        if row[name] is not None and not 0 <= row[name] <= most:
            return f"{name} is {row[name]}; 0 to {most} is possible"
    return counter_problem(*(row[name] for name in _COUNTS)) or total_problem(
        row[_TOTAL], row["input_tokens"] + row["output_tokens"]
    )


def _map_problem(row: dict[str, Any]) -> str:
    if len(row["tags"]) > MAX_TAGS:
        return f"{len(row['tags'])} tags; at most {MAX_TAGS} are kept"
    for pair in row["tags"]:
        if max(len(pair["key"]), len(pair["value"])) > MAX_TAG_CHARS:
            return f"a tag is longer than {MAX_TAG_CHARS} characters"
    if len(row["extra_units"]) > MAX_UNIT_KEYS:
        return f"{len(row['extra_units'])} extra_units; at most {MAX_UNIT_KEYS} are kept"
    for pair in row["extra_units"]:
        if len(pair["key"]) > MAX_TEXT_CHARS:
            return f"a key of extra_units is longer than {MAX_TEXT_CHARS} characters"
        if not math.isfinite(pair["value"]) or not 0 <= pair["value"] <= MAX_UNITS:
            return f"extra_units: {pair['value']} is not between 0 and {MAX_UNITS:.0f}"
    return ""


def _outside(name: str, most: int) -> pl.Expr:
    """True where a number is outside its bounds; false for null, which is allowed wherever it can occur."""
    return ((pl.col(name) < 0) | (pl.col(name) > most)).fill_null(False)


def _suspect() -> pl.Expr:
    texts = [pl.col(name).str.len_bytes() > MAX_TEXT_CHARS for name in _TEXTS]
    enums = [~pl.col(name).is_in(symbols) for name, symbols in _ENUMS.items()]
    numbers = [_outside(name, MAX_TOKENS) for name in _COUNTS] + [_outside(name, MAX_EVENT_NANO) for name in _NANOS]
    numbers += [_outside(_TOTAL, MAX_TOTAL_TOKENS)]
    numbers += [pl.col(name).fill_null(0) < 0 for name in _INTS]
    parts = [
        pl.col("cache_read_tokens") + pl.col("cache_write_tokens") > pl.col("input_tokens"),
        pl.col("cache_write_1h_tokens") > pl.col("cache_write_tokens"),
        pl.col("reasoning_tokens") > pl.col("output_tokens"),
        (pl.col(_TOTAL) < pl.col("input_tokens") + pl.col("output_tokens")).fill_null(False),
    ]
    key, value = pl.element().struct.field("key"), pl.element().struct.field("value")
    long_tag = (key.str.len_bytes() > MAX_TAG_CHARS) | (value.str.len_bytes() > MAX_TAG_CHARS)
    odd_unit = (key.str.len_bytes() > MAX_TEXT_CHARS) | ~value.is_between(0, MAX_UNITS)
    maps = [
        pl.col("tags").list.len() > MAX_TAGS,
        pl.col("tags").list.eval(long_tag).list.any(),
        pl.col("extra_units").list.len() > MAX_UNIT_KEYS,
        pl.col("extra_units").list.eval(odd_unit).list.any(),
    ]
    return pl.any_horizontal(
        ~pl.col("event_id").str.contains(_UUID),
        ~pl.col("occurred_at").is_between(FIRST_MICROS, END_MICROS - 1),
        pl.col("api_key_id").str.contains(r"^(sk-|AIza|xox|ghp_|eyJ)"),
        *texts,
        *enums,
        *numbers,
        *parts,
        *maps,
    )


_SUSPECT = _suspect()

_AT_MS = pl.col("event_time").dt.epoch("ms")
_SEEN_MS = pl.col("received_at").dt.epoch("ms")
FLAGS = (
    pl.when(_AT_MS > _SEEN_MS + AHEAD_MS)
    .then(pl.lit("ahead"))
    .when(pl.col("backfill"))
    .then(pl.lit("backfill"))
    .when(pl.col("event_time").dt.epoch("us") < BEFORE_2020_MICROS)
    .then(pl.lit("before_2020"))
    .when(_AT_MS < _SEEN_MS - OLD_MS)
    .then(pl.lit("old"))
    .otherwise(pl.lit(""))
    .alias("flags")
)
"""Says of a time what is odd about it, or that it was brought in afterwards (`backfill`); the row is kept."""
