"""Blocks and rate limits: a bucket of `burst` calls that fills by `requests` in `window_s`, counted in integers.

A bucket is one number, the moment at which it will be full again (generic cell rate algorithm): no timer runs, and a
changed limit holds from the next call on.
"""

import threading
from typing import NamedTuple

from tollmeter.schemas.access import BLOCK_PREFIX, EVERYONE, Block, RateLimit
from tollmeter.schemas.addresses import comparable, network_of, width

MAX_BUCKETS = 50_000
"""When so many buckets are young they become the old ones, and the old are forgotten: a check costs the same always."""
NANO_PER_S = 1_000_000_000


class Paced(NamedTuple):
    """A call too many: the limit it broke, whose bucket, and how long that has to fill."""

    limit: RateLimit
    scope: str
    name: str
    wait_ns: int


class _Rate(NamedTuple):
    limit: RateLimit
    step_ns: int
    """What one call takes from the bucket, in time."""
    room_ns: int
    until_ms: int | None


class AccessView:
    """What `usage.policies` says about who may call, and this process's buckets. For any thread."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[str, str, str], tuple[Block, int | None]] = {}
        self.rates: dict[tuple[str, str, str], _Rate] = {}
        self._keys: dict[str, tuple[str, str, str]] = {}
        self._widths: tuple[tuple[int, int], ...] = ()
        """Of the networks that are blocked: a caller is looked up once for each, however many there are."""
        self._full_at: dict[tuple[str, str, str], int] = {}
        self._old: dict[tuple[str, str, str], int] = {}
        self.renew_lock()

    def renew_lock(self) -> None:
        """Take a lock of our own: in the child of a fork the parent's may be held for ever."""
        self._lock = threading.Lock()

    def apply(self, key: str, value: bytes | None) -> None:
        """Take over a row, or its end. Raises `ValueError` for one that cannot be read; then nothing changes."""
        if value is None:
            gone = self._keys.pop(key, None)
            if gone is not None:
                (self.blocks if key.startswith(BLOCK_PREFIX) else self.rates).pop(gone, None)
                if "/" in gone[2]:
                    self._see_networks()
            return
        if key.startswith(BLOCK_PREFIX):
            block = Block.model_validate_json(value)
            where: tuple[str, str, str] = (block.org_id, block.scope, _name(block.scope, block.name))
            self.blocks[where] = block, None if block.until is None else int(block.until.timestamp() * 1_000)
        else:
            limit = RateLimit.model_validate_json(value)
            where = limit.org_id, limit.scope, _name(limit.scope, limit.name)
            step = limit.window_s * NANO_PER_S // limit.requests
            until = None if limit.until is None else int(limit.until.timestamp() * 1_000)
            self.rates[where] = _Rate(limit, step, step * (limit.burst - 1), until)
        self._keys[key] = where
        if "/" in where[2]:
            self._see_networks()

    def _see_networks(self) -> None:
        names = {name for _, scope, name in self.blocks if scope == "client_ip" and "/" in name}
        self._widths = tuple({found for name in names if (found := width(name)) is not None})

    def blocked(self, org: str, callers: tuple[tuple[str, str], ...], wall_ms: int) -> Block | None:
        """Return the block that holds for one of the (scope, name) pairs, if any."""
        for scope, name in callers:
            for which in self._names(scope, name) if name else ():
                for whose in (org, EVERYONE):
                    found = self.blocks.get((whose, scope, which))
                    if found is not None and (found[1] is None or wall_ms < found[1]):
                        return found[0]
        return None

    def _names(self, scope: str, name: str) -> tuple[str, ...]:
        """Return what a caller may be blocked as: an address by itself and by its networks."""
        if scope != "client_ip":
            return (name,)
        address = comparable(name)
        around = (network_of(address, found) for found in self._widths)
        return (address, *(network for network in around if network is not None))

    def take(self, org: str, callers: tuple[tuple[str, str], ...], wall_ms: int, mono_ns: int) -> Paced | None:
        """Take one call out of the bucket of every caller, or out of none and say which is empty."""
        due = []
        with self._lock:
            for scope, called in callers:
                name = _name(scope, called)
                rate = self._rate_of(org, scope, name, wall_ms) if name else None
                if rate is None:
                    continue
                bucket = org, scope, name
                full_at = max(self._full_at.get(bucket) or self._old.get(bucket, 0), mono_ns)
                wait = full_at - mono_ns - rate.room_ns
                if wait > 0:
                    return Paced(rate.limit, scope, name, wait)
                due.append((bucket, full_at + rate.step_ns))
            self._full_at.update(due)
            if len(self._full_at) >= MAX_BUCKETS:
                self._old, self._full_at = self._full_at, {}
        return None

    def _rate_of(self, org: str, scope: str, name: str, wall_ms: int) -> _Rate | None:
        """Return the limit of a caller: its own before that of its kind, the organisation's before everybody's."""
        for whose, which in ((org, name), (EVERYONE, name), (org, EVERYONE), (EVERYONE, EVERYONE)):
            found = self.rates.get((whose, scope, which))
            if found is not None and (found.until_ms is None or wall_ms < found.until_ms):
                return found
        return None


def _name(scope: str, name: str) -> str:
    return comparable(name) if scope == "client_ip" and name else name
