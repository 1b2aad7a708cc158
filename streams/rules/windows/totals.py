"""What a window holds: fourteen integer measures per scope that add up, and two peaks that only grow.

Any order of addition gives the same totals. Org-billed and user-billed money are kept apart; unknown cost is not zero
but calls of an `unknown_model` and `at_risk` money beside the total.
"""

from typing import Any

import numpy as np
import polars as pl

from tollmeter.streams.rules.limits.periods import STEP_S, period_name, period_of

Matrix = np.ndarray[Any, np.dtype[np.int64]]
Vector = np.ndarray[Any, np.dtype[np.int64]]

MEASURES = (
    "calls",
    "errors",
    "blocked",
    "unknown_model",
    "input_tokens",
    "cache_read_tokens",
    "output_tokens",
    "cost_nano",
    "byok_cost_nano",
    "at_risk_nano",
    "spend_eur_nano",
    "spend_rub_nano",
    "byok_calls",
    "byok_tokens",
)
PEAKS = ("peak_minute_nano", "peak_hour_nano")
"""Dearest closed minute and hour inside the window; kept for the days of API keys, 0 elsewhere."""
COLUMNS = MEASURES + PEAKS

CALLS, BLOCKED, UNKNOWN_MODEL, INPUT, OUTPUT = (
    MEASURES.index(name) for name in ("calls", "blocked", "unknown_model", "input_tokens", "output_tokens")
)
ERRORS, CACHE_READ = MEASURES.index("errors"), MEASURES.index("cache_read_tokens")
COST, BYOK, AT_RISK = (MEASURES.index(name) for name in ("cost_nano", "byok_cost_nano", "at_risk_nano"))
SPEND_EUR, SPEND_RUB = MEASURES.index("spend_eur_nano"), MEASURES.index("spend_rub_nano")
BYOK_CALLS, BYOK_TOKENS = MEASURES.index("byok_calls"), MEASURES.index("byok_tokens")
PEAK_MINUTE, PEAK_HOUR = len(MEASURES), len(MEASURES) + 1

LEVELS = ("minute", "hour", "day", "month")
"""The windows of every scope, in UTC. Where a policy asks for it there are others: "day@Europe/Berlin", "week@UTC"."""
_BROUGHT_IN = "~backfill"
BROUGHT_IN = {
    f"{level}{_BROUGHT_IN}": kind for level, kind in (("minute", "api_key"), ("hour", "api_key"), ("day", "org"))
}
"""Levels, and of which scopes, that hold once more what of the windows was brought in afterwards: nobody is alerted by
it, and no past is made of it."""
QUARTER = "quarter"
"""Windows of 15 minutes, of scopes with a rolling limit."""
MINUTES_PER_HOUR, MINUTES_PER_DAY = 60, 1440
_LENGTH_S = {"minute": 60, "hour": 3_600, "day": 86_400}

_BYOK = pl.col("billing_scope") == "USER"
_NOT_BYOK = ~_BYOK


def _org_billed(name: str) -> pl.Expr:
    return pl.when(_NOT_BYOK).then(pl.col(name).fill_null(0)).otherwise(0)


# Built once: making a polars expression costs more than running it on a small batch.
_EXPRESSIONS = [
    pl.lit(1, pl.Int64).alias("calls"),
    (pl.col("status") == "ERROR").cast(pl.Int64).alias("errors"),
    (pl.col("status") == "BLOCKED").cast(pl.Int64).alias("blocked"),
    (pl.col("price_status") == "UNKNOWN_MODEL").cast(pl.Int64).alias("unknown_model"),
    pl.col("input_tokens", "cache_read_tokens", "output_tokens"),
    _org_billed("cost_nano").alias("cost_nano"),
    pl.when(_BYOK).then(pl.col("cost_nano").fill_null(0)).otherwise(0).alias("byok_cost_nano"),
    _org_billed("at_risk_nano").alias("at_risk_nano"),
    (_org_billed("cost_eur_nano") + _org_billed("at_risk_eur_nano")).alias("spend_eur_nano"),
    (_org_billed("cost_rub_nano") + _org_billed("at_risk_rub_nano")).alias("spend_rub_nano"),
    (_BYOK & (pl.col("status") != "BLOCKED")).cast(pl.Int64).alias("byok_calls"),
    pl.when(_BYOK).then(pl.col("input_tokens") + pl.col("output_tokens")).otherwise(0).alias("byok_tokens"),
]

