"""The memory of event ids within the horizon: a producer's own resend counts once, and so does an id with two times.

The identity is (event_time, org, event_id), as in the ledger. Memory is capped: what no longer fits is forgotten from
the oldest on, and rows from that far back are deferred to the ledger rather than risk counting them twice. A million
identities take about 170 MB.
"""

from collections import deque
from itertools import repeat
from typing import NamedTuple

import numpy as np
import polars as pl

from tollmeter.schemas.priced import DOUBLED_REVISION
from tollmeter.streams.rules.windows.totals import Vector

SLICE_US = 600 * 1_000_000
_NEVER = 1 << 32
"""A number of ten minutes that no event lies in."""
FEW_ROWS = 500
_VOID = DOUBLED_REVISION.to_bytes(2, "big")
"""Behind an id: what the memory knows its voiding by."""

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Known(NamedTuple):
    """What the memory says of rows."""

    first: Mask
    doubled: Mask
    """First, but the id came before at another time."""
    again: Mask
    """Not first, and the id came at several times."""


class Dedupe:
    """By organisation each id with its time, and the few that came with several; which ids are of which ten minutes."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.size = 0
        self._times: dict[int, dict[bytes, int]] = {}
        """Of an id with several times, any of them."""
        self._several: dict[int, dict[bytes, set[int]]] = {}
        """All times of ids that came with more than one."""
        self._slices: dict[int, dict[int, list[bytes]]] = {}

    def look(
        self, times_us: Vector, orgs: Vector, event_ids: pl.Series, since_us: int = 0, sure_from_us: int = 0
    ) -> Known:
        """Remember every row, in log order, and tell what was known of it.

        Times before `since_us` count as forgotten, as a restart has forgotten them. Among times that are not all from
        `sure_from_us` on nobody knows the first: what came before it was forgotten some day. A time that is void itself
        takes no other one out: that may be the one that came before it, and was forgotten.
        """
        known = Known(np.ones(times_us.size, dtype=bool), *np.zeros((2, times_us.size), dtype=bool))
        if not times_us.size:
            return known
        ids = _as_bytes(event_ids)
        for org in np.unique(orgs).tolist():
            rows = np.flatnonzero(orgs == org)
            chosen = ids if rows.size == len(ids) else [ids[row] for row in rows.tolist()]
            first, others = self._remember(org, chosen, times_us[rows])
            known.first[rows] = first
            if several := self._several.get(org):
                known.again[rows] = ~first & np.fromiter(map(several.__contains__, chosen), dtype=bool, count=rows.size)
            for at, before in others.items():
                void = chosen[at] + _VOID
                counted = [time for time in before if time >= since_us and not self._has(org, void, time)]
                known.doubled[rows[at]] = bool(counted) and min(*counted, int(times_us[rows[at]])) >= sure_from_us
        return known

    def first(self, times_us: Vector, orgs: Vector, event_ids: pl.Series) -> Mask:
        """Remember every row and tell which are seen for the first time."""
        return self.look(times_us, orgs, event_ids).first

    def has(self, times_us: Vector, orgs: Vector, event_ids: pl.Series) -> Mask:
        """Tell which rows are remembered: none from before the oldest ten minutes that are."""
        found = times_us >= min(self._slices, default=_NEVER) * SLICE_US
        some = np.flatnonzero(found)
        ids = _as_bytes(event_ids.gather(some))
        found[some] = [self._has(*row) for row in zip(orgs[some].tolist(), ids, times_us[some].tolist(), strict=True)]
        return found

    def _has(self, org: int, event_id: bytes, time_us: int) -> bool:
        return self._times.get(org, {}).get(event_id) == time_us or time_us in self._others(org, event_id)

    def _others(self, org: int, event_id: bytes) -> set[int]:
        return self._several.get(org, {}).get(event_id, set())

    def _remember(self, org: int, ids: list[bytes], times_us: Vector) -> tuple[Mask, dict[int, set[int]]]:
        """Remember rows of an organisation; tell which are new, and of which the id came before at other times."""
        times, others = self._times.setdefault(org, {}), dict[int, set[int]]()
        first = np.ones(len(ids), dtype=bool)
        before, resent = len(times), times.keys() & ids
        came_first = np.array(list(map(times.setdefault, ids, times_us.tolist())), dtype=np.int64)
        if len(times) - before < len(ids):
            first[:] = False
            first_row = dict(zip(reversed(ids), range(len(ids) - 1, -1, -1), strict=True))
            first[[at for event_id, at in first_row.items() if event_id not in resent]] = True
            for at in np.flatnonzero(came_first != times_us).tolist():
                known = self._several.setdefault(org, {}).setdefault(ids[at], {int(came_first[at])})
                if int(times_us[at]) not in known:
                    first[at], others[at] = True, set(known)
                    known.add(int(times_us[at]))
            new = np.flatnonzero(first)
            ids, times_us = [ids[at] for at in new.tolist()], times_us[new]
        self._file(org, ids, times_us)
        return first, others

    def _file(self, org: int, ids: list[bytes], times_us: Vector) -> None:
        """Note in which ten minutes these identities lie."""
        self.size += len(ids)
        slices = times_us // SLICE_US
        for slice_ in np.unique(slices).tolist():
            inside = np.flatnonzero(slices == slice_)
            some = ids if inside.size == len(ids) else [ids[at] for at in inside.tolist()]
            self._slices.setdefault(slice_, {}).setdefault(org, []).extend(some)

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
        for org, ids in self._slices.pop(slice_).items():
            self.size -= len(ids)
            times = self._times[org]
            deque(map(times.pop, ids, repeat(None)), maxlen=0)
            several = self._several.get(org, {})
            for event_id in several.keys() & ids:
                left = {time_us for time_us in several.pop(event_id) if time_us // SLICE_US != slice_}
                if left:
                    times[event_id] = max(left)
                if len(left) > 1:
                    several[event_id] = left
            if not times:
                del self._times[org]
                self._several.pop(org, None)


def _as_bytes(event_ids: pl.Series) -> list[bytes]:
    if event_ids.len() <= FEW_ROWS:
        return [bytes.fromhex(text.replace("-", "")) for text in event_ids.to_list()]
    return event_ids.str.replace_all("-", "", literal=True).str.decode("hex").to_list()
