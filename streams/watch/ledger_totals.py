"""What a repair is made of: the ledger's totals of an organisation's sealed hours, beside the live ones."""

import io
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any

import polars as pl

from tollmeter.schemas.event import EPOCH
from tollmeter.schemas.policy import SCOPE_COLUMNS
from tollmeter.schemas.progress import LogPosition
from tollmeter.sinks.clickhouse.client import ClickHouse, Unavailable
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.limits.periods import STEP_S
from tollmeter.streams.rules.windows.backfill import Backfill, missing_cells
from tollmeter.streams.rules.windows.cardinality import SCOPES_PER_ORG, fold_names
from tollmeter.streams.rules.windows.larger import added_up
from tollmeter.streams.rules.windows.repair import cells_by_hour, cells_of_round, sealed
from tollmeter.streams.rules.windows.totals import MEASURES, QUARTER, bucket_at, bucket_start_s

PART_OF = {"day": "hour", "month": "day"}
"""What the buckets of a level are made of."""


def repair_cells(
    client: ClickHouse,
    org: str,
    hours: tuple[int, ...],
    watermark_s: int,
    horizon_s: int,
    limit: int = SCOPES_PER_ORG,
) -> pl.DataFrame:
    """Return the cells that repair these sealed hours. The ledger must hold all that the checkpoint has folded.

    `limit` is how many names of a kind have scopes of their own in a month.
    """
    starts = [bucket_start_s("hour", hour) for hour in hours]
    own = _own_names(client, org, starts)
    minutes = _folded(_totals(client, org, "minute", "hour", hours), "minute", own, limit)
    closed = {
        level: {
            bucket
            for bucket in {bucket_at(level, start) for start in starts}
            if sealed(level, bucket, watermark_s, horizon_s)
        }
        for level in PART_OF
    }
    was = _live_totals(client, org, {"hour": set(hours), **closed})
    made, again, larger = cells_by_hour(minutes), set(hours), [minutes.clear().with_columns(level=pl.lit("day"))]
    for level, part in PART_OF.items():
        if not closed[level]:
            break  # no month is over before its days
        live = was.filter(pl.col("level") == level)
        made, wrong = added_up(
            partial(_within, level, part), live, _parts(client, org, level, closed[level]), made, again
        )
        wrong &= closed[level]
        if wrong:
            counted = _folded(_totals(client, org, level, level, sorted(wrong)), level, own, limit)
            made = pl.concat([made, counted.select(made.columns)])
        made = made.filter(pl.col("bucket").is_in(list(closed[level])))
        again = closed[level]
        larger.append(made.with_columns(level=pl.lit(level)).select(larger[0].columns))
    return cells_of_round(hours, minutes, was, pl.concat(larger), closed["day"], closed["month"])


def _within(level: str, part_level: str, part: int) -> int:
    return bucket_at(level, bucket_start_s(part_level, part))


def _parts(client: ClickHouse, org: str, level: str, buckets: set[int]) -> pl.DataFrame:
    """Return what WATCH has in the hours of these days, or in the days of these months."""
    starts = [bucket_start_s(level, bucket) for bucket in sorted(buckets)]
    span = {"from": starts[0], "until": bucket_start_s(level, max(buckets) + 1)}
    part = PART_OF[level]
    asked = {"org": org, "kinds": list(SCOPE_COLUMNS), "level": part, "within": level, "starts": starts, **span}
    return _numbered(pl.read_ipc_stream(io.BytesIO(client.arrow(load("repair_parts"), asked))), part)


def _live_totals(client: ClickHouse, org: str, buckets: dict[str, set[int]]) -> pl.DataFrame:
    """Return what WATCH has in these hours, their minutes, and these days and months; budgeted tags have their own."""
    starts = {level: [bucket_start_s(level, bucket) for bucket in sorted(some)] for level, some in buckets.items()}
    span = {"from": starts["hour"][0], "until": starts["hour"][-1] + 3_600}
    answer = client.arrow(load("repair_windows"), {"org": org, "kinds": list(SCOPE_COLUMNS), **starts, **span})
    found = pl.read_ipc_stream(io.BytesIO(answer)).with_columns(pl.col("level").cast(pl.String))
    parts = [
        _numbered(part, str(level)).with_columns(pl.lit(level).alias("level"))
        for (level,), part in found.group_by(["level"], maintain_order=True)
    ]
    return pl.concat(parts) if parts else _numbered(found, "hour").with_columns(pl.lit("hour").alias("level"))


