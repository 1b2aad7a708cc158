"""Hashes of the names of scopes by number: the same on every machine, while numbers are only this process's own."""

from hashlib import blake2b

import numpy as np

from tollmeter.streams.rules.windows.cardinality import OTHER
from tollmeter.streams.rules.windows.scopes import Scopes
from tollmeter.streams.rules.windows.totals import Vector

_BITS = 62


class NameHashes:
    """Each is computed once; 0 stands for nobody and for names that are folded into one."""

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes
        self._known = np.zeros(0, dtype=np.int64)

    def __call__(self, numbers: Vector) -> Vector:
        """Return the hash behind each scope number."""
        if self._known.size < len(self._scopes):
            fresh = [hash_of(name) for _, _, name in self._scopes.names[self._known.size :]]
            self._known = np.concatenate((self._known, np.array(fresh, dtype=np.int64)))
        found: Vector = np.where(numbers >= 0, self._known[numbers], 0)
        return found


def hash_of(name: str) -> int:
    """Return a number from 1 on that fits 62 bits, 0 for nobody."""
    if name in ("", OTHER):
        return 0
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") >> (64 - _BITS) or 1
