"""Rows whose id came first at another time: the ledger takes them out by a correction that any replay makes again.

They never enter a window. The correction's revision is above whatever an operator may have set meanwhile.
"""

import hashlib
from collections.abc import Iterable, Sequence

import polars as pl

from tollmeter.schemas.priced import DOUBLED_REVISION
from tollmeter.schemas.record import Headers
from tollmeter.streams.rules.records.encode import PRICED_DTYPES
from tollmeter.streams.rules.windows.amend import Part, emptied, records
from tollmeter.streams.rules.windows.state import Identity

REASON = "the same id came first at another time"


def void_records(doubled: Sequence[Identity], blocks: Iterable[pl.DataFrame]) -> list[tuple[bytes, Headers]]:
    """Return the records that void these rows; `blocks` hold them, in contract columns, beside others."""
    ids = pl.Series([event_id for _, _, event_id in doubled], dtype=pl.String)
    found = [_text(block.filter(block["event_id"].cast(pl.String).is_in(ids.implode()))) for block in blocks]
    rows = pl.concat([pl.DataFrame(schema=PRICED_DTYPES), *found])
    wanted = pl.DataFrame(
        doubled, schema={"event_time": pl.Int64, "org_id": pl.String, "event_id": pl.String}, orient="row"
    )
    wanted = wanted.with_columns(pl.col("event_time").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")).unique()
    keys = wanted.columns
    mine = rows.join(wanted, on=keys, how="semi", maintain_order="left").unique(keys, keep="first", maintain_order=True)
    void = emptied(mine).with_columns(pl.lit(DOUBLED_REVISION, pl.UInt16).alias("revision"))
    return [
        record
        for (org,), part in void.group_by("org_id", maintain_order=True)
        for record in records(Part(str(org), part.clear(), part), _id_of(part.select(keys)), REASON, doubled=True)
    ]


def _text(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.col(name).cast(kind) for name, kind in PRICED_DTYPES.items())


def _id_of(identities: pl.DataFrame) -> str:
    """Return the same id whenever the same rows are voided."""
    named = "\n".join(" ".join(map(str, identity)) for identity in identities.rows())
    return f"doubled-{hashlib.sha256(named.encode()).hexdigest()[:24]}"
