"""Scopes as small numbers: (org_id, kind, name) is interned once, and arrays do the rest.

Names that are empty name nobody: such rows count for the organisation but make no scope of that kind.
"""

import numpy as np
import polars as pl

from tollmeter.schemas.policy import SCOPE_COLUMNS, SCOPE_KINDS
from tollmeter.streams.rules.totals import Vector

Scope = tuple[str, str, str]
"""(org_id, kind, name); name is "" for the organisation itself."""

NOBODY = -1
FEW_ROWS = 1_000
"""Up to here a call into polars costs more than looking up the texts themselves; so does encoding plain text."""
_KIND_BITS = 4
_ORG_SHIFT = 32
_CODE = (1 << _ORG_SHIFT) - 1


class Scopes:
    """The numbers of all scopes of one partition, in order of first appearance in its log."""

    def __init__(self) -> None:
        self.names: list[Scope] = []
        self._number: dict[Scope, int] = {}
        self._codes: dict[str, int] = {}
        self._texts: list[str] = []
        self._pairs: dict[int, int] = {}
        self._kinds = np.empty(64, dtype=np.int8)

    def __len__(self) -> int:
        return len(self.names)

    def number(self, scope: Scope) -> int:
        """Return the number of a scope, giving it one if it is new."""
        known = self._number.get(scope)
        if known is None:
            known = self._number[scope] = len(self.names)
            self.names.append(scope)
            if known >= self._kinds.size:
                self._kinds = np.concatenate((self._kinds, np.empty_like(self._kinds)))
            self._kinds[known] = SCOPE_KINDS.index(scope[1])
        return known

    def of_kind(self, numbers: Vector, kind: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell for each scope number whether it is of this kind."""
        mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = self._kinds[numbers] == SCOPE_KINDS.index(kind)
        return mask

    def of_rows(self, rows: pl.DataFrame) -> dict[str, Vector]:
        """Return for each kind the scope number of each row, NOBODY where the name is empty."""
        orgs = self.text_codes(rows["org_id"])
        return {kind: self._of_column(rows[column], orgs, kind) for kind, column in SCOPE_COLUMNS.items()}

    def _of_column(self, names: pl.Series, orgs: Vector, kind: str) -> Vector:
        codes = orgs if kind == "org" else self.text_codes(names)
        pairs = (orgs << _ORG_SHIFT | codes) << _KIND_BITS | SCOPE_KINDS.index(kind)
        distinct, where = np.unique(pairs, return_inverse=True)
        known = self._pairs
        numbers = [known[pair] if pair in known else self._new_pair(pair, kind) for pair in distinct.tolist()]
        return np.array(numbers, dtype=np.int64)[where]

    def _new_pair(self, pair: int, kind: str) -> int:
        """Intern an (organisation, name) pair seen for the first time."""
        org, name = self._texts[pair >> _KIND_BITS >> _ORG_SHIFT], self._texts[pair >> _KIND_BITS & _CODE]
        if kind == "org":
            number = self.number((org, kind, ""))
        elif name == "":
            number = NOBODY
        else:
            number = self.number((org, kind, name))
        self._pairs[pair] = number
        return number

    def text_codes(self, column: pl.Series) -> Vector:
        """Return a code per row; equal texts have equal codes for the life of this object."""
        if column.len() <= FEW_ROWS or column.dtype == pl.String:
            return np.array([self._code(text) for text in column.to_list()], dtype=np.int64)
        physical = column.to_physical().to_numpy()
        _, first, where = np.unique(physical, return_index=True, return_inverse=True)
        ours = np.array([self._code(text) for text in column.gather(first).to_list()], dtype=np.int64)
        found: Vector = ours[where]
        return found

    def _code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._texts)
            self._texts.append(text)
        return code
