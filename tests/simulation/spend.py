"""The guard's side of a run: its own view of `usage.spend`, record by record, against an undisturbed fold."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from faust.types import TP

from tests.simulation.broker import Broker
from tests.simulation.columns import ColumnFolding
from tollmeter.producers.guard.accounts import Accounts
from tollmeter.producers.guard.spend import SpendView
from tollmeter.schemas import topics
from tollmeter.schemas.spend import AsOf
from tollmeter.settings import Settings
from tollmeter.streams.rules.limits.spend_rows import spend_rows
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.kernel import rules_from


class Guard:
    """Reads the topic in the order of its log; at each `as_of` all that it promises must be known."""

    def __init__(self, settings: Settings, broker: Broker) -> None:
        self._broker = broker
        self._folding = ColumnFolding(settings, broker, None)
        rules = rules_from(settings, settings.partitions_events)
        self._states = {number: State(number, rules) for number in range(settings.partitions_priced)}
        self._accounts = Accounts(1, 1, 1, count().__next__)
        self._view = SpendView(self._accounts, lambda wall_ms: wall_ms)

    def problems(self) -> Iterator[str]:
        """Return what a guard would have taken for unspent although WATCH had counted it and said so."""
        for record in self._broker.logs[TP(topics.SPEND, 0)].records:
            key = (record.key or b"").decode()
            self._view.apply(key, record.value)
            if key.startswith("as_of/"):
                promise = AsOf.model_validate_json(record.value)
                if promise.stamp >= self._states[promise.partition].applied:
                    yield from self._check(promise)

    def _check(self, promise: AsOf) -> Iterator[str]:
        state = self._states[promise.partition]
        log = self._broker.logs[TP(topics.PRICED, promise.partition)]
        begin = state.applied + 1
        self._folding.fold(state, log.read(begin, promise.stamp + 1 - begin), None)
        for row in spend_rows(state, state.budgets.scopes):
            if row.scope == "tag" or row.period not in ("day@UTC", "month@UTC"):
                continue  # made whole by a backfill; rolling ones are said anew each minute, and here hours pass in one
            account: Any = self._accounts.account(row.key)
            if (
                row.spent
                and account.stamp <= promise.stamp
                and (account.spent, account.ends_s) != (row.spent, row.ends_s)
            ):
                yield (
                    f"I5: as of {promise.stamp} the guard reads {account.spent} until {account.ends_s} "
                    f"for {row.key}, not {row.spent} until {row.ends_s}"
                )
