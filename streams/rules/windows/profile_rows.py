"""Profiles as rows of a checkpoint: scope, stamp, and the integers as bytes; a restart has them back bit by bit."""

from typing import NamedTuple

import numpy as np
import polars as pl

from tollmeter.streams.rules.anomalies.layout import Matrix, Vector
from tollmeter.streams.rules.anomalies.profiles import Profiles
from tollmeter.streams.rules.anomalies.statistics import SERIES
from tollmeter.streams.rules.windows.scopes import Scope
from tollmeter.streams.rules.windows.state import State

PROFILE_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "priced_partition": pl.UInt16,
    "org_id": pl.String,
    "scope": pl.String,
    "name": pl.String,
    "stamp": pl.UInt64,
    "state": pl.Binary,
}


_PREFIX = f"{SERIES}/"


class Drained(NamedTuple):
    """Profiles that changed since the last snapshot, by scope number."""

    kind: str
    scopes: Vector
    values: Matrix


def saved_as(table: str, scope: Scope) -> Scope:
    """Return under which name a row of a table is saved: a scope's series stands beside its profile."""
    return (scope[0], _PREFIX + scope[1], scope[2]) if table == SERIES else scope


def drain(state: State) -> tuple[Drained, ...]:
    """Return what changed since the last call, and count it as saved."""
    return tuple(Drained(kind, *table.drain_dirty()) for kind, table in state.detector.tables.items())


def put_back(state: State, drained: tuple[Drained, ...]) -> None:
    """Count it as unsaved again."""
    for kind, scopes, values in drained:
        state.detector.tables[kind].put_back(scopes, values)


def as_rows(state: State, drained: tuple[Drained, ...]) -> pl.DataFrame:
    """Return changed profiles as rows with the columns of PROFILE_SCHEMA, stamped as of `state.applied`."""
    rows = [
        (state.partition, *saved_as(part.kind, state.scopes.names[scope]), max(state.applied, 0), row.tobytes())
        for part in drained
        for scope, row in zip(part.scopes.tolist(), part.values.astype("<i8"), strict=True)
    ]
    return pl.DataFrame(rows, schema=PROFILE_SCHEMA, orient="row")


def load(state: State, rows: pl.DataFrame) -> None:
    """Fill a new state with saved profiles: older layouts are brought to this one, unknown ones begin anew."""
    for kind, table in state.detector.tables.items():
        mine = pl.col("scope").str.starts_with(_PREFIX) if kind == SERIES else pl.col("scope") == kind
        for width in (table.width, *table.older):
            ours = rows.filter(mine, pl.col("state").bin.size() == 8 * width)
            if ours.height:
                _load(state, table, ours.with_columns(pl.col("scope").str.strip_prefix(_PREFIX)), width)


def _load(state: State, table: Profiles, ours: pl.DataFrame, width: int) -> None:
    numbers = [state.scopes.number(scope) for scope in ours.select("org_id", "scope", "name").iter_rows()]
    saved = np.frombuffer(b"".join(ours["state"].to_list()), dtype="<i8").reshape(ours.height, width)
    values = saved.astype(np.int64)
    values = values if width == table.width else table.older[width](values)
    table.load(np.array(numbers, dtype=np.int64), values, ours["stamp"].cast(pl.Int64).to_numpy())
