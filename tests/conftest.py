"""The real broker and the real ClickHouse engine for tests: started once a session, each test on names of its own."""

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.embedded.stack import Stack

Value = TypeVar("Value")


def eventually(check: Callable[[], Value], timeout: float = 30.0, every: float = 0.05) -> Value:
    """Return the first truthy result of `check`; fail with its last result or error after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        last: object = None
        try:
            value = check()
            if value:
                return value
            last = value
        except Exception as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s; last result: {last!r}")
        time.sleep(every)


@pytest.fixture(scope="session", name="eventually")
def eventually_fixture() -> Callable[..., object]:
    """`eventually(check, timeout)` without an import."""
    return eventually


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Stack"]:
    """A broker and a ClickHouse front without workers. Missing Java or Maven: skipped here, an error in CI."""
    from tollmeter.embedded.jars import MissingToolError
    from tollmeter.embedded.stack import Stack

    folder = tmp_path_factory.mktemp("stack")
    # ports of their own: a stack that the developer runs keeps the defaults
    wanted = Settings(kafka="127.0.0.1:0", clickhouse="http://127.0.0.1:0")
    try:
        started = Stack(folder, workers=(), settings=wanted)
        started.__enter__()
    except MissingToolError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    try:
        yield started
    finally:
        started.close()


@pytest.fixture
def line_settings(stack: "Stack", tmp_path: Path) -> Iterator[Settings]:
    """Settings of a line that no other test shares, set up: topics, layout record, tables. 4 and 4 partitions."""
    from tollmeter.admin import setup as provision

    name = uuid.uuid4().hex[:10]
    base: Settings = stack.settings
    settings = base.model_copy(
        update={
            "topic_prefix": f"t{name}.",
            "group_prefix": f"g{name}",
            "clickhouse_database": f"db_{name}",
            "data_dir": tmp_path / "data",
            "partitions_events": 4,
            "partitions_priced": 4,
        }
    )
    provision.apply(settings)
    yield settings
    asyncio.run(_forget(settings))


async def _forget(settings: Settings) -> None:
    """Delete the topics: a broker with those of a hundred tests is slow."""
    from aiokafka.admin import AIOKafkaAdminClient

    from tollmeter.schemas.topics import TOPICS

    admin = AIOKafkaAdminClient(**settings.kafka_options())
    try:
        await admin.start()
        await admin.delete_topics([settings.topic(topic.name) for topic in TOPICS])
    finally:
        await admin.close()


@pytest.fixture(scope="module")
def ledger_settings(stack: "Stack") -> Iterator[Settings]:
    """Settings of a database that no other module shares, with its tables; no topics, hence quicker."""
    from tollmeter.sinks.clickhouse import migrate
    from tollmeter.sinks.clickhouse.client import connect

    base: Settings = stack.settings
    settings = base.model_copy(
        update={
            "clickhouse_database": f"db_{uuid.uuid4().hex[:10]}",
            # tests write fixed dates: they must not run out
            "retention_events_days": 10_000,
            "retention_alerts_days": 10_000,
        }
    )
    migrate.apply(settings)
    yield settings
    client = connect(settings)
    client.command(f"DROP DATABASE {settings.clickhouse_database} SYNC")
    client.close()
