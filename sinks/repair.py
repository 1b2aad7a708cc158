"""What a repair is made of: the ledger's totals of an organisation's sealed hours, beside the live ones."""

import io
from collections.abc import Iterable
from datetime import timedelta

import polars as pl

from tollmeter.schemas.event import EPOCH
from tollmeter.sinks.clickhouse import ClickHouse
from tollmeter.sinks.queries import load
from tollmeter.streams.rules.periods import STEP_S
from tollmeter.streams.rules.repair import cells_of_round, sealed
from tollmeter.streams.rules.settling import Settlement, missing_cells
from tollmeter.streams.rules.totals import MEASURES, QUARTER, bucket_at, bucket_start_s


def repair_cells(
    client: ClickHouse, org: str, hours: tuple[int, ...], watermark_s: int, horizon_s: int
) -> pl.DataFrame:
    """Return the cells that repair these sealed hours. The ledger must hold all that the checkpoint has folded."""
    minutes = _totals(client, org, "minute", "hour", hours)
    starts = [bucket_start_s("hour", hour) for hour in hours]
    answer = client.arrow(load("repair_hours"), {"org": org, "starts": starts})
    was = _numbered(pl.read_ipc_stream(io.BytesIO(answer)), "hour")
    closed: dict[str, set[int]] = {}
    larger = []
    for level in ("day", "month"):
        buckets = {bucket_at(level, start) for start in starts}
        closed[level] = {bucket for bucket in buckets if sealed(level, bucket, watermark_s, horizon_s)}
        if closed[level]:
            found = _totals(client, org, level, level, sorted(closed[level]))
            larger.append(found.with_columns(pl.lit(level).alias("level")))
    nothing = minutes.clear().with_columns(pl.lit("day").alias("level"))
    return cells_of_round(
        hours, minutes, was, pl.concat([nothing, *larger]), closed["day"], closed["month"]
    )  # fmt: skip


def extra_cells(client: ClickHouse, settlement: Settlement) -> pl.DataFrame:
    """Return the cells that settle an organisation's extra totals. The ledger must hold all that was folded."""
    current_s = bucket_start_s(settlement.level, settlement.current)
    step = STEP_S if settlement.level == QUARTER else 0
    spans = {(settlement.from_s, current_s, step), (current_s, settlement.until_s, step)}
    parts = []
    for from_s, until_s, seconds in sorted(span for span in spans if span[0] < span[1]):
        wanted = {
            "org": settlement.org_id, "partition": settlement.partition, "upto": settlement.applied, "from": from_s,
            "until": until_s, "step": seconds, "kinds": sorted({kind for kind, _ in settlement.scopes}),
        }  # fmt: skip
        found = pl.read_ipc_stream(io.BytesIO(client.arrow(load("repair_extras"), wanted)))
        parts.append(_numbered(found, settlement.level))
    return missing_cells(settlement, pl.concat(parts))


def _totals(client: ClickHouse, org: str, unit: str, within: str, buckets: Iterable[int]) -> pl.DataFrame:
    """Return the ledger's totals by `unit` inside the buckets of the level `within`."""
    starts = [bucket_start_s(within, bucket) for bucket in buckets]
    until = bucket_start_s(within, bucket_at(within, max(starts)) + 1)
    wanted = {
        "org": org, "unit": unit, "within": within, "starts": starts,
        "from": EPOCH + timedelta(seconds=min(starts)), "until": EPOCH + timedelta(seconds=until),
    }  # fmt: skip
    return _numbered(pl.read_ipc_stream(io.BytesIO(client.arrow(load("repair_totals"), wanted))), unit)


def _numbered(found: pl.DataFrame, level: str) -> pl.DataFrame:
    """Give rows the number of their bucket instead of its start."""
    number_of = {start: bucket_at(level, start) for start in found["start_s"].unique().to_list()}
    return found.select(
        pl.col("start_s").replace_strict(number_of, return_dtype=pl.Int64).alias("bucket"),
        pl.col("scope", "name").cast(pl.String),
        pl.col(MEASURES).cast(pl.Int64),
    )
