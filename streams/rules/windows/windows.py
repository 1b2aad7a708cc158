"""The cells of one bucket: a totals row per scope, each with the stamp up to which the log is folded into it.

A cell takes no record at or below its stamp: a checkpoint that was written half is completed, not counted twice.
"""

import numpy as np

from tollmeter.streams.rules.windows.totals import COLUMNS, MEASURES, Matrix, Vector

_WIDTH = len(COLUMNS)
_SUMS = len(MEASURES)


class Cells:
    """Totals of one bucket by scope number; scope numbers are small integers and index an array."""

    def __init__(self) -> None:
        self._row_of = np.full(64, -1, dtype=np.int32)
        self._scopes = np.empty(16, dtype=np.int64)
        self._values = np.zeros((16, _WIDTH), dtype=np.int64)
        self._stamps = np.full(16, -1, dtype=np.int64)
        self._dirty = np.zeros(16, dtype=bool)
        self.size = 0
        self.newest_stamp = -1
        """Highest stamp that was loaded: above it no row needs to be compared with the stamps."""

    @property
    def scopes(self) -> Vector:
        return self._scopes[: self.size]

    @property
    def values(self) -> Matrix:
        return self._values[: self.size]

    def rows(self, scopes: Vector) -> Vector:
        """Return the row of each scope, adding empty cells for new ones. `scopes` must be distinct."""
        top = int(scopes.max()) if scopes.size else -1
        if top >= self._row_of.size:
            grown = np.full(max(top + 1, 2 * self._row_of.size), -1, dtype=np.int32)
            grown[: self._row_of.size] = self._row_of
            self._row_of = grown
        rows = self._row_of[scopes].astype(np.int64)
        missing = np.flatnonzero(rows < 0)
        if missing.size:
            self._reserve(self.size + missing.size)
            fresh = np.arange(self.size, self.size + missing.size)
            rows[missing] = fresh
            self._scopes[fresh] = scopes[missing]
            self._row_of[scopes[missing]] = fresh
            self.size += missing.size
        return rows

    def has(self, scopes: Vector) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell for each scope number whether it has a cell; a negative one has none."""
        known = (scopes >= 0) & (scopes < self._row_of.size)
        found: np.ndarray[tuple[int], np.dtype[np.bool_]] = known.copy()
        found[known] = self._row_of[scopes[known]] >= 0
        return found

    def touch(self, scopes: Vector) -> None:
        """Have cells of distinct scopes written, empty ones made for new ones."""
        self._dirty[self.rows(scopes)] = True

    def add(self, scopes: Vector, sums: Matrix, offset: int) -> tuple[Matrix, Matrix]:
        """Add sums of distinct scopes from records up to `offset`; return their measures before and after.

        Cells whose stamp says that they hold this record already stay as they are (before == after).
        """
        rows = self.rows(scopes)
        before = self._values[rows, :_SUMS]
        if offset <= self.newest_stamp:
            open_ = self._stamps[rows] < offset
            rows, sums = rows[open_], sums[open_]
            after = before.copy()
            after[open_] += sums
        else:
            after = before + sums
        self._values[rows, :_SUMS] += sums
        self._dirty[rows] = True
        return before, after

    def filled(self, scopes: Vector) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell for each scope number whether it has a cell with anything in it."""
        found = self.has(scopes)
        found[found] = self._values[self._row_of[scopes[found]], :_SUMS].any(axis=1)
        return found

    def saved(self, scopes: Vector) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell for each of these cells whether a snapshot holds it as it is."""
        clean: np.ndarray[tuple[int], np.dtype[np.bool_]] = ~self._dirty[self._row_of[scopes]]
        return clean

    def empty(self, scopes: Vector) -> None:
        """Have these cells say that nothing was used."""
        rows = self._row_of[scopes]
        self._values[rows] = 0
        self._dirty[rows] = True

    def drop(self, scopes: Vector) -> None:
        """Forget these cells."""
        if not scopes.size:
            return
        kept = np.ones(self.size, dtype=bool)
        kept[self._row_of[scopes]] = False
        self._row_of[scopes] = -1
        size = int(kept.sum())
        for array, nothing in ((self._scopes, 0), (self._values, 0), (self._stamps, -1), (self._dirty, 0)):
            array[:size] = array[: self.size][kept]
            array[size : self.size] = nothing
        self.size = size
        self._row_of[self.scopes] = np.arange(size, dtype=np.int32)

    def raise_peak(self, scopes: Vector, column: int, peaks: Vector) -> None:
        """Keep the larger of the stored and the given peak for distinct scopes."""
        rows = self.rows(scopes)
        higher = peaks > self._values[rows, column]
        rows = rows[higher]
        self._values[rows, column] = peaks[higher]
        self._dirty[rows] = True

    def take(self, scopes: Vector) -> Matrix:
        """Return the values of scopes, zeros for those without a cell."""
        result = np.zeros((scopes.size, _WIDTH), dtype=np.int64)
        known = scopes < self._row_of.size
        rows = np.full(scopes.size, -1, dtype=np.int64)
        rows[known] = self._row_of[scopes[known]]
        result[rows >= 0] = self._values[rows[rows >= 0]]
        return result

    def replace(self, scopes: Vector, sums: Matrix, offset: int) -> tuple[Matrix, Matrix]:
        """Set the measures of distinct scopes; return them before and after.

        Cells whose stamp says that they hold this record already stay as they are.
        """
        rows = self.rows(scopes)
        before = self._values[rows, :_SUMS]
        open_ = self._stamps[rows] < offset
        self._values[rows[open_], :_SUMS] = sums[open_]
        self._dirty[rows] = True
        return before, self._values[rows, :_SUMS]

    def load(self, scopes: Vector, values: Matrix, stamps: Vector) -> None:
        """Take over cells from a checkpoint."""
        rows = self.rows(scopes)
        self._values[rows] = values
        self._stamps[rows] = stamps
        if stamps.size:
            self.newest_stamp = max(self.newest_stamp, int(stamps.max()))

    def drain_dirty(self) -> tuple[Vector, Matrix]:
        """Return copies of scopes and values that changed since the last call, and forget that they did."""
        rows = np.flatnonzero(self._dirty[: self.size])
        self._dirty[rows] = False
        return self._scopes[rows].copy(), self._values[rows].copy()

    def put_back(self, scopes: Vector, values: Matrix) -> None:
        """Have these cells written again; those that are not here any more come back as they were."""
        before = self.size
        rows = self.rows(scopes)
        gone = rows >= before
        self._values[rows[gone]] = values[gone]
        self._dirty[rows] = True

    @property
    def clean(self) -> bool:
        return not self._dirty[: self.size].any()

    def _reserve(self, size: int) -> None:
        if size <= self._scopes.size:
            return
        capacity = max(size, 2 * self._scopes.size)
        for name, fill in (("_scopes", 0), ("_values", 0), ("_stamps", -1), ("_dirty", 0)):
            old = getattr(self, name)
            new = np.full((capacity, *old.shape[1:]), fill, dtype=old.dtype)
            new[: self.size] = old[: self.size]
            setattr(self, name, new)
