"""A call as it shall be: the fields that change, checked as events are and priced as PRICE does; all else stays.

The rows replace those of the ledger under their identity, one revision up. What moves to another organisation, or is
gone, leaves an empty row: nothing is ever taken out of the ledger.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from tollmeter.schemas.control import Correction
from tollmeter.schemas.envelope import correction_headers
from tollmeter.schemas.event import micros
from tollmeter.schemas.priced import MAX_RECORD_BYTES, MAX_REVISION, PRICED_COLUMNS, VOID
from tollmeter.schemas.record import Headers
from tollmeter.streams.rules.events.validate import row_problem
from tollmeter.streams.rules.records.encode import (
    BLOCK_ROWS,
    MODEL,
    PRICED_DTYPES,
    encode_dicts,
    priced_columns,
    to_ipc,
)

TOTAL = "total_tokens"
COUNTERS = tuple(column.name for column in PRICED_COLUMNS if column.name.endswith("_tokens") and column.name != TOTAL)
UNKNOWN = tuple(
    column.name
    for column in PRICED_COLUMNS
    if column.name.startswith("at_risk") or column.name in ("est_cost_nano", "reported_cost_nano", TOTAL)
)
COSTS = tuple(column.name for column in PRICED_COLUMNS if column.name.startswith("cost_"))
FIELDS = (
    "org_id",
    "group_id",
    "user_id",
    "agent",
    "operation_name",
    "session_id",
    "api_key_id",
    "billing_scope",
    "client_ip",
    "provider",
    "model_sent",
    "model_used",
    "service_tier",
    "processing",
    "status",
    "usage_source",
    *COUNTERS,
)
"""What a correction may set, beside tags. Time and place in the log are never corrected."""
COUNTED = {"input_tokens", "output_tokens"}
STATED = tuple(column.name for column in PRICED_COLUMNS if column.source)
"""What the event says; the rest is made of it."""
TAG = "tags."
VOID_RULE = "void"

Price = Callable[[pl.DataFrame], pl.DataFrame]
"""The price columns of events: `PriceBook.price`."""
Row = Mapping[str, Any]


class AmendError(Exception):
    """The correction makes no sense; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class Amendment:
    """What is to be set. Of tags None takes one away. Nothing to set: the rows are priced again."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str | None] = field(default_factory=dict)
    void: bool = False


def parse(assignments: Iterable[str]) -> Amendment:
    """Return what FIELD=VALUE texts say. Raises `AmendError`."""
    fields: dict[str, Any] = {}
    tags: dict[str, str | None] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise AmendError(f"{text!r} is no FIELD=VALUE")
        if name.startswith(TAG) and name != TAG:
            tags[name.removeprefix(TAG)] = value or None
        elif name not in FIELDS:
            raise AmendError(f"{name} cannot be corrected: {', '.join(FIELDS)} and tags.KEY can")
        elif name in COUNTERS:
            if not value.removeprefix("-").isdecimal():
                raise AmendError(f"{name}: {value!r} is no whole number")
            fields[name] = int(value)
        else:
            fields[name] = value
    return Amendment(fields, tags)


def amend(rows: pl.DataFrame, amendment: Amendment, price: Price) -> pl.DataFrame:
    """Return the rows (contract columns, text as text) as they shall be, in their order. Raises `AmendError`."""
    if amendment.void:
        return void(rows)
    now = rows.with_columns(pl.lit(value, PRICED_DTYPES[name]).alias(name) for name, value in amendment.fields.items())
    if amendment.tags:
        now = now.with_columns(pl.Series("tags", [_tags(t, amendment.tags) for t in rows["tags"]], now.schema["tags"]))
    if COUNTED & amendment.fields.keys():  # what was stated beside other counts says nothing below these
        sums = pl.col("input_tokens") + pl.col("output_tokens")
        now = now.with_columns(pl.when(pl.col(TOTAL) >= sums).then(pl.col(TOTAL)).alias(TOTAL))
    for was, row in zip(rows["status"], now.iter_rows(named=True), strict=True):
        _check(was, row)
    return _next(rows, _priced(now, price))


def void(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the empty rows that stay of calls that are gone: nothing used, free, and of no call."""
    return _next(rows, emptied(rows))


