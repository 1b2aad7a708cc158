"""Pages that others build on: each event of docs/json.md goes through the line, each query of docs/queries.md runs."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.terminals import in_pipe
from tests.workers import Workers, send
from tollmeter.embedded.environment import settings_environment
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = pytest.mark.stack
DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, kind: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module", name="ledger")
def connected(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    yield client
    client.close()


@pytest.mark.parametrize("query", blocks("queries.md", "sql"), ids=lambda query: " ".join(query.split())[:60])
def test_queries_run(ledger: ClickHouse, query: str) -> None:
    assert ledger.query(query) == []


VIEWS = ("usage", "usage_minutely", "usage_hourly", "usage_daily", "token_usage", "alert_list")


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_of_a_view_says_what_it_is(ledger: ClickHouse, view: str) -> None:
    columns = {row["name"]: row["comment"] for row in ledger.query(f"DESCRIBE TABLE {view}")}
    assert [name for name, comment in columns.items() if not comment] == []
    for name, comment in columns.items():
        for ending, unit in (("_usd", "USD"), ("_nano", "nano-"), ("_ms", "milliseconds")):
            assert not name.endswith(ending) or unit in comment or "_nano in USD" in comment, name


def test_events_as_printed_reach_the_ledger_with_their_cost(
    line: Settings, workers: Workers, eventually: Callable[..., Any]
) -> None:
    examples = [json.loads(text) for text in blocks("json.md", "json")]
    send(line, topics.EVENTS, [(0, json.dumps(example).encode(), []) for example in examples])
    workers.ready("price", "ledger")
    client = connect(line)
    query = "SELECT request_id, model_sent, status, price_status, cost_nano FROM usage ORDER BY event_time, event_id"
    rows = eventually(lambda: found if len(found := client.query(query)) == len(examples) else None, timeout=60)
    client.close()
    assert {(row["model_sent"], row["status"], row["price_status"], row["cost_nano"]) for row in rows} == {
        ("gpt-4o", "UNKNOWN", "PRICED", 4_500_000),  # 1,000 in at 2.50 and 200 out at 10 USD per million
        (
            "gpt-4o",
            "OK",
            "PRICED",
            4_000_000 + 10_000_000,
        ),  # 400 of the input cached at 1.25, and a search at 10 USD per 1,000
        ("dall-e-3", "UNKNOWN", "OVERRIDE", 80_000_000),  # two images at 0.04 USD
        ("claude-haiku-4-5", "ERROR", "NO_USAGE", None),
        ("gpt-4o", "BLOCKED", "FREE", 0),
        ("gpt-4o", "UNKNOWN", "PRICED", 35_000),
    }
    _sent_by_hand(settings_environment(line))


def _sent_by_hand(environment: dict[str, str]) -> None:
    """`send` of images, and of a model that nobody prices."""
    images = in_pipe("send", "--model", "dall-e-3", "--images", "2", "--json", **environment)
    assert images.returncode == 0, images.stderr
    row = json.loads(images.stdout)["row"]
    assert (row["price_status"], row["cost_nano"]) == ("OVERRIDE", 80_000_000)
    unknown = in_pipe("send", "--model", "gpt-4oo", "--in", "10", **environment)
    text = unknown.stdout.decode()
    assert "no price is known for gpt-4oo at openai, so its cost is unknown, not 0" in text
    assert "openai/gpt-4o" in text.partition("nearest names: ")[2]
