"""Databases of tests are used again empty, and only as they were made."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.databases import Databases
from tests.priced_rows import insert, row
from tollmeter.embedded.stack import Stack
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = pytest.mark.stack


@pytest.fixture
def made(stack: Stack) -> Databases:
    return Databases(stack.settings)


@pytest.fixture
def client(stack: Stack, made: Databases) -> Iterator[ClickHouse]:
    client = connect(stack.settings.model_copy(update={"clickhouse_database": made.take()}))
    yield client
    client.close()


def name_of(client: ClickHouse) -> str:
    return str(client.query("SELECT currentDatabase() AS name")[0]["name"])


def test_a_database_comes_back_empty_with_its_schema(made: Databases, client: ClickHouse) -> None:
    now = datetime.now(UTC)
    insert(client, [row(1, event_time=now, received_at=now)])
    made.give_back(name_of(client))
    assert made.take() == name_of(client)
    assert client.query("SELECT count() AS n FROM usage_events")[0]["n"] == 0
    assert client.query("SELECT count() AS n FROM schema_migrations")[0]["n"] > 0
    assert made.take() != name_of(client)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE usage_minutes",
        "ALTER TABLE usage_events MODIFY TTL event_time + INTERVAL 1 DAY DELETE",
        "CREATE TABLE more (a UInt8) ENGINE = Memory",
        "TRUNCATE TABLE schema_migrations",
    ],
    ids=["table dropped", "retention changed", "table added", "migrations forgotten"],
)
def test_a_changed_database_is_not_used_again(made: Databases, client: ClickHouse, change: str) -> None:
    client.command(change)
    made.give_back(name_of(client))
    assert made.take() != name_of(client)
