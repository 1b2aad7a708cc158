"""A restore that is drilled: a running line is backed up, its database and the older part of its log are destroyed, and
what comes back is the same to the nano-dollar, with all checks green.
"""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from click.testing import CliRunner

from tests.usage_rows import avro, fields
from tests.workers import Workers
from tollmeter.admin import backup, setup
from tollmeter.broker import policies
from tollmeter.broker.client import kafka_admin, kafka_consumer, read_all
from tollmeter.cli import backup as commands
from tollmeter.cli.verify import verify
from tollmeter.schemas import topics
from tollmeter.schemas.control import PolicySet
from tollmeter.schemas.envelope import Control, read_envelope
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
Eventually = Callable[..., Any]
SUMS = "SELECT count() AS calls, toString(sum(toInt128(cost_nano))) AS nano FROM usage_events FINAL"


@pytest.fixture(name="line")
def line_(line_settings: Settings) -> Settings:
    return line_settings


def sums(line: Settings) -> tuple[int, int]:
    client = connect(line)
    try:
        (row,) = client.query(SUMS)
        return row["calls"], int(row["nano"])
    finally:
        client.close()


def send(line: Settings, numbers: range) -> None:
    async def work() -> None:
        now_us = time.time_ns() // 1_000
        async with AIOKafkaProducer(**line.kafka_options()) as producer:
            for number in numbers:
                event = fields(number, occurred_at=now_us - number * 1_000)
                await producer.send(line.topic(topics.EVENTS), avro(event), partition=number % 4)
            await producer.flush()

    asyncio.run(work())


async def cut(line: Settings) -> None:
    """Delete all that the logs hold now, as retention would."""
    async with kafka_admin(line) as admin, kafka_consumer(line) as consumer:
        places = [TopicPartition(line.topic(name), n) for name in (topics.EVENTS, topics.PRICED) for n in range(4)]
        ends = await consumer.end_offsets(places)
        await admin.delete_records({place: RecordsToDelete(before_offset=end) for place, end in ends.items()})


def done(command: Any, line: Settings, *arguments: str) -> Any:
    result = CliRunner().invoke(command, arguments, obj=line)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_restore_brings_back_every_nano_dollar(
    line: Settings, workers: Workers, eventually: Eventually, tmp_path: Path
) -> None:
    workers.ready("price", "ledger", "watch")
    policies.set_policy(line, Policy(org_id="acme", scope="org", monthly_limit_micro=5_000_000))
    send(line, range(400))
    eventually(lambda: sums(line)[0] == 400, timeout=60)
    folder = tmp_path / "backup"
    saved = json.loads(done(commands.backup, line, str(folder), "--json").output)
    assert (saved["ledger"]["calls"], int(saved["ledger"]["cost_nano"])) == sums(line)
    asyncio.run(cut(line))  # from here on these calls are in the backup alone
    send(line, range(400, 500))
    eventually(lambda: sums(line)[0] == 500, timeout=60)
    before = sums(line)

    client = connect(line)
    client.command(f"DROP DATABASE {line.clickhouse_database} SYNC")
    client.close()
    restored = done(commands.restore, line, str(folder))
    assert restored.exit_code == 0, restored.output
    # WATCH saves what it is asked for with its next checkpoint; on a busy machine one round may not wait long enough
    eventually(lambda: not json.loads(done(verify, line, "--repair", "--json").output)["differences"], timeout=120)
    assert sums(line) == before
    assert json.loads(done(verify, line, "--json").output)["differences"] == []
    assert [policy.org_id for policy in policies.list_policies(line)] == ["acme"]
    again = done(commands.restore, line, str(folder))
    assert again.exit_code == 0
    assert sums(line) == before, "a restore may be repeated"


def test_a_backup_of_other_logs_is_no_part_of_totals_that_have_begun(line: Settings, tmp_path: Path) -> None:
    """Live totals of two logs have one name: mixed, a spent limit would begin anew without a word."""
    policies.set_policy(line, Policy(org_id="acme", scope="org", monthly_limit_micro=5_000_000))
    folder = tmp_path / "backup"
    assert done(commands.backup, line, str(folder)).exit_code == 0
    names = {"topic_prefix": f"{line.topic_prefix}other.", "clickhouse_database": f"{line.clickhouse_database}_other"}
    other = line.model_copy(update=names)
    setup.apply(other)
    assert done(commands.restore, other, str(folder)).exit_code == 0, "nobody has begun on its logs"
    assert [policy.org_id for policy in policies.list_policies(other)] == ["acme"]
    assert asyncio.run(told(other)) == policies.list_policies(other), "WATCH knows it, too"

    client = connect(other)
    assert done(commands.restore, other, str(folder)).exit_code == 0, "a restore may be repeated"
    state = '{"applied": 1, "log_id": "the new one"}'
    client.insert_rows("watch_progress", ("priced_partition", "applied", "stamp", "state"), [(0, 1, 1, state)])
    refused = done(commands.restore, other, str(folder))
    assert (refused.exit_code, "limits would not hold" in refused.output) == (2, True)
    client.command(f"DROP DATABASE {other.clickhouse_database} SYNC")
    client.close()


async def told(line: Settings) -> list[Policy]:
    """Return the policies that WATCH was told of in its log."""
    places = [TopicPartition(line.topic(topics.PRICED), number) for number in range(4)]
    async with kafka_consumer(line) as consumer:
        found = [read_envelope(record) async for record in read_all(consumer, places)]
    bodies = [one.body for one in found if isinstance(one, Control)]
    return [body.policy for body in bodies if isinstance(body, PolicySet)]


def test_what_is_no_whole_backup_is_refused(line: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    assert done(commands.restore, line, str(folder)).exit_code == 2
    assert done(commands.backup, line, str(folder)).exit_code == 0
    assert folder.stat().st_mode & 0o077 == 0
    assert done(commands.backup, line, str(folder)).exit_code == 2, "never over another one"
    (file,) = folder.glob("usage.policies.*")
    file.write_bytes(file.read_bytes() + b"x")
    damaged = done(commands.restore, line, str(folder))
    assert damaged.exit_code == 2
    assert "damaged" in damaged.output
    file.unlink()
    assert "is missing" in done(commands.restore, line, str(folder)).output
    (folder / backup.MANIFEST).write_text("{}", encoding="utf-8")
    assert done(commands.restore, line, str(folder)).exit_code == 2
