"""What the runbook asks ClickHouse, ClickHouse can answer."""

import re
from pathlib import Path

import pytest

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack

TEXT = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sql\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`(SELECT [^`]+)`", TEXT)


def test_every_query_runs(ledger_settings: Settings) -> None:
    statements = [text.strip() for block in BLOCKS for text in block.split(";") if text.strip()] + INLINE
    assert len(statements) > 15
    client = connect(ledger_settings)
    try:
        for statement in statements:
            if statement.startswith("SELECT"):
                client.query(statement)
            else:
                client.command(statement)
    finally:
        client.close()
