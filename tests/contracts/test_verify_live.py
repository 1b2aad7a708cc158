"""Live totals are compared as of a checkpoint; while the ledger is ahead of it by corrections, the next is awaited."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.priced_rows import insert, row
from tests.workers import commit
from tollmeter.admin.verify.live import check_windows
from tollmeter.admin.verify.windows import WindowCheck
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

pytestmark = pytest.mark.stack

NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0) - timedelta(hours=1)
OLD, NEW = 100, 250
LEVELS = {
    "minute": NOW,
    "hour": NOW.replace(minute=0),
    "day": NOW.replace(hour=0, minute=0),
    "month": NOW.replace(day=1, hour=0, minute=0),
}


@pytest.fixture
def client(line_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(line_settings)
    for offset, revision, cost in ((1, 0, OLD), (7, 1, NEW)):
        plain = {"event_time": NOW, "received_at": NOW, "org_id": "acme", "status": "OK", "billing_scope": "ORG"}
        insert(client, [row(1, **plain, revision=revision, cost_nano=cost)], offset=offset)
    commit(line_settings, "ledger", topics.PRICED, {0: 100})
    yield client
    client.close()


def checkpoint(client: ClickHouse, applied: int, cost: int) -> None:
    """What WATCH saves: its totals, then how far it has got."""
    columns = ("level", "bucket", "org_id", "scope", "name", "priced_partition", "stamp", "calls", "cost_nano")
    client.insert_rows(
        "usage_windows",
        columns,
        [(level, start, "acme", "org", "", 0, applied, 1, cost) for level, start in LEVELS.items()],
    )
    state = {"applied": applied, "watermark_ms": int(NOW.timestamp() * 1000), "deferred": []}
    client.insert_rows(
        "watch_progress", ("priced_partition", "applied", "stamp", "state"), [(0, applied, applied, json.dumps(state))]
    )


def check(client: ClickHouse, settings: Settings, wait_s: float) -> WindowCheck:
    return asyncio.run(check_windows(settings, client, wait_s, 40 * 86_400.0))


def test_corrected_totals_wait_and_are_no_difference(client: ClickHouse, line_settings: Settings) -> None:
    checkpoint(client, 5, OLD)
    found = check(client, line_settings, 0.3)
    assert (found.compared, found.waiting, found.ahead, found.differences()) == (0, 4, 4, [])


@pytest.mark.parametrize(("cost", "differences"), [(NEW, 0), (OLD, 4)], ids=["followed", "did not follow"])
def test_next_checkpoint_is_compared(client: ClickHouse, line_settings: Settings, cost: int, differences: int) -> None:
    checkpoint(client, 5, OLD)

    async def work() -> WindowCheck:
        checking = asyncio.create_task(check_windows(line_settings, client, 60.0, 40 * 86_400.0))
        done, _ = await asyncio.wait({checking}, timeout=2.0)
        assert not done, "it waits for a checkpoint that knows of the correction"
        await asyncio.to_thread(checkpoint, client, 9, cost)
        return await checking

    found = asyncio.run(work())
    assert (found.compared, found.waiting, len(found.differences())) == (4, 0, differences)
