"""Priced rows to records of usage.priced: columns in contract order, one partition per organisation, bounded blocks.

Repeated text is dictionary-encoded. All frames with these categories share one dictionary in memory, so that blocks can
be joined as they are; it is freed when the last such frame is gone. Keep none between batches, or it grows for ever.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from tollmeter.schemas.envelope import Source, rows_headers
from tollmeter.schemas.priced import MAX_RECORD_BYTES, PRICED_COLUMNS
from tollmeter.schemas.record import Headers
from tollmeter.schemas.topics import org_partition
from tollmeter.streams.rules.events.addresses import normal_addresses

_OLDEST = pl.CompatLevel.oldest()  # plain Arrow types: every reader knows them


class Block(NamedTuple):
    value: bytes
    headers: Headers


def dtype(kind: str) -> pl.DataType:
    """Return the polars type of a kind of priced column; "dict" is text until it is encoded."""
    base: dict[str, pl.DataType] = {
        "text": pl.String(),
        "dict": pl.String(),
        "bool": pl.Boolean(),
        "u16": pl.UInt16(),
        "i32": pl.Int32(),
        "i64": pl.Int64(),
        "date": pl.Date(),
        "ts_us": pl.Datetime("us", "UTC"),
        "ts_ms": pl.Datetime("ms", "UTC"),
        "units": pl.List(pl.Struct({"key": pl.String(), "value": pl.Float64()})),
        "tags": pl.List(pl.Struct({"key": pl.String(), "value": pl.String()})),
    }
    return base[kind.removesuffix("?")]


PRICED_DTYPES: dict[str, pl.DataType] = {column.name: dtype(column.kind) for column in PRICED_COLUMNS}
_WIRE = [pl.col(c.source).cast(PRICED_DTYPES[c.name]).alias(c.name) for c in PRICED_COLUMNS if c.source]
BLOCK_ROWS = 3_500
"""What fits a record as traffic goes, some 220 bytes a row; where it does not, the rows are halved."""
_IN_ORDER = [pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items()]
FEW_ROWS = 64
"""Below this, the dictionaries of all columns weigh more than the text that they save, and take longer to read."""
_DICTS = [column.name for column in PRICED_COLUMNS if column.kind == "dict"]
MODEL = pl.when(pl.col("model_used") == "").then(pl.col("model_sent")).otherwise(pl.col("model_used")).alias("model")


def event_columns(
    wire: pl.DataFrame, partitions: pl.Series, offsets: pl.Series, received_ms: pl.Series
) -> pl.DataFrame:
    """Return the priced columns that do not depend on prices, addresses in their one form.

    `model` is the one in the response, else the one sent.
    """
    return wire.select(*_WIRE, MODEL).with_columns(
        partitions.alias("src_partition").cast(pl.UInt16),
        offsets.alias("src_offset").cast(pl.Int64),
        received_ms.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").alias("received_at"),
        pl.lit(0, dtype=pl.UInt16).alias("revision"),
        normal_addresses(wire["client_ip"]).alias("client_ip"),
    )


def priced_columns(events: pl.DataFrame, costs: pl.DataFrame) -> pl.DataFrame:
    """Join the columns of the price book to those of the events, in contract order."""
    return events.with_columns(costs.get_columns()).select(_IN_ORDER)


def by_target(rows: pl.DataFrame, partitions: int) -> dict[int, pl.DataFrame]:
    """Split rows by the partition that owns their organisation; the order inside a target stays."""
    orgs = rows["org_id"].unique()
    target_of = {org: org_partition(org, partitions) for org in orgs.to_list()}
    if len(set(target_of.values())) <= 1:
        return dict.fromkeys(target_of.values(), rows)
    target = rows["org_id"].replace_strict(target_of, return_dtype=pl.Int64)
    return {number: rows.filter(target == number) for number in sorted(set(target_of.values()))}


def encode_dicts(rows: pl.DataFrame) -> pl.DataFrame:
    """Dictionary-encode repeated text, see above.

    The type is made anew each time: kept, it would keep every name that ever passed through this process.
    """
    return rows.with_columns(pl.col(_DICTS).cast(pl.Categorical(pl.Categories("usage.priced"))))


def encoded(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows as they travel: with dictionaries, few of them as text."""
    return rows if rows.height < FEW_ROWS else encode_dicts(rows)


def to_ipc(rows: pl.DataFrame) -> bytes:
    """Return one Arrow IPC stream, lz4-compressed."""
    out = io.BytesIO()
    rows.rechunk().write_ipc_stream(out, compression="lz4", compat_level=_OLDEST)
    return out.getvalue()


def blocks(
    rows: pl.DataFrame, sources: Sequence[Source], book: str, boot: str, limit: int = MAX_RECORD_BYTES
) -> list[Block]:
    """Return the records that carry these rows, offsets ascending, none above the limit unless it is a single row."""
    if rows.height <= BLOCK_ROWS:
        value = to_ipc(rows)
        if len(value) <= limit or rows.height <= 1:
            return [Block(value, _headers(rows, sources, book, boot))]
    parts = max(2, -(-rows.height // BLOCK_ROWS))
    step = -(-rows.height // parts)
    return [
        block
        for begin in range(0, rows.height, step)
        for block in blocks(rows[begin : begin + step], sources, book, boot, limit)
    ]


def _headers(rows: pl.DataFrame, sources: Sequence[Source], book: str, boot: str) -> Headers:
    counts = dict(rows["src_partition"].value_counts().iter_rows())
    listed = [(source, counts.get(source.partition, 0)) for source in sources]
    return rows_headers(rows.height, listed, book, boot)
