"""Hashes of the names of scopes by number: the same on every machine, while numbers are only this process's own."""

from collections.abc import Callable
from hashlib import blake2b
from ipaddress import ip_address

import numpy as np

from tollmeter.streams.rules.windows.cardinality import OTHER
from tollmeter.streams.rules.windows.scopes import Scopes
from tollmeter.streams.rules.windows.totals import Vector

_BITS = 62
_HASHED = ("api_key", "client_ip", "model", "user")


class NameHashes:
    """Each is computed once by `hash_(kind, name)`; 0 stands for nobody and for names that are folded into one."""

    def __init__(self, scopes: Scopes, hash_: Callable[[str, str], int]) -> None:
        self._scopes, self._hash = scopes, hash_
        self._known = np.zeros(0, dtype=np.int64)

    def __call__(self, numbers: Vector) -> Vector:
        """Return the hash behind each scope number."""
        if self._known.size < len(self._scopes):
            fresh = [self._hash(kind, name) for _, kind, name in self._scopes.names[self._known.size :]]
            self._known = np.concatenate((self._known, np.array(fresh, dtype=np.int64)))
        found: Vector = np.where(numbers >= 0, self._known[numbers], 0)
        return found


def scope_hash(kind: str, name: str) -> int:
    """Return the hash of a name, 0 for kinds that nobody asks for."""
    return hash_of(name) if kind in _HASHED else 0


def network_hash(kind: str, name: str) -> int:
    """Return the hash of an address's network, /24 or /48; of the text itself where it is no address."""
    if kind != "client_ip" or name == OTHER:
        return 0
    if ":" not in name:
        return hash_of(name.rpartition(".")[0] or name)
    try:
        return hash_of(ip_address(name).packed[:6].hex())
    except ValueError:
        return hash_of(name)


def hash_of(name: str) -> int:
    """Return a number from 1 on that fits 62 bits, 0 for nobody."""
    if name in ("", OTHER):
        return 0
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") >> (64 - _BITS) or 1
