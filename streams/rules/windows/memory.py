"""What the memory of ids says of rows on their way into windows; an id that came first at another time is noted."""

import numpy as np
import polars as pl

from tollmeter.streams.rules.windows.alerts import Passage
from tollmeter.streams.rules.windows.dedupe import Known, Mask
from tollmeter.streams.rules.windows.state import State

AHEAD_MS = 600_000
"""How far an event may be ahead of its arrival to be compared with others of its id."""


def known_rows(state: State, passage: Passage, event_ids: pl.Series, remembered: Mask) -> Known:
    """Ask the memory about the rows that it may know; note those whose id came first at another time."""
    known = Known(np.ones(remembered.size, dtype=bool), np.zeros(remembered.size, dtype=bool))
    at = np.flatnonzero(remembered)
    orgs, ids = passage.orgs, event_ids
    if at.size < remembered.size:
        orgs, ids = orgs.gather(at), ids.gather(at)
    since_us, sure_from_us = state.remember_from_us, state.doubles_from_us
    known.first[at], known.doubled[at] = state.seen.look(
        passage.times_us[at], state.scopes.text_codes(orgs), ids, since_us, sure_from_us
    )
    # the log is read back by append time: of what is ahead of its own a restart may have forgotten which came first
    known.doubled[passage.times_us > (passage.received_ms + AHEAD_MS) * 1_000] = False
    for row in np.flatnonzero(known.doubled).tolist():
        identity = int(passage.times_us[row]), str(passage.orgs[row]), str(event_ids[row])
        state.doubled.add(identity)
        state.to_void.append(identity)
    return known
