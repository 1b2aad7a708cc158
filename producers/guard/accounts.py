"""What a scope may still spend: the spend row's remaining, less what this process has out and the row cannot know yet.

Two laws. Sum: an account's `held` is the sum of the amounts of its open reservations and of those settled ones that no
`as_of` has passed. Share: one of several guards holds at most remaining / (2 x guards), or one call, so that together
they overshoot by no more than `overshoot_bound`. Times are milliseconds of a clock that is given.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Literal, NamedTuple, Self

from tollmeter.producers.guard.account import Account
from tollmeter.schemas.policy import ASKED_COLUMNS
from tollmeter.streams.rules.limits.policies import Budget

UNITS = ("USD", "EUR", "RUB", "tokens", "requests")
"""Order of the amounts of a call: money in nano-units of each currency, then counts."""
Amounts = Sequence[int]
NO_AMOUNTS = (0, 0, 0, 0, 0)
SWEPT_FROM = 20_000
"""From so many accounts on those of sessions and runs that are over are looked for, when their number has doubled."""
SLICE = 16
"""Entries forgotten while the lock is held once: a check never waits for more."""
FAR = 1 << 62

Reason = Literal["used", "reserved", "share"]


class Bound(NamedTuple):
    """One limit that holds for a call: where it is counted, the amount, and the place of its unit in `UNITS`."""

    account: Account
    limit: int
    unit: int
    budget: Budget


class Refusal(NamedTuple):
    """Why a call does not fit. `used`: nothing is left. `reserved`: the rest is too small, or promised to calls in
    flight. `share`: this process has out what it may before it hears from the others.
    """

    bound: Bound
    reason: Reason
    spent: int
    held: int


class Reservation:
    """What a call in flight may cost, set aside until it is settled, released, or its lease runs out.

    As a context manager it settles at the estimate when the block ends, and releases when the block raises, unless
    either has been done before. All methods are idempotent: the first one counts.
    """

    __slots__ = ("_accounts", "_state", "amounts", "bounds", "expires_ms", "partition")

    def __init__(
        self,
        accounts: "Accounts | None",
        bounds: tuple[Bound, ...] = (),
        amounts: Amounts = NO_AMOUNTS,
        partition: int = 0,
        expires_ms: int = FAR,
    ) -> None:
        self._accounts = accounts
        self.bounds = bounds
        self.amounts = amounts
        self.partition = partition
        self.expires_ms = expires_ms
        self._state = "open"

    @property
    def state(self) -> str:
        """open, settled, released or expired; an expired one can still be settled."""
        return self._state

    def settle(self, actual_nano: int | None = None, tokens: int | None = None) -> None:
        """Replace the estimate by what the call cost (nano-USD) and used; None: the estimate stands."""
        if self._accounts is None:
            self._state = "settled"
        else:
            self._accounts.settle(self, actual_nano, tokens)

    def release(self) -> None:
        """Give all of it back: the call was not made, or cost nothing."""
        if self._accounts is None:
            self._state = "released"
        else:
            self._accounts.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._state == "open":
            if kind is None:
                self.settle()
            else:
                self.release()


class Accounts:
    """The accounts of one process and its reservations. For any thread; the lock is held for microseconds."""

    def __init__(self, guards: int, lease_ms: int, slack_ms: int, now_ms: Callable[[], int]) -> None:
        self.set_guards(guards)
        self._now_ms = now_ms
        self._lease_ms = lease_ms
        self._slack_ms = slack_ms
        self._accounts: dict[str, Account] = {}
        self._sweep_at = SWEPT_FROM
        self.clear_held()

    def set_guards(self, guards: int) -> None:
        """Say how many guards spend from the same budgets. A single one knows all that is out: it has no share."""
        self.guards = guards
        self._parts = 2 * guards if guards > 1 else 1

    def clear_held(self) -> None:
        """Forget what this process has out: in the child of a fork it is the parent's."""
        self._lock = threading.Lock()
        self._open: OrderedDict[Reservation, None] = OrderedDict()
        self._settled: dict[int, deque[tuple[int, Reservation]]] = {}
        for account in self._accounts.values():
            account.held = 0

    def account(self, key: str) -> Account:
        """Return the account of a spend key, which begins empty."""
        return self._accounts.get(key) or self._accounts.setdefault(key, Account())

    def passed_by(self, now_s: int) -> list[str]:
        """Return, now and then, the keys of sessions and runs whose period is over; nothing of theirs is in flight."""
        if len(self._accounts) < self._sweep_at:
            return []
        every = list(self._accounts.items())
        asked = [(key, one) for key, one in every if key.split("/")[2] in ASKED_COLUMNS]
        found = [key for key, one in asked if now_s >= one.ends_s and not one.held]
        self._sweep_at = max(SWEPT_FROM, 2 * (len(every) - len(found)))
        return found

    def forget(self, keys: Iterable[str], now_s: int) -> None:
        """Forget accounts, but for those that are in use again. Whoever holds one must be made to ask anew."""
        with self._lock:
            for key in keys:
                if now_s >= self._accounts[key].ends_s and not self._accounts[key].held:
                    del self._accounts[key]

    def restamp(self, partition: int) -> None:
        """Let any row win again over those that were read of a partition."""
        for account in list(self._accounts.values()):
            if account.partition == partition:
                account.stamp = -1

    @property
    def in_flight(self) -> int:
        """How many reservations are open."""
        return len(self._open)

    @property
    def uncounted(self) -> int:
        """How many settled calls no `as_of` has passed yet."""
        return sum(map(len, self._settled.values()))

    def reserve(
        self, bounds: tuple[Bound, ...], amounts: Amounts, partition: int, now_s: int, now_ms: int, enforce: bool = True
    ) -> Reservation | Refusal:
        """Set the amounts aside in every account, or in none and say why. `now_s` is the time of day, for periods."""
        with self._lock:
            parts = self._parts
            for account, limit, unit, _ in bounds:
                after = account.held + amounts[unit]
                left = limit - account.counted if now_s < account.ends_s else limit
                # What is well within the share is within the rest: the usual case costs one comparison.
                if after * parts >= left and enforce and self._refuses(account.held, after, left):
                    for earlier in bounds:
                        if earlier.account is account:
                            return _refusal(bounds, amounts, now_s)
                        earlier.account.held -= amounts[earlier.unit]
                account.held = after
            made = Reservation(self, bounds, amounts, partition, now_ms + self._lease_ms)
            self._open[made] = None
            return made

    def _refuses(self, held: int, after: int, left: int) -> bool:
        """Say whether a call does not fit: nothing is left, or not enough, or (unless it is the only one) our share."""
        return held >= left or after > left or (held > 0 and after * self._parts > left)

    def settle(self, reservation: Reservation, actual_nano: int | None, tokens: int | None) -> None:
        """Count what a call cost until `as_of` has passed this moment. Called by the reservation."""
        with self._lock:
            state = reservation._state
            if state not in ("open", "expired"):
                return
            was = reservation.amounts
            now = actual(was, actual_nano, tokens)
            open_ = state == "open"
            for account, _, unit, _ in reservation.bounds:
                account.held += now[unit] - was[unit] if open_ else now[unit]
            reservation.amounts = now
            reservation._state = "settled"
            self._open.pop(reservation, None)
            waiting = self._settled.get(reservation.partition)
            if waiting is None:
                waiting = self._settled[reservation.partition] = deque()
            waiting.append((self._now_ms(), reservation))

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back. Called by the reservation."""
        with self._lock:
            if reservation._state == "open":
                self._close(reservation, "released")

    def expire(self) -> None:
        """Give back what has outlived its lease."""
        now_ms, more = self._now_ms(), True
        while more:
            more = self._expire(now_ms)

    def _expire(self, now_ms: int) -> bool:
        with self._lock:
            for _ in range(SLICE):
                first = next(iter(self._open), None)
                if first is None or first.expires_ms > now_ms:
                    return False
                self._close(first, "expired")
            return True

    def _close(self, reservation: Reservation, state: str) -> None:
        for account, _, unit, _ in reservation.bounds:
            account.held -= reservation.amounts[unit]
        reservation._state = state
        self._open.pop(reservation, None)

    def passed(self, partition: int, as_of_ms: int) -> None:
        """Forget what was settled before the partition's `as_of` (on our monotonic clock) and a slack."""
        waiting, until, more = self._settled.get(partition), as_of_ms - self._slack_ms, True
        while waiting and more:
            more = self._forget(waiting, until)

    def _forget(self, waiting: deque[tuple[int, Reservation]], until_ms: int) -> bool:
        with self._lock:
            for _ in range(SLICE):
                if not waiting or waiting[0][0] >= until_ms:
                    return False
                _, done = waiting.popleft()
                for account, _, unit, _ in done.bounds:
                    account.held -= done.amounts[unit]
            return True


