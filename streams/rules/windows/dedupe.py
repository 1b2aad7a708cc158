"""The memory of event ids within the horizon: a producer's own resend is counted once, live as in the ledger.

The identity is (event_time, org, event_id), as in the ledger. Memory is capped: what no longer fits is forgotten from
the oldest on, and rows from that far back are deferred to the ledger rather than risk counting them twice.
"""

from operator import add

import numpy as np
import polars as pl

from tollmeter.streams.rules.windows.totals import Vector

SLICE_US = 600 * 1_000_000
FEW_ROWS = 500

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Dedupe:
    """Sets of identities (id and time, up to 24 bytes) by ten-minute slice of event time and organisation."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.size = 0
        self._slices: dict[int, dict[int, set[bytes]]] = {}

    def first(self, times_us: Vector, orgs: Vector, event_ids: pl.Series) -> Mask:
        """Remember every row and tell which are seen for the first time."""
        fresh = np.ones(times_us.size, dtype=bool)
        if not times_us.size:
            return fresh
        ids = _identities(event_ids, times_us)
        slices = times_us // SLICE_US
        keys = slices * (int(orgs.max()) + 1) + orgs
        for key in set(keys.tolist()):
            rows = np.flatnonzero(keys == key)
            self._remember(int(slices[rows[0]]), int(orgs[rows[0]]), rows, ids, fresh)
        return fresh

    def _remember(self, slice_: int, org: int, rows: Vector, ids: list[bytes], fresh: Mask) -> None:
        known = self._slices.setdefault(slice_, {}).setdefault(org, set())
        chosen = ids if rows.size == len(ids) else [ids[row] for row in rows.tolist()]
        resent = known.intersection(chosen)
        before = len(known)
        known.update(chosen)
        new = len(known) - before
        self.size += new
        if new == len(chosen):
            return
        first_row = dict(zip(reversed(chosen), reversed(rows.tolist()), strict=True))
        fresh[rows] = False
        fresh[list(first_row.values())] = True
        fresh[[first_row[event_id] for event_id in resent]] = False

    def forget_before(self, time_us: int) -> int:
        """Drop the slices that end at or before this event time, and the oldest ones beyond the cap.

        Return the event time from which on everything is remembered.
        """
        for slice_ in [s for s in self._slices if (s + 1) * SLICE_US <= time_us]:
            self._drop(slice_)
        while self.size > self.cap and len(self._slices) > 1:
            oldest = min(self._slices)
            self._drop(oldest)
            time_us = max(time_us, (oldest + 1) * SLICE_US)
        return time_us

    def _drop(self, slice_: int) -> None:
        self.size -= sum(map(len, self._slices.pop(slice_).values()))


def _identities(event_ids: pl.Series, times_us: Vector) -> list[bytes]:
    """Return id and time of each row: an id that comes with another time is another row in the ledger, so here too."""
    times = times_us.astype(">i8").view("S8").tolist()  # without zeros at the end, which keeps them apart
    return list(map(add, _as_bytes(event_ids), times))


def _as_bytes(event_ids: pl.Series) -> list[bytes]:
    if event_ids.len() <= FEW_ROWS:
        return [bytes.fromhex(text.replace("-", "")) for text in event_ids.to_list()]
    return event_ids.str.replace_all("-", "", literal=True).str.decode("hex").to_list()
