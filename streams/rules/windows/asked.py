"""Rows by what only a policy asks for: tags, sessions, runs. Where no policy does, nobody looks at these columns."""

import numpy as np
import polars as pl

from tollmeter.schemas.policy import ASKED_COLUMNS
from tollmeter.streams.rules.windows.scopes import NOBODY
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import Vector

Asked = dict[str, tuple[Vector, Vector]]
"""By kind of scope the rows that count for one, and the number of the scope; a row may come more than once."""


def asked_columns(state: State) -> tuple[str, ...]:
    """Return the priced columns that the policies of this state ask for."""
    tags = ("tags",) if state.budgets.tags else ()
    return (*tags, *(column for kind, column in ASKED_COLUMNS.items() if state.budgets.asked[kind]))


def asked_of_rows(state: State, rows: pl.DataFrame) -> Asked:
    """Return which rows count for which tag, session or run; names that nobody knew get a number, if they are asked."""
    found: Asked = {"tag": _tagged(state, rows)} if state.budgets.tags else {}
    for kind, column in ASKED_COLUMNS.items():
        if state.budgets.asked[kind]:
            found[kind] = _named(state, rows, kind, column)
    return found


def _tagged(state: State, rows: pl.DataFrame) -> tuple[Vector, Vector]:
    wanted = state.budgets.tags
    tags = rows.select(pl.int_range(pl.len()).alias("row"), pl.col("org_id").cast(pl.String), "tags").explode("tags")
    pair = pl.concat_str(pl.col("tags").struct.field("key"), pl.lit("="), pl.col("tags").struct.field("value"))
    pairs = tags.drop_nulls("tags").select("row", "org_id", pair).unique(maintain_order=True)
    found = [(at, wanted[org, tag]) for at, org, tag in pairs.iter_rows() if (org, tag) in wanted]
    numbers = np.array(found, dtype=np.int64).reshape(-1, 2)
    return numbers[:, 0], numbers[:, 1]


def _named(state: State, rows: pl.DataFrame, kind: str, column: str) -> tuple[Vector, Vector]:
    orgs = sorted(state.budgets.asked[kind])
    row, org, name = pl.int_range(pl.len()).alias("row"), pl.col("org_id").cast(pl.String), pl.col(column)
    named = rows.select(row, org, name.cast(pl.String).alias("name"))
    named = named.filter(pl.col("org_id").is_in(orgs), pl.col("name") != "")
    pairs = named.select("org_id", "name").unique(maintain_order=True)
    numbers = [_number(state, org_id, kind, name) for org_id, name in pairs.iter_rows()]
    numbered = pairs.with_columns(pl.Series("number", numbers, dtype=pl.Int64))
    found = named.join(numbered, on=["org_id", "name"], maintain_order="left").filter(pl.col("number") != NOBODY)
    return found["row"].cast(pl.Int64).to_numpy(), found["number"].to_numpy()


def _number(state: State, org_id: str, kind: str, name: str) -> int:
    if state.budgets.limits_each(org_id, kind):
        return state.scopes.number((org_id, kind, name))
    known = state.scopes.known((org_id, kind, name))
    return known if known is not None and state.budgets.of(known) else NOBODY