def _refusal(bounds: tuple[Bound, ...], amounts: Amounts, now_s: int) -> Refusal:
    """Name the limit that refuses: the first that is used up, else the first that the call does not fit into."""
    views = [
        (bound, bound.account.counted if now_s < bound.account.ends_s else 0, bound.account.held) for bound in bounds
    ]
    for bound, spent, held in views:
        if spent + held >= bound.limit:
            return Refusal(bound, "used", spent, held)
    for bound, spent, held in views:
        if spent + held + amounts[bound.unit] > bound.limit:
            return Refusal(bound, "reserved", spent, held)
    tightest = max(views, key=lambda view: (view[2] + amounts[view[0].unit]) / (view[0].limit - view[1]))
    return Refusal(tightest[0], "share", tightest[1], tightest[2])


def actual(estimated: Amounts, actual_nano: int | None, tokens: int | None) -> Amounts:
    """Return what was used, in every unit. Other currencies follow the rate of the estimate."""
    usd, eur, rub, count, requests = estimated
    if actual_nano is not None:
        if usd:
            eur, rub = (eur * actual_nano + usd // 2) // usd, (rub * actual_nano + usd // 2) // usd
        usd = actual_nano
    return usd, eur, rub, count if tokens is None else tokens, requests


def overshoot_bound(limit: int, guards: int, call: int, *, underestimate: float = 1.0) -> int:
    """Return by how much all guards together may exceed a limit, in the limit's unit. Known before the first call.

    `call` is the dearest call's estimate (at most the cap), `underestimate` how many times its estimate a call may
    really take. Each guard holds at most remaining / (2 x guards), or one call that still fits: so the last of them
    may find the rest already taken by the others. Holds while no guard is more than one message behind the others, and
    calls reach the broker within the slack.
    """
    flying = limit if guards == 1 else max(limit // 2, guards * call)
    return (guards - 1) * call + round(flying * (underestimate - 1.0))
