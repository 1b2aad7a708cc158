"""A table of profiles by scope number: rows of integers, each with the stamp up to which the log is folded into it.

A profile takes no barrier at or below its stamp: a checkpoint that was written half is completed, not counted twice.
"""

from collections.abc import Callable, Mapping

import numpy as np

from tollmeter.streams.rules.anomalies.layout import LAYOUT, WINDOW, Mask, Matrix, Vector


def near(rows: Matrix, window: int) -> Mask:
    """Tell which rows take calls of a window: those not beyond it by more than one.

    A call is charged at when it was made and comes when it is done, so those of one window mix with those of the next.
    """
    found: Mask = rows[:, WINDOW] <= window + 1
    return found


class Profiles:
    """Rows of `width` integers, the first of which is `version`; scope numbers are small and index an array.

    `older`: by their width how rows of older versions become such rows.
    """

    def __init__(self, width: int, version: int, older: Mapping[int, Callable[[Matrix], Matrix]] | None = None) -> None:
        self.width, self._version = width, version
        self.older = older or {}
        self._clear()

    def _clear(self) -> None:
        self._row_of = np.full(64, -1, dtype=np.int32)
        self._scopes = np.empty(16, dtype=np.int64)
        self._values = np.zeros((16, self.width), dtype=np.int64)
        self._stamps = np.full(16, -1, dtype=np.int64)
        self._dirty = np.zeros(16, dtype=bool)
        self.size = 0
        self.newest_stamp = -1
        """Highest stamp that was loaded."""

    def rows(self, scopes: Vector) -> Vector:
        """Return the row of each of distinct scopes, adding blank ones for those that are new."""
        top = int(scopes.max(initial=-1))
        if top >= self._row_of.size:
            grown = np.full(max(top + 1, 2 * self._row_of.size), -1, dtype=np.int32)
            grown[: self._row_of.size] = self._row_of
            self._row_of = grown
        rows = self._row_of[scopes].astype(np.int64)
        missing = np.flatnonzero(rows < 0)
        if missing.size:
            self._reserve(self.size + missing.size)
            fresh = np.arange(self.size, self.size + missing.size)
            rows[missing] = self._row_of[scopes[missing]] = fresh
            self._scopes[fresh] = scopes[missing]
            self.size += missing.size
        return rows

    def open(self, rows: Vector, offset: int) -> Mask:
        """Tell which rows do not hold the log up to `offset` yet."""
        found: Mask = self._stamps[rows] < offset
        return found

    def get(self, rows: Vector) -> Matrix:
        """Return copies of rows."""
        return self._values[rows]

    def put(self, rows: Vector, values: Matrix) -> None:
        """Replace rows."""
        self._values[rows] = values
        self._dirty[rows] = True

    def held(self) -> tuple[Vector, Matrix, Vector]:
        """Return views of scopes, values and stamps of all rows."""
        return self._scopes[: self.size], self._values[: self.size], self._stamps[: self.size]

    def load(self, scopes: Vector, values: Matrix, stamps: Vector) -> None:
        """Take over profiles from a checkpoint; those of another layout begin anew."""
        rows = self.rows(scopes)
        self._values[rows] = np.where((values[:, LAYOUT] == self._version)[:, None], values, 0)
        self._stamps[rows] = stamps
        self.newest_stamp = max(self.newest_stamp, int(stamps.max(initial=-1)))

    def drain_dirty(self) -> tuple[Vector, Matrix]:
        """Return copies of scopes and values that changed since the last call, and forget that they did."""
        rows = np.flatnonzero(self._dirty[: self.size])
        self._dirty[rows] = False
        return self._scopes[rows].copy(), self._values[rows].copy()

    def put_back(self, scopes: Vector, values: Matrix) -> None:
        """Have these profiles written again; those that are not here any more come back as they were."""
        before = self.size
        rows = self.rows(scopes)
        gone = rows >= before
        self._values[rows[gone]] = values[gone]
        self._dirty[rows] = True

    def forget_before(self, window: int) -> None:
        """Drop the profiles that were last touched before a window and are saved: they would begin anew anyway."""
        scopes, values, stamps = self.held()
        kept = np.flatnonzero((values[:, WINDOW] >= window) | self._dirty[: self.size])
        if kept.size == self.size:
            return
        scopes, values, stamps, dirty = scopes[kept], values[kept], stamps[kept], self._dirty[kept]
        newest = self.newest_stamp
        self._clear()
        self.newest_stamp = newest
        rows = self.rows(scopes)
        self._values[rows], self._stamps[rows], self._dirty[rows] = values, stamps, dirty

    def _reserve(self, size: int) -> None:
        if size <= self._scopes.size:
            return
        capacity = max(size, 2 * self._scopes.size)
        for name, fill in (("_scopes", 0), ("_values", 0), ("_stamps", -1), ("_dirty", 0)):
            old = getattr(self, name)
            new = np.full((capacity, *old.shape[1:]), fill, dtype=old.dtype)
            new[: self.size] = old[: self.size]
            setattr(self, name, new)
