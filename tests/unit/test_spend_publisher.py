"""Publishing spend while partitions come and go: what is still held is told, what went away is not."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests import watch_rows
from tests.laws.test_fold import Record, correction_record, rows_record
from tests.unit.test_bindings import Line, pool
from tests.watch_rows import START, new_state
from tollmeter.schemas.control import PolicySet
from tollmeter.schemas.envelope import control_record
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.records import fold_records
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
    line = Line(pool("user", "ann", daily_limit_micro=1))
    line.tick(START)
    states = {0: line.state, 1: ticked(1)}
    sender = Sender(states)
    spending = SpendPublisher(Settings(), sender.send)
    asyncio.run(spending.tell(states, 10.0))
    row, *promised = sender.sent
    assert row.startswith("spend/")
    assert promised == ["as_of/0"], "partition 1 is somebody else's by then"
    asyncio.run(spending.tell(states, 20.0))
    assert sender.sent[2:] == ["as_of/0", "as_of/2"], "partition 2 is told at the next turn"


class Topic:
    """Keeps the last value of each key."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes | None] = {}

    async def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[Any]
    ) -> int:
        self.rows[(key or b"").decode()] = value
        return len(self.rows)

    def names(self) -> set[str]:
        return {key.split("/")[3] for key, value in self.rows.items() if key.startswith("spend/") and value is not None}


def policy(offset: int, **fields: Any) -> Record:
    value, headers = control_record(PolicySet(policy=Policy(org_id="acme", daily_limit_micro=1_000, **fields)))
    return Record(offset, START * 1_000, headers, value)


def test_a_user_without_a_call_and_a_policy_of_his_own_is_told_of_no_more() -> None:
    """As of one who was forgotten: a correction took his calls away, and every repetition would name him anew."""
    state, topic = ticked(0), Topic()
    spending = SpendPublisher(Settings(), topic.send)
    ann = watch_rows.row(0, START, cost_nano=1_000, user_id="ann")
    bob = watch_rows.row(1, START, cost_nano=1_000, user_id="bob")
    rules = [policy(0, applies="each_member"), policy(1, scope="user", name="eve")]
    fold_records(state, [*rules, rows_record(2, [ann, bob])])
    asyncio.run(spending.tell({0: state}, 10.0))
    assert topic.names() == {"ann", "bob", "eve"}
    fold_records(state, [correction_record(3, [ann], [{**ann, "revision": 1, "user_id": ""}], START)])
    asyncio.run(spending.tell({0: state}, 20.0))
    assert topic.names() == {"bob", "eve"}
    fresh = Topic()  # another worker, which has told nothing yet
    asyncio.run(SpendPublisher(Settings(), fresh.send).tell({0: state}, 10.0))
    assert fresh.names() == {"bob", "eve"}
    fold_records(state, [rows_record(4, [watch_rows.row(2, START, cost_nano=1_000, user_id="ann")])])
    asyncio.run(spending.tell({0: state}, 30.0))
    assert topic.names() == {"ann", "bob", "eve"}
