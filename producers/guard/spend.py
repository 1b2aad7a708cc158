"""Spend rows and `as_of` as a guard keeps them: of one key the highest stamp is right, whatever order they come in.

What is said to be gone is nothing any more: whatever row comes next counts, of a lower stamp, too.
"""

from collections.abc import Callable

from tollmeter.producers.guard.accounts import Accounts
from tollmeter.schemas.spend import AsOf, Spend
from tollmeter.streams.rules.limits.periods import STEP_S

_SPEND, _AS_OF = "spend/", "as_of/"


class SpendView:
    """Takes records of `usage.spend` into accounts. `apply` is for one thread; readers see one row or the next."""

    def __init__(self, accounts: Accounts, monotonic_of: Callable[[int], int]) -> None:
        self._accounts = accounts
        self._monotonic_of = monotonic_of
        """Turns a time of day (ms) into the clock by which settled amounts are kept."""
        self.as_of_ms: dict[int, int] = {}
        """Per partition of usage.priced: all that was appended to usage.events before is in the rows."""
        self._stamps: dict[int, int] = {}
        self.rows = 0

    def apply(self, key: str, value: bytes | None) -> None:
        """Take over a record. Raises `ValueError` for one that cannot be read; then nothing changes."""
        if key.startswith(_AS_OF):
            if value is not None:
                self._advance(AsOf.model_validate_json(value))
        elif key.startswith(_SPEND):
            if value is None:  # a worker that folds the log anew may have come to where nobody used it yet
                account = self._accounts.account(key)
                account.ends_s, account.stamp = 0, -1
            else:
                self._row(key, Spend.model_validate_json(value))

    def _row(self, key: str, row: Spend) -> None:
        account = self._accounts.account(key)
        if row.stamp < account.stamp:
            return
        if account.partition < 0:
            self.rows += 1
        account.stamp, account.partition = row.stamp, row.partition
        # In this order: a check between the two lines sees too much for a moment, never nothing.
        account.spent = row.spent
        account.usd_nano, account.starts_s = row.usd_nano or 0, row.starts_s
        # A rolling period that has moved on has lost some of the old, and its next row is a moment away.
        account.ends_s = row.ends_s + STEP_S if row.period.startswith("rolling") else row.ends_s

    def _advance(self, as_of: AsOf) -> None:
        if as_of.stamp < self._stamps.get(as_of.partition, -1):
            if as_of.as_of_ms <= self.as_of_ms[as_of.partition]:
                return
            # Fewer offsets at a later time: the log was made anew, and what bears the old stamps is history.
            self._accounts.restamp(as_of.partition)
        self._stamps[as_of.partition] = as_of.stamp
        self.as_of_ms[as_of.partition] = max(as_of.as_of_ms, self.as_of_ms.get(as_of.partition, 0))
        self._accounts.passed(as_of.partition, self._monotonic_of(self.as_of_ms[as_of.partition]))

    def known_until(self, partition: int | None) -> int | None:
        """Return the `as_of` of a partition; None for the partition: the oldest. None when nobody has said."""
        if partition is None:
            return min(self.as_of_ms.values(), default=None)
        return self.as_of_ms.get(partition)
