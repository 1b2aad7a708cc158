"""A model that nobody knew gets a price while the line runs: its past calls are priced, and all totals follow."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_correct import _publish, ask, check
from tests.usage_rows import fields
from tests.workers import Workers, run
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

CALLS = 40
BEFORE = "version: 1\nrates: []\n"
AFTER = """version: 1
rates:
  - {name: later, provider: own, model: later-1, source: contract, usd_per_mtok: {input_tokens: 2, output_tokens: 8}}
"""


def test_past_calls_of_a_new_model_are_priced_when_price_begins_with_a_book_that_knows_it(
    line_settings: Settings, workers: Workers, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    prices = tmp_path / "own.yaml"
    prices.write_text(BEFORE, encoding="utf-8")
    quick = {"checkpoint_s": 0.5, "rollup_quiet_s": 0.5, "prices_file": str(prices)}
    line = line_settings.model_copy(update=quick)
    price, _, _ = workers.ready("price", "ledger", "watch", line=line)
    start_us = int(time.time() // 60 * 60 - 20 * 60) * 1_000_000
    named = {"provider": "own", "model_sent": "later-1", "model_used": "", "service_tier": "", "extra_units": {}}
    plain = {"input_tokens": 1_000, "output_tokens": 100, "cache_read_tokens": 0, "cache_write_tokens": 0}
    calls = [
        fields(n, occurred_at=start_us + n * 1_000_000, **named, **plain, cache_write_1h_tokens=0, reasoning_tokens=0)
        for n in range(CALLS)
    ]
    run(_publish(line, calls))
    client = connect(line)
    count = "SELECT count() AS n, sum(cost_nano) AS cost FROM usage_events FINAL WHERE cost_nano IS {} NULL"
    eventually(lambda: client.query(count.format(""))[0]["n"] == CALLS, 90)

    price.process.terminate()
    price.process.wait()
    prices.write_text(AFTER, encoding="utf-8")
    workers.ready("price", line=line)
    eventually(lambda: client.query(count.format(""))[0]["n"] == 0, 120)
    (known,) = client.query(count.format("NOT"))
    assert (known["n"], known["cost"]) == (CALLS, CALLS * (1_000 * 2_000 + 100 * 8_000))
    check(client, line, calls, eventually)
    code, again = ask(line, "prices", "fill")
    assert (code, again["filled"], again["published"]) == (0, 0, True)
    client.close()
