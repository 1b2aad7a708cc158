"""Sealed days and months of a repair, added up from their hours and days: what is not repaired is not counted again.

A bucket that is not what its parts add up to is none of these: somebody has to count it from the ledger.
"""

from collections.abc import Callable, Collection

import polars as pl

from tollmeter.streams.rules.windows.totals import MEASURES

_KEYS = ["bucket", "scope", "name"]


def added_up(
    within: Callable[[int], int], live: pl.DataFrame, parts: pl.DataFrame, made: pl.DataFrame, again: Collection[int]
) -> tuple[pl.DataFrame, set[int]]:
    """Return the totals of buckets, and those of `live` that are not the sum of their parts: they are left out.

    `live`: totals of the buckets; `parts`: of all that lies in them, one level below; `made`: the parts `again`, whose
    numbers these are, as they shall be. `within`: the bucket of a part. Frames of (bucket, scope, name and measures).
    """
    names = [*_KEYS, *MEASURES]
    owner = {part: within(part) for part in {*parts["bucket"].to_list(), *made["bucket"].to_list()}}
    lifted = pl.col("bucket").replace_strict(owner, return_dtype=pl.Int64)
    minus = live.select(*_KEYS, *(-pl.col(name) for name in MEASURES))
    rest = _sum(pl.concat([parts.select(names).with_columns(lifted), minus]))
    wrong = set(rest.filter(pl.any_horizontal(pl.col(name) != 0 for name in MEASURES))["bucket"].to_list())
    kept = parts.filter(~pl.col("bucket").is_in(list(again)))
    found = _sum(pl.concat([kept.select(names), made.select(names)]).with_columns(lifted))
    return found.filter(~pl.col("bucket").is_in(list(wrong))), wrong


def _sum(cells: pl.DataFrame) -> pl.DataFrame:
    return cells.group_by(_KEYS, maintain_order=True).agg(pl.col(MEASURES).sum())
