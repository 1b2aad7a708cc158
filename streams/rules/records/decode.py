"""Blocks of usage.priced to one block of ledger rows: the same rows, with their place in the log and their version."""

import io
from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from tollmeter.schemas.priced import IDENTITY, PRICED_COLUMNS, SINCE_FORMAT_2, row_version
from tollmeter.streams.rules.records.encode import PRICED_DTYPES, encode_dicts, to_ipc

LEDGER_COLUMNS = (*(column.name for column in PRICED_COLUMNS), "priced_partition", "priced_offset", "version")
_TEXT = pl.Schema(PRICED_DTYPES)
_SCHEMA = encode_dicts(pl.DataFrame(schema=PRICED_DTYPES)).schema
_LACKED = [pl.lit(None, PRICED_DTYPES[name]).alias(name) for name in SINCE_FORMAT_2]


class PricedBlock(NamedTuple):
    partition: int
    offset: int
    value: bytes
    was: int = 0
    """So many rows stand in front that are no longer: of a correction."""


def join(blocks: Iterable[PricedBlock]) -> pl.DataFrame:
    """Return the rows of all blocks as ledger rows, in the order of the blocks. Raises as `read` does."""
    return together([read(block) for block in blocks])


def together(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Join frames of ledger rows."""
    if not frames:
        return pl.DataFrame(schema=PRICED_DTYPES)
    if len({frame.schema["org_id"] for frame in frames}) > 1:  # few rows come as text
        frames = [encode_dicts(frame) for frame in frames]
    return pl.concat(frames)


def read(block: PricedBlock) -> pl.DataFrame:
    """Return the ledger rows of one block. Raises `ValueError` when it has not the contract's columns."""
    try:
        rows = complete(pl.read_ipc_stream(io.BytesIO(block.value)))[block.was :]
        version = rows["revision"].cast(pl.Int64) * (1 << 48) + row_version(0, block.offset)  # << never carries
    except (Exception, pl.exceptions.PanicException) as error:
        raise ValueError(
            f"usage.priced/{block.partition} offset {block.offset} holds no priced rows: {error}"
        ) from error
    if rows.schema not in (_SCHEMA, _TEXT):
        raise ValueError(f"usage.priced/{block.partition} offset {block.offset} has other columns than the contract")
    placed = rows.hstack(
        [
            pl.repeat(block.partition, rows.height, dtype=pl.UInt16, eager=True).alias("priced_partition"),
            pl.repeat(block.offset, rows.height, dtype=pl.Int64, eager=True).alias("priced_offset"),
            version.alias("version"),
        ]
    )
    return _first_of_each(placed)


def complete(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of any format in the columns of the newest: what the first lacks is NULL."""
    return rows if rows.width == len(PRICED_COLUMNS) else rows.with_columns(_LACKED)


def _first_of_each(rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out resends of one record: their version is the same, and the first is what WATCH counts."""
    if rows["event_id"].n_unique() == rows.height:
        return rows
    return rows.unique([*IDENTITY, "revision"], keep="first", maintain_order=True)


def to_insert(rows: pl.DataFrame) -> bytes:
    """Return ledger rows as one Arrow IPC stream."""
    return to_ipc(rows)
