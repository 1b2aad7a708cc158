"""A bound on names: in a month so many of one organisation and kind have scopes of their own, the rest is `__other__`.

Who comes first in the log has a place for the month; a scope with a budget has one always. Which names have one is
read off the month's cells, so a checkpoint holds it without saying so, and a replay decides the same. The ledger keeps
every name.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tollmeter.schemas.policy import SCOPE_COLUMNS
from tollmeter.streams.rules.windows.scopes import NOBODY, UNKNOWN, Distinct, Scopes
from tollmeter.streams.rules.windows.totals import Vector, bucket_at, bucket_of, bucket_start_s

if TYPE_CHECKING:
    from tollmeter.streams.rules.windows.state import State
    from tollmeter.streams.rules.windows.windows import Cells

OTHER = "__other__"
SCOPES_PER_ORG = 10_000
_MINUTE_US = 60_000_000
Family = tuple[str, str]
"""Organisation and kind."""


@dataclass(slots=True)
class Counts:
    """How many names of each family have cells of their own in one month."""

    cells: "Cells"
    counted: int = 0
    names: dict[Family, int] = field(default_factory=dict)

    def update(self, scopes: Scopes) -> None:
        """Count the cells that were added since the last call."""
        for number in self.cells.scopes[self.counted :].tolist():
            org_id, kind, name = scopes.names[number]
            if name != OTHER:
                self.names[org_id, kind] = self.names.get((org_id, kind), 0) + 1
        self.counted = self.cells.size


def scopes_of_rows(state: "State", rows: pl.DataFrame, charged_us: Vector) -> dict[str, Vector]:
    """Return for each kind the scope number of each row: its own, that of `__other__`, or NOBODY without a name."""
    orgs = state.scopes.text_codes(rows["org_id"])
    minutes = charged_us // _MINUTE_US
    first, last = (bucket_at("month", int(at) * 60) for at in (minutes.min(), minutes.max()))
    if first == last:
        return {kind: _of_kind(state, rows[column], orgs, kind, first) for kind, column in SCOPE_COLUMNS.items()}
    found = {kind: np.full(orgs.size, NOBODY, dtype=np.int64) for kind in SCOPE_COLUMNS}
    months = bucket_of("month", minutes)
    for month in np.unique(months).tolist():
        at = np.flatnonzero(months == month)
        for kind, column in SCOPE_COLUMNS.items():
            found[kind][at] = _of_kind(state, rows[column].gather(at), orgs[at], kind, month)
    return found


def _of_kind(state: "State", names: pl.Series, orgs: Vector, kind: str, month: int) -> Vector:
    distinct = state.scopes.distinct(names, orgs, kind)
    if kind != "org":
        absent = distinct.numbers != NOBODY
        absent &= ~state.cells("month", month).has(distinct.numbers)
        if absent.any():
            _admit(state, distinct, np.flatnonzero(absent), kind, month)
    else:
        for at in np.flatnonzero(distinct.numbers == UNKNOWN).tolist():
            state.scopes.enter(distinct, at)
    numbers: Vector = distinct.numbers[distinct.where]
    return numbers


def _admit(state: "State", distinct: Distinct, absent: Vector, kind: str, month: int) -> None:
    """Give the absent names their own numbers while there is room, in the order of their first rows."""
    counts = counts_of(state, month)
    limit = state.rules.scopes_per_org
    absent = absent[np.argsort(distinct.first[absent], kind="stable")]
    orgs = distinct.orgs[absent]
    for code in np.unique(orgs).tolist():
        org_id, ours = state.scopes.text(code), absent[orgs == code]
        room = max(0, limit - counts.get((org_id, kind), 0))
        if state.budgets.limits_each(org_id, kind):
            room = ours.size
        if ours.size > room:
            ours = _fold_rest(state, distinct, ours, room, (org_id, kind))
        for at in ours.tolist():
            state.scopes.enter(distinct, at)


def _fold_rest(state: "State", distinct: Distinct, ours: Vector, room: int, family: Family) -> Vector:
    """Fold what has neither a budget nor room; return those that have scopes of their own."""
    numbers = distinct.numbers[ours]
    bound = np.zeros(ours.size, dtype=bool)
    for at in np.flatnonzero(numbers >= 0).tolist():
        bound[at] = bool(state.budgets.of(int(numbers[at])))
    own = bound | (np.arange(ours.size) < room)
    distinct.numbers[ours[~own]] = state.scopes.number((*family, OTHER))
    return ours[own]


def counts_of(state: "State", month: int) -> dict[Family, int]:
    """Return how many names have cells of their own in a month, by organisation and kind."""
    cells = state.cells("month", month)
    counts = state.month_names.get(month)
    if counts is None or counts.cells is not cells:
        for gone in [known for known in state.month_names if known not in state.levels["month"]]:
            del state.month_names[gone]
        counts = state.month_names[month] = Counts(cells)
    counts.update(state.scopes)
    return counts.names


def take_out(state: "State", scope: int, offset: int, now_ms: int) -> None:
    """Give a folded name cells of its own from now on; what it used this month follows by repair from the ledger."""
    org_id, kind, _ = state.scopes.names[scope]
    now_s = now_ms // 1000
    month = bucket_at("month", now_s)
    cells = state.cells("month", month)
    folded = state.scopes.known((org_id, kind, OTHER))
    number = np.array([scope, NOBODY if folded is None else folded], dtype=np.int64)
    has_own, has_other = cells.has(number).tolist()
    if kind not in SCOPE_COLUMNS or has_own or not has_other:
        return
    cells.touch(number[:1])
    for hour in range(bucket_start_s("month", month) // 3_600, now_s // 3_600 + 1):
        state.deferred[org_id, hour] = offset


def fold_names(cells: pl.DataFrame, own: pl.DataFrame, limit: int, keys: list[str]) -> pl.DataFrame:
    """Return totals (month, scope, name and measures) with the names that have no place added up as `__other__`.

    `own` = (month, scope, name) of the cells that exist. Where nobody is folded yet, new names fill up what is free.
    """
    family = ["month", "scope"]
    placed = own.filter(pl.col("name") != OTHER)
    room = placed.group_by(family).agg((limit - pl.len().cast(pl.Int64)).alias("room"))
    new = (
        cells.select(*family, "name")
        .unique()
        .join(placed, on=[*family, "name"], how="anti")
        .filter(pl.col("scope") != "org")
        .join(room, on=family, how="left")
        .with_columns(pl.col("name").rank("ordinal").over(family).alias("rank"))
    )
    without = new.filter(pl.col("rank") > pl.col("room").fill_null(limit)).select(*family, "name")
    if not without.height:
        return cells
    marked = cells.join(without.with_columns(pl.lit(value=True).alias("folded")), on=[*family, "name"], how="left")
    renamed = marked.with_columns(
        pl.when(pl.col("folded").fill_null(value=False)).then(pl.lit(OTHER)).otherwise(pl.col("name")).alias("name")
    )
    measures = [name for name in cells.columns if name not in (*keys, *family, "name")]
    columns = [pl.col(name).sum() for name in measures]
    return renamed.group_by([*keys, *family, "name"], maintain_order=True).agg(columns).select(cells.columns)
