"""Blocks and rate limits: a bucket of `burst` calls that fills by `requests` in `window_s`, counted in integers.

A bucket is one number, the moment at which it will be full again (generic cell rate algorithm): no timer runs, and a
changed limit holds from the next call on.
"""

from typing import NamedTuple

from tollmeter.producers.guard.buckets import Bucket, Buckets, CountedBy, ProcessBuckets
from tollmeter.schemas.access import BLOCK_PREFIX, EVERYONE, Block, RateLimit
from tollmeter.schemas.addresses import IPV6_PREFIX, comparable, network_of, rated_as, width

NANO_PER_S = 1_000_000_000


class Paced(NamedTuple):
    """A call too many: the limit it broke, whose bucket, and how long that has to fill."""

    limit: RateLimit
    scope: str
    name: str
    wait_ns: int
    counted_by: CountedBy = "process"


class _Rate(NamedTuple):
    limit: RateLimit
    step_ns: int
    """What one call takes from the bucket, in time."""
    room_ns: int
    until_ms: int | None


class AccessView:
    """What `usage.policies` says about who may call, and the buckets. For any thread."""

    def __init__(self, buckets: Buckets | None = None, ipv6_prefix: int = IPV6_PREFIX) -> None:
        self._ipv6_prefix = ipv6_prefix
        self._buckets = buckets or ProcessBuckets()
        self.blocks: dict[tuple[str, str, str], tuple[Block, int | None]] = {}
        self.rates: dict[tuple[str, str, str], _Rate] = {}
        self._keys: dict[str, tuple[str, str, str]] = {}
        self._widths: tuple[tuple[int, int], ...] = ()
        """Of the networks that are blocked: a caller is looked up once for each, however many there are."""

    def after_fork(self) -> None:
        """In the child: locks of our own."""
        self._buckets.after_fork()

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
        named = [(scope, _name(scope, called)) for scope, called in callers]
        rated = [(scope, *self._rated(org, scope, name, wall_ms)) for scope, name in named if name]
        binding = [(scope, name, rate) for scope, name, rate in rated if rate is not None]
        if not binding:
            return None
        due: list[tuple[Bucket, int]] = []
        self._buckets.acquire()
        try:
            for scope, name, rate in binding:
                most = mono_ns + rate.room_ns + rate.step_ns  # a changed limit, or a clock that began anew
                full_at = max(min(self._buckets.get((org, scope, name)), most), mono_ns)
                wait = full_at - mono_ns - rate.room_ns
                if wait > 0:
                    return Paced(rate.limit, scope, name, wait, self._buckets.counted_by)
                due.append(((org, scope, name), full_at + rate.step_ns))
            for bucket, full_at in due:
                self._buckets.put(bucket, full_at)
        finally:
            self._buckets.release()
        return None

    def _rated(self, org: str, scope: str, name: str, wall_ms: int) -> tuple[str, _Rate | None]:
        """Return whose bucket a call is of, and the limit: an IPv6 network shares one unless an address has its own."""
        shared = rated_as(name, self._ipv6_prefix) if scope == "client_ip" and ":" in name else name
        own = self._named(org, scope, name, wall_ms) if shared != name else None
        return (shared, self._rate_of(org, scope, shared, wall_ms)) if own is None else (name, own)

    def _named(self, org: str, scope: str, name: str, wall_ms: int) -> _Rate | None:
        held = (self.rates.get((whose, scope, name)) for whose in (org, EVERYONE))
        return next((one for one in held if one is not None and (one.until_ms is None or wall_ms < one.until_ms)), None)

    def _rate_of(self, org: str, scope: str, name: str, wall_ms: int) -> _Rate | None:
        """Return the limit of a caller: its own before that of its kind, the organisation's before everybody's."""
        for whose, which in ((org, name), (EVERYONE, name), (org, EVERYONE), (EVERYONE, EVERYONE)):
            found = self.rates.get((whose, scope, which))
            if found is not None and (found.until_ms is None or wall_ms < found.until_ms):
                return found
        return None


def _name(scope: str, name: str) -> str:
    return comparable(name) if scope == "client_ip" and name else name
