"""What `quote` says of an answer is what the ledger holds after the event went through producer, broker and stages.

QUOTE_CASES names a folder of further cases (one in a file, as `quote --case` takes them) for the same journey.
"""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.price_events import shipped_book
from tests.unit.test_golden_payloads import AT, cases
from tests.workers import Workers
from tollmeter.admin.quote import Priced, price_answer
from tollmeter.producers.client.client import UsageProducer
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack

COLUMNS = (
    *("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("output_tokens", "reasoning_tokens", "reported_cost_nano", "service_tier", "region", "processing", "status"),
)
_SQL = (
    "SELECT toString(event_id) AS id, extra_units, price_status, cost_nano, rule_id, {columns} FROM usage_events FINAL"
)


def everything() -> dict[str, dict[str, Any]]:
    folder = os.environ.get("QUOTE_CASES", "")
    files = sorted(Path(folder).glob("*.json")) if folder else []
    return cases() | {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def quoted(kept_days: int) -> dict[str, tuple[str, Priced]]:
    """Return by id the events, with their prices, of every case that a ledger which keeps so many days may hold."""
    found, oldest = {}, datetime.now(UTC) - timedelta(days=kept_days)
    for name, case in everything().items():
        answer = case.get("stream") or case.get("input")
        at = datetime.fromisoformat(case.get("at", AT))
        if at < oldest:
            continue
        for priced in price_answer(shipped_book(), answer, case.get("keywords", {}), at):
            found[priced.event.event_id] = (name, priced)
    return found


def test_the_ledger_says_what_quote_says(line: Settings, workers: Workers, eventually: Callable[..., Any]) -> None:
    workers.ready("price", "ledger")
    wanted = quoted(line.retention_events_days)
    assert len(wanted) > 200
    with UsageProducer(settings=line, service="quote", org_id="acme") as producer:
        for _, priced in wanted.values():
            assert producer.record(priced.event)
        assert producer.flush(60)
    client = connect(line)
    sql = _SQL.format(columns=", ".join(COLUMNS))

    def rows() -> list[dict[str, Any]]:
        found = client.query(sql)
        return found if len(found) == len(wanted) else []

    try:
        ledger = {row["id"]: row for row in eventually(rows, 120)}
    finally:
        client.close()
    for event_id, (name, priced) in wanted.items():
        row = ledger[event_id]
        got = (row["cost_nano"], row["price_status"], row["rule_id"] or "")
        assert got == (priced.cost_nano, priced.price_status, priced.rule_id), name
        assert {column: row[column] for column in COLUMNS} == {
            column: getattr(priced.event, column) for column in COLUMNS
        }, name
