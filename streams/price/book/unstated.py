"""A call that does not tell its usage was not free: its own estimate is at risk, else its prompt at the model's rates.

What it answered stays unknown. A failed call is taken for one that nobody bills.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.money import MAX_EVENT_NANO
from tollmeter.streams.rules.pricing.price_columns import NO_USAGE, Columns, Priced, Table, price_columns

CHARS_A_TOKEN = 4
"""Of a prompt whose tokens nobody counted."""
_STATED = ("est_cost_nano", "prompt_chars")

Ints = NDArray[np.int64]


def put_at_risk(table: Table, events: pl.DataFrame, columns: Columns, priced: Priced) -> None:
    """Put at risk, in place, what calls without usage may have cost."""
    if not (priced.status == NO_USAGE).any() or not set(_STATED) <= set(events.columns):
        return
    rows = np.flatnonzero((priced.status == NO_USAGE) & (events["status"] != "ERROR").to_numpy())
    estimate, chars = (_ints(events[name].gather(rows)) for name in _STATED)
    asked = price_columns(table, _asking(columns, rows, -(-chars // CHARS_A_TOKEN)))
    prompt = np.where(asked.known, asked.total, 0) + np.where(asked.risky, asked.at_risk, 0)
    priced.at_risk[rows] = np.minimum(np.where(estimate > 0, estimate, prompt), MAX_EVENT_NANO)
    priced.risky[rows] = priced.at_risk[rows] > 0


def _asking(columns: Columns, rows: Ints, tokens: Ints) -> Columns:
    """Return these rows as if their prompt was all that they used."""
    nothing = np.zeros_like(tokens)
    return Columns(
        plan=columns.plan[rows],
        at_us=columns.at_us[rows],
        blocked=columns.blocked[rows],
        failed=np.ones(len(rows), np.bool_),  # no image is made of it
        subscribed=columns.subscribed[rows],
        tokens=(np.minimum(tokens, MAX_TOKENS), nothing, nothing, nothing, nothing, nothing),
    )


def _ints(series: pl.Series) -> Ints:
    return np.asarray(series.fill_null(0).to_numpy(), np.int64)
