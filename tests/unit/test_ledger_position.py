"""WATCH asks how far LEDGER is: while the broker is away nobody knows, and that ends no worker."""

import asyncio

from tollmeter.settings import Settings
from tollmeter.streams.watch.repairs import ledger_position


def test_without_a_broker_the_ledger_stands_at_its_beginning() -> None:
    assert asyncio.run(ledger_position(Settings(kafka="127.0.0.1:1"), 0)) == 0
