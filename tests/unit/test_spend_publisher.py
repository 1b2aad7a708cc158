"""Publishing spend while partitions come and go: what is still held is told, what went away is not."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.watch_rows import START, new_state
from tollmeter.settings import Settings
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.spend_publisher import SpendPublisher


class Sender:
    """Remembers keys; the first record that it sends is a moment in which a rebalance changes the partitions."""

    def __init__(self, states: dict[int, State]) -> None:
        self.states, self.sent = states, list[str]()

    async def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[Any]
    ) -> int:
        if not self.sent:
            del self.states[1]
            self.states[2] = ticked(2)
        self.sent.append((key or b"").decode())
        return len(self.sent)


def ticked(number: int) -> State:
    state = new_state(number)
    state.clocks = dict.fromkeys(range(state.rules.sources), START * 1_000)
    return state


def test_a_rebalance_between_two_partitions_is_no_error() -> None:
    states = {number: ticked(number) for number in (0, 1)}
    sender = Sender(states)
    spending = SpendPublisher(Settings(), sender.send)
    asyncio.run(spending.tell(states, 10.0))
    first = list(sender.sent)
    assert len(first) == 1, "partition 1 is somebody else's by then"
    asyncio.run(spending.tell(states, 20.0))
    assert len(set(sender.sent)) == 2, "partition 2 is told at the next turn"
