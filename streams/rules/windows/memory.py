"""What the memory of ids says of rows on their way into windows; an id that came first at another time is noted."""

import numpy as np
import polars as pl

from tollmeter.schemas.priced import DOUBLED_REVISION
from tollmeter.streams.rules.windows.alerts import Passage
from tollmeter.streams.rules.windows.dedupe import Known, Mask
from tollmeter.streams.rules.windows.state import Identity, State
from tollmeter.streams.rules.windows.totals import Vector

AHEAD_MS = 600_000
"""How far an event may be ahead of its arrival to be compared with others of its id."""


def known_rows(state: State, passage: Passage, event_ids: pl.Series, remembered: Mask) -> Known:
    """Ask the memory about the rows that it may know; note those whose id came first at another time."""
    known = Known(np.ones(remembered.size, dtype=bool), *np.zeros((2, remembered.size), dtype=bool))
    at = np.flatnonzero(remembered)
    orgs, ids = passage.orgs, event_ids
    if at.size < remembered.size:
        orgs, ids = orgs.gather(at), ids.gather(at)
    since_us, sure_from_us = state.remember_from_us, state.doubles_from_us
    known.first[at], known.doubled[at], known.again[at] = state.seen.look(
        passage.times_us[at], state.scopes.text_codes(orgs), ids, since_us, sure_from_us
    )
    # the log is read back by append time: of what is ahead of its own a restart may have forgotten which came first
    known.doubled[passage.times_us > (passage.received_ms + AHEAD_MS) * 1_000] = False
    lost = _identities(passage, event_ids, np.flatnonzero(known.doubled))
    state.doubled.update(lost)
    state.to_void += [*lost, *_void_again(state, passage, event_ids, np.flatnonzero(known.again))]
    return known


def _void_again(state: State, passage: Passage, event_ids: pl.Series, at: Vector) -> list[Identity]:
    """Return the losers among rows that come again: ClickHouse may have refused the row and its void, until now."""
    if not at.size:
        return []
    voids = event_ids.gather(at).cast(pl.String) + f"{DOUBLED_REVISION:04x}"
    told = state.seen.has(passage.times_us[at], state.scopes.text_codes(passage.orgs.gather(at)), voids)
    identities = _identities(passage, event_ids, at)
    return [one for one, void in zip(identities, told.tolist(), strict=True) if void or one in state.doubled]


def _identities(passage: Passage, event_ids: pl.Series, at: Vector) -> list[Identity]:
    orgs, ids = passage.orgs.gather(at).cast(pl.String), event_ids.gather(at).cast(pl.String)
    return list(zip(passage.times_us[at].tolist(), orgs, ids, strict=True))
