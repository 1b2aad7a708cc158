"""The guard's side of a run: its own view of `usage.spend`, record by record, against an undisturbed fold."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from faust.types import TP

from tests.simulation.broker import Broker
from tollmeter.producers.guard.accounts import Accounts
from tollmeter.producers.guard.spend import SpendView
from tollmeter.schemas import topics
from tollmeter.schemas.policy import ASKED_COLUMNS
from tollmeter.schemas.spend import AsOf, Spend

Rows = Mapping[tuple[int, int], list[Spend]]
"""By partition and stamp what an undisturbed fold says there."""


def promises(broker: Broker) -> Iterator[tuple[Any, AsOf | None]]:
    """Yield the records of the topic in the order of their log, each with what it promises, if it is news."""
    newest: dict[int, int] = defaultdict(lambda: -1)
    for record in broker.logs[TP(topics.SPEND, 0)].records:
        promise = None
        if (record.key or b"").startswith(b"as_of/"):
            promise = AsOf.model_validate_json(record.value)
            newest[promise.partition] = max(newest[promise.partition], promise.stamp)
            promise = promise if promise.stamp == newest[promise.partition] else None
        yield record, promise


class Guard:
    """At each `as_of` all that it promises must be known."""

    def __init__(self, broker: Broker, rows: Rows) -> None:
        self._broker, self._rows = broker, rows
        self._accounts = Accounts(1, 1, 1, count().__next__)
        self._view = SpendView(self._accounts, lambda wall_ms: wall_ms)

    def problems(self) -> Iterator[str]:
        """Return what a guard would have taken for unspent although WATCH had counted it and said so."""
        for record, promise in promises(self._broker):
            self._view.apply((record.key or b"").decode(), record.value)
            if promise is not None:
                yield from self._check(promise)

    def _check(self, promise: AsOf) -> Iterator[str]:
        for row in self._rows[promise.partition, promise.stamp]:
            if row.period not in ("day@UTC", "month@UTC"):
                continue  # rolling ones are said anew each minute, and here hours pass in one
            account: Any = self._accounts.account(row.key)
            whole = row.scope in ("tag", *ASKED_COLUMNS)
            most = None if whole else self._most(promise, row)
            if row.spent and account.stamp <= promise.stamp and not _agree(account, row, most):
                yield (
                    f"I5: as of {promise.stamp} the guard reads {account.spent} until {account.ends_s} "
                    f"for {row.key}, not {row.spent} until {row.ends_s}"
                )

    def _most(self, promise: AsOf, row: Spend) -> int | None:
        """Return the most that an undisturbed fold says of a row at this promise or a later one of its partition.

        Some cells of a checkpoint may be there without the rest: whoever begins at the one before counts them as they
        are, and what they hold is in the log. None = nobody knows: its policy goes, and the fold says no more of it.
        """
        most = row.spent
        for (partition, stamp), rows in self._rows.items():
            if partition == promise.partition and stamp >= promise.stamp:
                same = [other for other in rows if other.key == row.key]
                if not same:
                    return None
                most = max([most, *(other.spent for other in same if other.ends_s == row.ends_s)])
        return most


def _agree(account: Any, row: Spend, most: int | None) -> bool:
    """Tell whether a guard reads what a fold says or more, but no more than `most`.

    None = as it may be: a total that begins with its policy is made whole by a backfill, by some workers sooner; or a
    cell that is ahead is of a time when the fold said nothing of it any more.
    """
    wanted, found = (row.spent, row.usd_nano or 0), (account.spent, account.usd_nano)
    return account.ends_s == row.ends_s and found >= wanted and (most is None or account.spent <= most)
