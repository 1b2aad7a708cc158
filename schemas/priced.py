"""The columns of `usage.priced`: one Arrow IPC stream per record, and the headers that describe it.

This table is the contract between PRICE, LEDGER, WATCH and the ClickHouse table `usage_events`; a golden test holds it.
Kinds: text, dict (repeated text, dictionary-encoded; in a record of few rows plain text), i64, i32, u16, bool, ts_us,
ts_ms (UTC), date, units (list of {key, value: float}), tags (list of {key, value: text}). A trailing ? means nullable.
"""

from typing import NamedTuple

FORMAT_VERSION = 2
"""The newest that is read. 2: rows and corrections have three columns more, which are NULL in those of format 1."""
FIRST_FORMAT = 1
"""What all other kinds are written in, guards of older services read them."""
MAX_RECORD_BYTES = 900_000


class Column(NamedTuple):
    name: str
    kind: str
    source: str
    """Field of the usage event it copies; "" = made by PRICE."""


def _same(kind: str, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind, name) for name in names)


def _made(kind: str, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind, "") for name in names)


PRICED_COLUMNS: tuple[Column, ...] = (
    Column("event_id", "text", "event_id"),
    Column("event_time", "ts_us", "occurred_at"),
    *_made("ts_ms", "received_at"),
    *_made("u16", "src_partition"),
    *_made("i64", "src_offset"),
    *_made("u16", "revision"),
    *_made("dict", "flags"),
    *_same("text", "request_id", "provider_request_id", "trace_id", "span_id"),
    *_same("dict", "service", "environment", "producer", "org_id", "group_id", "user_id", "agent"),
    Column("operation_name", "dict", "feature"),
    *_same("text", "session_id"),
    *_same("dict", "api_key_id", "billing_scope"),
    *_same("dict", "client_ip"),
    *_same("dict", "provider", "api_host", "region", "operation"),
    *_made("dict", "model"),
    *_same("dict", "model_sent", "model_used", "deployment", "fallback_from", "service_tier", "processing"),
    *_same("bool", "stream"),
    *_same("dict", "status"),
    *_same("i32?", "http_status"),
    *_same("dict", "error_type"),
    *_same("i32?", "latency_ms", "ttft_ms"),
    *_same("dict", "usage_source"),
    *_same("i64", "input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *_same("i64", "output_tokens", "reasoning_tokens"),
    *_same("units", "extra_units"),
    *_same("i64?", "est_cost_nano", "reported_cost_nano"),
    *_same("i32?", "prompt_chars"),
    *_same("text", "prompt_hash"),
    *_same("tags", "tags"),
    *_made("dict", "price_status"),
    *_made("i64?", "cost_nano", "cost_input_nano", "cost_cache_read_nano", "cost_cache_write_nano"),
    *_made("i64?", "cost_output_nano", "cost_other_nano", "at_risk_nano"),
    *_made("i64?", "cost_eur_nano", "cost_rub_nano", "at_risk_eur_nano", "at_risk_rub_nano"),
    *_made("date?", "fx_date"),
    *_made("dict", "price_book", "rule_id", "provider_id", "model_id"),
    *_same("i64?", "total_tokens"),
    *_made("date?", "fx_eur_date", "fx_rub_date"),
)

SINCE_FORMAT_2 = ("total_tokens", "fx_eur_date", "fx_rub_date")
"""What rows of format 1 lack. All nullable: what is not known is NULL."""

PRICE_STATUSES = ("PRICED", "PARTIAL", "FREE", "UNKNOWN_MODEL", "NO_USAGE", "INVALID", "OVERRIDE", "SUBSCRIPTION")
"""cost_nano is NULL exactly for UNKNOWN_MODEL, NO_USAGE and INVALID. at_risk_nano is what a call may cost at most
beyond its cost: there, and of what a PARTIAL cost leaves out; NULL else, and where nobody knows it.
SUBSCRIPTION costs 0; its est_cost_nano is what it would have cost by the list, NULL where nobody knows."""

BACKFILL = "backfill"
FLAGS = ("", "before_2020", "old", "ahead", BACKFILL)
"""`flags`: event_time before 2020; more than 35 days behind received_at; more than 5 minutes ahead of it; brought in
afterwards, which counts and alerts nobody."""

# Headers of every record of usage.priced; names and values are ASCII.
H_FORMAT = "format"
H_KIND = "kind"  # rows | control | tick | repair | correction
H_ROWS = "rows"
H_SOURCES = "sources"
"""JSON list of [source_partition, first_offset, last_offset, records, rejected, rows]: the part of the source log that
one batch of PRICE read (records = rejected + accepted, over all targets) and the rows of it that are in this record."""
H_PRICE_BOOK = "price_book"
H_BOOT = "boot"
H_SOURCE_ID = "source_id"
"""The id of the topic usage.events that the rows were read of; absent where the broker gives none."""

KIND_ROWS = b"rows"
KIND_CONTROL = b"control"
KIND_TICK = b"tick"
KIND_REPAIR = b"repair"
KIND_CORRECTION = b"correction"
H_REPAIR = "repair"
"""JSON of a `Round`: whose sealed hours the cells of a repair record are about, and what they were computed from."""
H_CORRECTION = "correction"
"""JSON of a `Correction`: rows as the ledger had them, then rows as it shall have them, each with its own revision."""

VOID = "VOID"
"""`status` of a corrected row whose call is gone: it stays as an empty row, and counts nowhere."""

MAX_REVISION = 2**15
DOUBLED_REVISION = 2**14
"""The revision that voids a row whose id came first at another time: above whatever was corrected meanwhile."""
_OFFSETS = 1 << 48

IDENTITY = ("event_time", "org_id", "event_id")
"""What makes two rows the same call."""


def row_version(revision: int, priced_offset: int) -> int:
    """Version of a ledger row: corrections win; among equals the first in the log wins, as in WATCH."""
    return (revision << 48) | (_OFFSETS - 1 - priced_offset)
