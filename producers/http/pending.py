"""An event whose usage may still become known waits for it, and is recorded once: with the usage, or as the estimate.

An event that has been recorded is never changed: the first one wins everywhere. So what can be replaced is held back
here, in memory, for a while: a process that is killed meanwhile loses it, one that ends records the estimates.
"""

import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from tollmeter.producers.client.destinations import RateLimited
from tollmeter.producers.extract.extract import extract
from tollmeter.schemas.event import UsageEvent

MAX_HELD = 1_000
"""Beyond it the one that waits longest is recorded as it is."""
_USAGE = (
    "usage_source",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "extra_units",
    "reported_cost_nano",
    "service_tier",
    "model_used",
)

_faults = RateLimited()
Record = Callable[[UsageEvent], None]


class _Held(NamedTuple):
    event: UsageEvent
    until: float
    record: Record


class Holding:
    """Events by the provider's id of their call. For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin()
        _holdings.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._timer: threading.Timer | None = None
        self._wakes_at = math.inf

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, event: UsageEvent, seconds: float, record: Record) -> None:
        """Keep an event until `replace` knows better or the time is up; then `record` gets it, once."""
        now = self._clock()
        with self._lock:
            pushed = self._held.pop(event.provider_request_id, None)
            self._held[event.provider_request_id] = _Held(event, now + seconds, record)
            if pushed is None and len(self._held) > MAX_HELD:
                pushed = self._held.pop(min(self._held, key=lambda name: self._held[name].until))
            self._wake(now)
        if pushed is not None:
            _record(pushed, pushed.event)

    def replace(self, response: object) -> bool:
        """Take the usage that a later answer states; False when it states none, or its event is not held (any more)."""
        stated = extract(response)
        if stated.usage_source != "PROVIDER":
            return False
        with self._lock:
            held = self._held.pop(stated.provider_request_id, None)
        if held is None:
            return False
        update = {name: value for name in _USAGE if (value := getattr(stated, name)) not in ("", None)}
        _record(held, held.event.model_copy(update=update))
        return True

    def expire(self, everything: bool = False) -> None:
        """Record what has waited long enough, or all of it."""
        now = self._clock()
        with self._lock:
            due = [name for name, held in self._held.items() if everything or held.until <= now]
            over = [self._held.pop(name) for name in due]
            self._timer, self._wakes_at = None, math.inf
            self._wake(now)
        for held in over:
            _record(held, held.event)

    def _wake(self, now: float) -> None:
        """Have `expire` run when the first is due, on a thread that keeps no process alive."""
        first = min((held.until for held in self._held.values()), default=math.inf)
        if first < self._wakes_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._wakes_at = threading.Timer(max(0.0, first - now), self.expire), first
            self._timer.daemon = True
            self._timer.start()


def _record(held: _Held, event: UsageEvent) -> None:
    try:
        held.record(event)
    except Exception as error:
        _faults.warn("a call was not recorded: %s", type(error).__name__)


_holdings: "weakref.WeakSet[Holding]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """What the parent holds the parent records."""
    for holding in list(_holdings):
        holding._begin()


def _at_exit() -> None:
    for holding in list(_holdings):
        holding.expire(everything=True)


os.register_at_fork(after_in_child=_after_fork_in_child)
# What is registered last runs first: the producers of this process must still be open when the estimates come.
import_module("tollmeter.producers.client.client")
atexit.register(_at_exit)
