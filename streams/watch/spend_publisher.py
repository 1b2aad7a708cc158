"""Spend on the wire: rows first, then the `as_of` that promises them; everything live again from time to time.

Repeating heals what a dead owner may have written last: readers keep the highest stamp, and compaction the last record.
"""

import asyncio
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from tollmeter.schemas import topics
from tollmeter.schemas.spend import AsOf, spend_key
from tollmeter.settings import Settings
from tollmeter.streams.engine.line import Send
from tollmeter.streams.rules.limits.spend_rows import as_of, nobody, spend_rows, tightest
from tollmeter.streams.rules.windows.state import State

EVERY_S = 1.0
REPEAT_S = 60.0
Keys = set[str]


@dataclass(slots=True)
class _Told:
    """What was published of one partition: when, when last in full, and which keys of which scope."""

    at: float
    full_at: float
    keys: dict[int, Keys] = field(default_factory=dict)


class SpendPublisher:
    """Publishes the spend of the partitions of one WATCH worker."""

    def __init__(self, settings: Settings, send: Send) -> None:
        self._topic, self._send_record = settings.topic(topics.SPEND), send
        self._told: dict[int, _Told] = {}

    async def tell(self, states: Mapping[int, State], now: float) -> None:
        """Publish what has changed, at most once a second for each partition. `now` is monotonic, in seconds."""
        for gone in set(self._told) - set(states):
            del self._told[gone]
        due: dict[int, AsOf] = {}
        for number, state in list(states.items()):
            if states.get(number) is not state:
                continue  # a rebalance took the partition away, or gave it back anew, while the last one was told
            told = self._told.get(number)
            if told is None or now >= told.full_at + REPEAT_S:
                state.to_publish.update(state.budgets.scopes)
                self._told[number] = _Told(now, now, told.keys if told else {})
            elif now < told.at + EVERY_S:
                continue
            self._told[number].at = now
            await self.tell_now(state)
            if (done := as_of(state)) is not None:
                due[number] = done
        await asyncio.gather(
            *(self._send(done.key, done.model_dump_json().encode()) for number, done in due.items() if number in states)
        )

    async def tell_now(self, state: State) -> None:
        """Publish what has changed in one partition; return when the broker has it."""
        if not state.clocks:
            return
        scopes = sorted(state.to_publish)
        state.to_publish.clear()
        silent = nobody(state, scopes)
        rows = spend_rows(state, [scope for scope in scopes if scope not in silent])
        gone = self._no_longer(state, scopes, silent)
        await asyncio.gather(
            *(self._send(row.key, row.model_dump_json().encode()) for row in rows),
            *(self._send(key, None) for key in gone),
        )

    def _no_longer(self, state: State, scopes: Iterable[int], silent: Set[int]) -> list[str]:
        """Return the keys that were published and have no budget any more, or nobody behind it."""
        told = self._told.get(state.partition)
        if told is None:
            return []
        gone: set[str] = set()
        live: set[str] = set()
        for scope in scopes:
            place = state.scopes.names[scope]
            budgets = () if scope in silent else tightest(state.budgets.of(scope))
            keys = {spend_key(*place, budget.period, budget.unit) for budget in budgets}
            gone |= told.keys.get(scope, set()) - keys
            live |= keys
            told.keys[scope] = keys
        return sorted(gone - live)  # what was forgotten may have come back under another number

    async def _send(self, key: str, value: bytes | None) -> None:
        await self._send_record(self._topic, 0, key.encode(), value, [])