MEASURE_SOURCES = (
    "status",
    "price_status",
    "billing_scope",
    "input_tokens",
    "cache_read_tokens",
    "output_tokens",
    "cost_nano",
    "at_risk_nano",
    "cost_eur_nano",
    "at_risk_eur_nano",
    "cost_rub_nano",
    "at_risk_rub_nano",
)
"""The priced columns that the measures are made of."""


def measure_matrix(rows: pl.DataFrame) -> Matrix:
    """Return one row of MEASURES per priced row (int64, shape rows × 14)."""
    made = rows.select(_EXPRESSIONS)
    matrix = np.empty((rows.height, len(MEASURES)), dtype=np.int64)
    for position, column in enumerate(made.get_columns()):
        matrix[:, position] = column.to_numpy()
    return matrix


def sum_by_key(keys: Vector, matrix: Matrix) -> tuple[Vector, Matrix]:
    """Add up the rows of each key; return the distinct keys in ascending order and their exact integer sums."""
    if keys.size == 0:
        return keys, matrix
    order = _order(keys)
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return ordered[starts], np.add.reduceat(matrix[order], starts, axis=0)


def _order(keys: Vector) -> Vector:
    """Return the stable ascending order of keys: two bytes are sorted by radix, in a fraction of the time."""
    least = keys.min()
    near = keys.max() - least < 1 << 16
    return np.argsort((keys - least).astype(np.uint16) if near else keys, kind="stable")


def key_cost(values: Matrix) -> Vector:
    """Return what a key burns, whoever pays: org-billed, user-billed and at-risk money of each row."""
    cost: Vector = values[:, COST] + values[:, BYOK] + values[:, AT_RISK]
    return cost


def brought_in(level: str) -> str:
    """Return the level that holds what of a level was brought in afterwards."""
    return level + _BROUGHT_IN


def plain_level(level: str) -> str:
    """Return the level by whose buckets a level counts."""
    return level.removesuffix(_BROUGHT_IN)


def bucket_of(level: str, minutes: Vector) -> Vector:
    """Return the bucket number of a level for minutes since 1970 UTC.

    Months are counted since 1970-01; buckets of the levels that policies ask for have the number of the 15 minutes that
    they begin with.
    """
    level = plain_level(level)
    if level == "minute":
        return minutes
    if level == "hour":
        return minutes // MINUTES_PER_HOUR
    if level not in LEVELS:
        quarters, where = np.unique(minutes * 60 // STEP_S, return_inverse=True)
        starts = [_zoned(level, quarter * STEP_S)[0] // STEP_S for quarter in quarters.tolist()]
        return np.array(starts, dtype=np.int64)[where]
    days = minutes // MINUTES_PER_DAY
    if level == "day":
        return days
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def bucket_start_s(level: str, bucket: int) -> int:
    """Return the start of a bucket in seconds since 1970 UTC."""
    level = plain_level(level)
    if level == "month":
        return int(np.datetime64(bucket, "M").astype("datetime64[s]").astype(np.int64))
    return bucket * _LENGTH_S.get(level, STEP_S)


def bucket_end_s(level: str, bucket: int) -> int:
    """Return the end of a bucket in seconds since 1970 UTC."""
    level = plain_level(level)
    if level in LEVELS:
        return bucket_start_s(level, bucket + 1)
    return _zoned(level, bucket * STEP_S)[1]


def _zoned(level: str, at_s: int) -> tuple[int, int]:
    """Return start and end of the bucket of a level like "week@Europe/Berlin" that holds an instant."""
    if level == QUARTER:
        return at_s // STEP_S * STEP_S, at_s // STEP_S * STEP_S + STEP_S
    window, _, zone = level.partition("@")
    return period_of(window, zone, at_s)


def bucket_at(level: str, seconds: int) -> int:
    """Return the bucket of a level that holds an instant given in seconds since 1970 UTC."""
    return int(bucket_of(level, np.array([seconds // 60], dtype=np.int64))[0])


def period_text(level: str, bucket: int) -> str:
    """Name a bucket: 2026-11, 2026-W47, 2026-11-22, 2026-11-22T10, 2026-11-22T10:05; by the zone's calendar."""
    if level not in LEVELS:
        window, _, zone = level.partition("@")
        return period_name(window, zone, bucket * STEP_S)
    unit = {"minute": "m", "hour": "h", "day": "D", "month": "M"}[level]
    return str(np.array(bucket).astype(f"datetime64[{unit}]"))
