"""Scopes as small numbers: (org_id, kind, name) is interned once, and arrays do the rest.

Names that are empty name nobody: such rows count for the organisation but make no scope of that kind.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from tollmeter.schemas.policy import ASKED_COLUMNS, SCOPE_KINDS
from tollmeter.streams.rules.windows.totals import Vector

Scope = tuple[str, str, str]
"""(org_id, kind, name); name is "" for the organisation itself."""

NOBODY = -1
UNKNOWN = -2
FEW_ROWS = 1_000
"""Up to here a call into polars costs more than looking up the texts themselves; so does encoding plain text."""
_KIND_BITS = 4
_ORG_SHIFT = 32
_NOTHING = -1
_SPARSE = 16
"""An array that is larger than a column by more than this takes longer to fill than the column takes to sort."""
_ASKED = [SCOPE_KINDS.index(kind) for kind in SCOPE_KINDS if kind in ASKED_COLUMNS]
_FRESH = 1 << 31
"""Codes from here on are texts of one call alone."""


@dataclass(slots=True)
class Distinct:
    """The distinct scopes of one kind in a column: codes of organisation and name, numbers, and the one of each row."""

    kind: str
    orgs: Vector
    codes: Vector
    numbers: Vector
    where: Vector
    fresh: list[str]

    @property
    def first(self) -> Vector:
        """The first row of each."""
        rows = np.empty(self.numbers.size, dtype=np.int64)
        rows[self.where[::-1]] = np.arange(self.where.size)[::-1]
        return rows


class Scopes:
    """The numbers of all scopes of one partition, in order of first appearance in its log.

    Those of sessions and runs that are over are given to later ones.
    """

    def __init__(self) -> None:
        self.names: list[Scope] = []
        self._new: list[int] = []
        self._free: list[int] = []
        self._number: dict[Scope, int] = {}
        self._codes: dict[str, int] = {"": 0}
        self._texts: list[str] = [""]
        self._pairs: dict[int, int] = {}
        self._kinds = np.empty(64, dtype=np.int8)

    def __len__(self) -> int:
        return len(self.names)

    def number(self, scope: Scope) -> int:
        """Return the number of a scope, giving it one if it is new."""
        known = self._number.get(scope)
        if known is None:
            known = self._number[scope] = self._next(scope)
            self._new.append(known)
            if known >= self._kinds.size:
                self._kinds = np.concatenate((self._kinds, np.empty_like(self._kinds)))
            self._kinds[known] = SCOPE_KINDS.index(scope[1])
        return known

    def _next(self, scope: Scope) -> int:
        if self._free and scope[1] in ASKED_COLUMNS:
            self.names[self._free[-1]] = scope
            return self._free.pop()
        self.names.append(scope)
        return len(self.names) - 1

    def release(self, number: int) -> None:
        """Forget a session or run: its number may be given to another one."""
        del self._number[self.names[number]]
        self._kinds[number] = _NOTHING
        self._free.append(number)

    def are_asked(self, numbers: Vector) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell for each scope number whether it is of a session or a run."""
        return np.isin(self._kinds[numbers], _ASKED)

    def asked_numbers(self) -> Vector:
        """Return the numbers of all sessions and runs."""
        return np.flatnonzero(np.isin(self._kinds[: len(self.names)], _ASKED))

    def take_new(self) -> list[int]:
        """Return the numbers that were given since the last call."""
        found, self._new = self._new, []
        return found

    def of_kind(self, numbers: Vector, kind: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell for each scope number whether it is of this kind."""
        mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = self._kinds[numbers] == SCOPE_KINDS.index(kind)
        return mask

    def known(self, scope: Scope) -> int | None:
        """Return the number of a scope, None when it has none."""
        return self._number.get(scope)

    def text(self, code: int) -> str:
        """Return the text of a code."""
        return self._texts[code]

    def distinct(self, names: pl.Series, orgs: Vector, kind: str) -> Distinct:
        """Return the distinct scopes of a column and which row is of which; no name is remembered by this."""
        codes, fresh = (orgs, []) if kind == "org" else self._look_up(names)
        rows, where = self._distinct_pairs(orgs, codes)
        distinct = (orgs[rows] << _ORG_SHIFT | codes[rows]) << _KIND_BITS | SCOPE_KINDS.index(kind)
        known = self._pairs
        numbers = np.array([known.get(pair, UNKNOWN) for pair in distinct.tolist()], dtype=np.int64)
        found = Distinct(kind, orgs[rows], codes[rows], numbers, where, fresh)
        for at in np.flatnonzero(numbers == UNKNOWN).tolist():
            name = self._name(found, at)
            if kind != "org" and name == "":
                self._pairs[int(distinct[at])] = numbers[at] = NOBODY
            elif (self._texts[found.orgs[at]], kind, "" if kind == "org" else name) in self._number:
                self.enter(found, at)
        return found

    def _distinct_pairs(self, orgs: Vector, codes: Vector) -> tuple[Vector, Vector]:
        """Return a row of each distinct pair, in the order of the pairs, and which of them each row has."""
        close = np.where(codes < _FRESH, codes, codes - _FRESH + len(self._texts))
        (found, org), (names, name) = _distinct(orgs), _distinct(close)
        return _distinct(org * names.size + name) if found.size > 1 else (names, name)

    def enter(self, distinct: Distinct, at: int) -> None:
        """Give one of the distinct scopes a number, and remember its name."""
        org, name = int(distinct.orgs[at]), self._name(distinct, at)
        number = self.number((self._texts[org], distinct.kind, "" if distinct.kind == "org" else name))
        pair = (org << _ORG_SHIFT | self._code(name)) << _KIND_BITS | SCOPE_KINDS.index(distinct.kind)
        self._pairs[pair] = number
        distinct.numbers[at] = number

    def _name(self, distinct: Distinct, at: int) -> str:
        code = int(distinct.codes[at])
        return self._texts[code] if code < _FRESH else distinct.fresh[code - _FRESH]

    def _look_up(self, column: pl.Series) -> tuple[Vector, list[str]]:
        """Return a code per row, and the texts behind codes of this call alone: those that are not remembered."""
        fresh: dict[str, int] = {}
        if column.len() <= FEW_ROWS or column.dtype == pl.String:
            return self._look_up_texts(column.to_list(), fresh), list(fresh)
        physical = column.to_physical().to_numpy()
        first, where = _distinct(physical)
        return self._look_up_texts(column[first].to_list(), fresh)[where], list(fresh)

    def _look_up_texts(self, texts: list[str], fresh: dict[str, int]) -> Vector:
        codes = self._codes
        found = [codes[text] if text in codes else fresh.setdefault(text, _FRESH + len(fresh)) for text in texts]
        return np.array(found, dtype=np.int64)

    def text_codes(self, column: pl.Series) -> Vector:
        """Return a code per row; equal texts have equal codes for the life of this object."""
        if column.len() <= FEW_ROWS or column.dtype == pl.String:
            return np.array([self._code(text) for text in column.to_list()], dtype=np.int64)
        physical = column.to_physical().to_numpy()
        first, where = _distinct(physical)
        ours = np.array([self._code(text) for text in column[first].to_list()], dtype=np.int64)
        found: Vector = ours[where]
        return found

    def _code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._texts)
            self._texts.append(text)
        return code


def _distinct(codes: Vector) -> tuple[Vector, Vector]:
    """Return a row of each distinct code, in their order, and which of them each row has.

    Codes are numbers that may index an array; where that would be far larger than the column, they are sorted.
    """
    size = int(codes.max()) + 1
    if size > _SPARSE * (codes.size + _SPARSE):
        _, rows, where = np.unique(codes, return_index=True, return_inverse=True)
        return rows, where
    row_of = np.full(size, -1, dtype=np.int64)
    row_of[codes] = np.arange(codes.size)
    present = np.flatnonzero(row_of >= 0)
    rows = row_of[present]
    row_of[present] = np.arange(present.size)
    return rows, row_of[codes]