def emptied(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with everything that counts taken out: what PRICE makes of a refused call, and the mark VOID."""
    nothing = [pl.lit(0, PRICED_DTYPES[name]).alias(name) for name in (*COUNTERS, *COSTS)]
    unknown = [pl.lit(None, PRICED_DTYPES[name]).alias(name) for name in UNKNOWN]
    units = pl.Series("extra_units", [[]] * rows.height, PRICED_DTYPES["extra_units"])
    said = {"status": VOID, "price_status": "FREE", "rule_id": VOID_RULE}
    return rows.with_columns(*nothing, *unknown, units, *(pl.lit(text).alias(name) for name, text in said.items()))


def changed(was: Row, now: Row, amendment: Amendment) -> tuple[str, ...]:
    """Return the fields by which two rows differ, of those that were to be set; the price, where nothing was."""
    if amendment.void:
        asked: Iterable[str] = ("status",)
    elif amendment.fields or amendment.tags:
        asked = [*amendment.fields, *(["tags"] if amendment.tags else [])]
    else:
        asked = [name for name in PRICED_DTYPES if name not in (*STATED, "revision", "price_book", "rule_id")]
    return tuple(name for name in asked if was[name] != now[name])


def same(row: Row, other: Row, columns: Iterable[str] = tuple(PRICED_DTYPES)) -> bool:
    """Tell whether two rows agree in these columns."""
    return all(row[name] == other[name] for name in columns)


def _tags(pairs: Iterable[Mapping[str, str]], changes: Mapping[str, str | None]) -> list[dict[str, str]]:
    merged = {pair["key"]: pair["value"] for pair in pairs} | dict(changes)
    return [{"key": key, "value": value} for key, value in merged.items() if value is not None]


def _check(status: str, row: Row) -> None:
    if status == row["status"] == VOID:
        raise AmendError(f"call {row['event_id']} is void: --set status=OK with its token counts brings it back")
    event = {column.source: row[column.name] for column in PRICED_COLUMNS if column.source}
    event["occurred_at"] = micros(event["occurred_at"])
    problem = row_problem(event)
    if problem:
        raise AmendError(f"call {row['event_id']}: {problem[1]}")


def _priced(events: pl.DataFrame, price: Price) -> pl.DataFrame:
    named = events.with_columns(MODEL)
    costs = price(named)
    return priced_columns(named.drop(costs.columns), costs)


def without_person(rows: pl.DataFrame, fields: Iterable[str]) -> pl.DataFrame:
    """Return the rows one revision up, with these text fields empty and everything that counts as it is."""
    return _next(rows, rows.with_columns(pl.lit("", PRICED_DTYPES[name]).alias(name) for name in fields))


def repriced(rows: pl.DataFrame, price: Price, was: pl.DataFrame | None = None) -> tuple[pl.DataFrame, pl.Series]:
    """Return the rows priced again, one revision up, and which of them are priced otherwise than `was` (the rows).

    No row is looked at in Python. Book and rule alone are no difference. Raises `AmendError`.
    """
    before = rows if was is None else was
    now = _next(before, _priced(rows, price))
    differs = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
    for name in PRICED_DTYPES:
        if name not in (*STATED, "revision", "price_book", "rule_id"):
            differs |= before[name].ne_missing(now[name])
    return now, differs


def filled(rows: pl.DataFrame, convert: Price) -> tuple[pl.DataFrame, pl.Series]:
    """Return the rows one revision up with amounts for which there is a rate by now, and which of them have any.

    What was converted once stays; what was an amount at an old rate and a margin, for limits, becomes what it is.
    """
    made, now = convert(rows), rows
    any_filled = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
    of_format_1 = rows["fx_date"].is_not_null() & rows["fx_eur_date"].is_null() & rows["fx_rub_date"].is_null()
    for name in ("eur", "rub"):
        day, cost, at_risk = f"fx_{name}_date", f"cost_{name}_nano", f"at_risk_{name}_nano"
        unconverted = rows[cost].is_null() & rows["cost_nano"].is_not_null()
        unrated = rows["cost_nano"].is_null() & rows["at_risk_nano"].is_not_null() & rows[day].is_null()
        fill = (unconverted | (unrated & ~of_format_1)) & made[day].is_not_null()
        now = now.with_columns(made[column].zip_with(fill, rows[column]) for column in (day, cost, at_risk))
        any_filled |= fill
    oldest = pl.min_horizontal("fx_date", "fx_eur_date", "fx_rub_date")
    now = now.with_columns(pl.when(any_filled).then(oldest).otherwise("fx_date").alias("fx_date"))
    return _next(rows, now), any_filled


def _next(rows: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    revisions = rows["revision"].cast(pl.Int64) + 1
    if rows.height and int(revisions.to_numpy().max()) >= MAX_REVISION:
        raise AmendError(f"a call cannot be corrected more than {MAX_REVISION - 1} times")
    return now.with_columns(revisions.cast(pl.UInt16).alias("revision"))


class Part(NamedTuple):
    """Rows of one organisation: `now` replaces `was` row by row, or comes from another organisation (`was` empty)."""

    org_id: str
    was: pl.DataFrame
    now: pl.DataFrame


def records(
    part: Part, correction_id: str, reason: str, limit: int = MAX_RECORD_BYTES, *, doubled: bool = False
) -> list[tuple[bytes, Headers]]:
    """Return value and headers of the records that carry a part, none above the limit unless of one row.

    Whatever has too many rows is cut before it is encoded: a block that turns out too large costs its work twice.
    """
    most = BLOCK_ROWS // 2 if part.was.height else BLOCK_ROWS
    if part.now.height > most:
        cuts = [
            Part(part.org_id, part.was[at : at + most], part.now[at : at + most])
            for at in range(0, part.now.height, most)
        ]
        return [record for cut in cuts for record in records(cut, correction_id, reason, limit, doubled=doubled)]
    rows = pl.concat([part.was, part.now])
    value = to_ipc(encode_dicts(rows))
    if part.now.height <= 1 or len(value) <= limit:
        correction = Correction(
            id=correction_id, org_id=part.org_id, was=part.was.height, reason=reason, doubled=doubled
        )
        return [(value, correction_headers(correction, rows.height))]
    middle = part.now.height // 2
    halves = (
        Part(part.org_id, part.was[:middle], part.now[:middle]),
        Part(part.org_id, part.was[middle:], part.now[middle:]),
    )
    return [record for half in halves for record in records(half, correction_id, reason, limit, doubled=doubled)]