def _own_names(client: ClickHouse, org: str, starts: list[int]) -> pl.DataFrame:
    """Return the names that have a scope in the months of these times, as of the checkpoint."""
    months = sorted({bucket_start_s("month", bucket_at("month", start)) for start in starts})
    answer = client.arrow(load("repair_names"), {"org": org, "starts": months})
    found = pl.read_ipc_stream(io.BytesIO(answer))
    return _month_of(found).select("month", pl.col("scope", "name").cast(pl.String))


def _folded(totals: pl.DataFrame, level: str, own: pl.DataFrame, limit: int) -> pl.DataFrame:
    starts = {bucket: bucket_start_s(level, bucket) for bucket in totals["bucket"].unique().to_list()}
    timed = totals.with_columns(pl.col("bucket").replace_strict(starts, return_dtype=pl.Int64).alias("start_s"))
    return fold_names(_month_of(timed), own, limit, ["bucket"]).select(totals.columns)


def _month_of(frame: pl.DataFrame) -> pl.DataFrame:
    number_of = {start: bucket_at("month", start) for start in frame["start_s"].unique().to_list()}
    month = pl.col("start_s").replace_strict(number_of, return_dtype=pl.Int64).alias("month")
    return frame.with_columns(month).drop("start_s")


def extra_cells(client: ClickHouse, backfill: Backfill) -> pl.DataFrame:
    """Return the cells that complete an organisation's extra totals. The ledger must hold all that was folded.

    Raises `Unavailable` while the ledger is ahead by corrections: a row as it was at the checkpoint is there no more.
    """
    current_s = bucket_start_s(backfill.level, backfill.current)
    step = STEP_S if backfill.level == QUARTER else 0
    spans = {(backfill.from_s, current_s, step), (current_s, backfill.until_s, step)}
    parts = []
    for from_s, until_s, seconds in sorted(span for span in spans if span[0] < span[1]):
        wanted = {
            "org": backfill.org_id,
            "partition": backfill.partition,
            "from": from_s,
            "until": until_s,
            "upto": LogPosition.of(backfill.applied).offset,
            "step": seconds,
            "kinds": backfill.kinds,
        }
        found = pl.read_ipc_stream(io.BytesIO(client.arrow(load("repair_extras"), wanted)))
        parts.append(_numbered(found, backfill.level))
        _check_not_ahead(client, wanted)  # behind the sums: what hides a row of theirs is seen here
    return missing_cells(backfill, pl.concat(parts))


def _check_not_ahead(client: ClickHouse, wanted: dict[str, Any]) -> None:
    asked = {name: wanted[name] for name in ("org", "partition", "from", "until", "upto")}
    ahead = client.query(load("repair_ahead"), asked)[0]["n"]
    if ahead:
        raise Unavailable(
            f"{ahead} rows of {wanted['org']} were corrected behind offset {wanted['upto']}, the ledger has them as "
            "they are now: the next checkpoint tries again"
        )


def _totals(client: ClickHouse, org: str, unit: str, within: str, buckets: Iterable[int]) -> pl.DataFrame:
    """Return the ledger's totals by `unit` inside the buckets of the level `within`."""
    starts = [bucket_start_s(within, bucket) for bucket in buckets]
    until = bucket_start_s(within, bucket_at(within, max(starts)) + 1)
    wanted = {
        "org": org,
        "unit": unit,
        "within": within,
        "starts": starts,
        "from": EPOCH + timedelta(seconds=min(starts)),
        "until": EPOCH + timedelta(seconds=until),
    }
    return _numbered(pl.read_ipc_stream(io.BytesIO(client.arrow(load("repair_totals"), wanted))), unit)


def _numbered(found: pl.DataFrame, level: str) -> pl.DataFrame:
    """Give rows the number of their bucket instead of its start."""
    number_of = {start: bucket_at(level, start) for start in found["start_s"].unique().to_list()}
    return found.select(
        pl.col("start_s").replace_strict(number_of, return_dtype=pl.Int64).alias("bucket"),
        pl.col("scope", "name").cast(pl.String),
        pl.col(MEASURES).cast(pl.Int64),
    )
