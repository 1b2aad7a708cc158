"""The last hour of a log by any name, as steps of five seconds: what a live view is made of, without the ledger.

A call stands at the earlier of its time and its arrival, as limits charge it; what was imported from long ago is not
recent. An event that comes again within ten minutes counts once; the ledger, which knows all of them, is the truth.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tollmeter.streams.rules.windows.dimensions import DIMENSIONS, KEPT_S, STEP_S

_SEEN_S = 600
MEASURES = ("calls", "refused", "errors", "unpriced", "input_tokens", "output_tokens", "cost_nano", "at_risk_nano")
ACROSS = frozenset({"model", "provider", "ip", "service"})
"""What has the same name in every organisation: unless one is asked for, their calls are one row."""
_STEP_US = STEP_S * 1_000_000
_NAMES = list(dict.fromkeys(("org_id", *DIMENSIONS.values())))
COLUMNS = (
    *("event_id", "event_time", "received_at", "src_partition", "status", "price_status"),
    *("input_tokens", "output_tokens", "cost_nano", "at_risk_nano", *_NAMES),
)
"""The columns of priced rows that are read."""

_FAILED_FOR_NOTHING = (pl.col("status") == "ERROR") & (pl.col("price_status") == "NO_USAGE")
_CHARGED_US = pl.min_horizontal(pl.col("event_time").cast(pl.Int64), pl.col("received_at").cast(pl.Int64) * 1_000)


@dataclass(slots=True)
class Recent:
    """Sums of the last hour. Not for several threads."""

    sums: dict[str, list[pl.DataFrame]] = field(default_factory=lambda: {name: [] for name in DIMENSIONS})
    seen: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"id": pl.UInt64, "step": pl.Int64}))
    clocks: dict[int, int] = field(default_factory=dict)
    """Of each partition of the source: the latest arrival that is told of, milliseconds since 1970."""

    @property
    def as_of_ms(self) -> int | None:
        """All that arrived before is in it; None while nothing has been heard."""
        return min(self.clocks.values(), default=None)

    def tick(self, clocks: Mapping[int, int]) -> None:
        """Take note of how far the source is, in milliseconds since 1970."""
        for partition, at_ms in clocks.items():
            self.clocks[partition] = max(at_ms, self.clocks.get(partition, 0))

    def add(self, rows: pl.DataFrame, now_s: float) -> None:
        """Add priced rows (`COLUMNS`), and forget what is older than an hour."""
        heard = rows.group_by("src_partition").agg(pl.col("received_at").cast(pl.Int64).max())
        self.tick(dict(heard.iter_rows()))
        first = (int(now_s) - KEPT_S) // STEP_S
        made = rows.with_columns(
            pl.col("event_id").cast(pl.String).hash().alias("id"),
            (_CHARGED_US // _STEP_US).alias("step"),
            pl.lit(1, pl.Int64).alias("calls"),
            (pl.col("status") == "BLOCKED").cast(pl.Int64).alias("refused"),
            (pl.col("status") == "ERROR").cast(pl.Int64).alias("errors"),
            (pl.col("cost_nano").is_null() & ~_FAILED_FOR_NOTHING).cast(pl.Int64).alias("unpriced"),
            pl.col("cost_nano", "at_risk_nano").fill_null(0),
            pl.col(_NAMES).cast(pl.String),
        )
        made = made.filter(pl.col("step") >= first).unique("id", keep="first", maintain_order=True)
        made = made.join(self.seen, on="id", how="anti")
        self.seen = pl.concat([self.seen, made.select("id", "step")]).filter(
            pl.col("step") >= (int(now_s) - _SEEN_S) // STEP_S
        )
        for name, column in DIMENSIONS.items():
            keys = [pl.col("step"), pl.col("org_id").alias("org"), pl.col(column).alias("name")]
            self.sums[name].append(made.group_by(keys).agg(pl.col(*MEASURES).sum()))
            if len(self.sums[name]) > 32:
                self.sums[name] = [self._joined(name).filter(pl.col("step") >= first)]

    def _joined(self, by: str) -> pl.DataFrame:
        parts = self.sums[by]
        if not parts:
            return pl.DataFrame(schema=_EMPTY)
        return pl.concat(parts).group_by("step", "org", "name").agg(pl.col(*MEASURES).sum())

    def top(
        self, by: str, now_s: float, window_s: int, *, orgs: Collection[str] = (), sort: str = "cost_nano"
    ) -> "View":
        """Return the sums of the last `window_s` seconds by a name, the largest first; no `orgs` are all of them."""
        steps = self._joined(by)
        if orgs:
            steps = steps.filter(pl.col("org").is_in(list(orgs)))
        if by in ACROSS and len(orgs) != 1:
            steps = steps.with_columns(pl.lit("").alias("org"))
        end = int(now_s) // STEP_S
        recent = pl.col("step") > end - window_s // STEP_S
        last_hour = pl.col("step") > end - KEPT_S // STEP_S
        rows = (
            steps.group_by("org", "name")
            .agg(
                *(pl.col(name).filter(recent).sum() for name in MEASURES),
                pl.col("cost_nano").filter(last_hour).sum().alias("hour_nano"),
                pl.col("unpriced").filter(last_hour).sum().alias("hour_unpriced"),
                (pl.col("step").max() * STEP_S).alias("last_s"),
            )
            .filter(pl.col("calls") > 0)
            .sort([sort, "calls", "org", "name"], descending=[True, True, False, False])
        )
        total = {name: int(rows[name].sum()) for name in (*MEASURES, "hour_nano", "hour_unpriced")}
        return View(by, window_s, self.as_of_ms, rows.to_dicts(), total)


@dataclass(frozen=True, slots=True)
class View:
    """Rows by a name with their sums over `window_s`; `total` is the sum of them all."""

    by: str
    window_s: int
    as_of_ms: int | None
    rows: Sequence[dict[str, Any]]
    total: Mapping[str, int]


_EMPTY = pl.Schema({"step": pl.Int64(), "org": pl.String(), "name": pl.String(), **dict.fromkeys(MEASURES, pl.Int64())})
