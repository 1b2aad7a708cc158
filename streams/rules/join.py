"""Blocks of usage.priced to one block of ledger rows: the same rows, with their place in the log and their version."""

import io
from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from tollmeter.schemas.priced import PRICED_COLUMNS, row_version
from tollmeter.streams.rules.split import PRICED_DTYPES, to_ipc

LEDGER_COLUMNS = (*(column.name for column in PRICED_COLUMNS), "priced_partition", "priced_offset", "version")

_DICTS = [column.name for column in PRICED_COLUMNS if column.kind == "dict"]


class PricedBlock(NamedTuple):
    partition: int
    offset: int
    value: bytes


def join(blocks: Iterable[PricedBlock]) -> pl.DataFrame:
    """Return the rows of all blocks as ledger rows, in the order of the blocks.

    Raises `ValueError` naming the block that is no Arrow stream with the columns of the contract.
    """
    shared = [pl.col(name).cast(pl.Categorical(pl.Categories.random())) for name in _DICTS]  # one dictionary for all
    frames = [_read(block, shared) for block in blocks]
    return pl.concat(frames) if frames else pl.DataFrame(schema=PRICED_DTYPES)


def _read(block: PricedBlock, shared: list[pl.Expr]) -> pl.DataFrame:
    try:
        rows = pl.read_ipc_stream(io.BytesIO(block.value)).select(list(PRICED_DTYPES))
    except (Exception, pl.exceptions.PanicException) as error:
        raise ValueError(
            f"usage.priced/{block.partition} offset {block.offset} holds no priced rows: {error}"
        ) from error
    return rows.with_columns(
        *shared,
        pl.lit(block.partition, dtype=pl.UInt16).alias("priced_partition"),
        pl.lit(block.offset, dtype=pl.Int64).alias("priced_offset"),
        # revision << 48 is revision × 2^48: polars has no shift, and the sum never carries
        (pl.col("revision").cast(pl.Int64) * (1 << 48) + row_version(0, block.offset)).alias("version"),
    )


def to_insert(rows: pl.DataFrame) -> bytes:
    """Return ledger rows as one Arrow IPC stream."""
    return to_ipc(rows)
