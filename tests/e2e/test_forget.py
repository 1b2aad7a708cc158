"""Who is forgotten is named nowhere: tables, compacted topics, notices; once cleaned, not in files of the broker."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from tests.e2e.test_correct import _publish
from tests.usage_rows import avro, fields
from tests.workers import Workers, read, run, send
from tollmeter.broker import compacted
from tollmeter.broker.policies import history, list_policies
from tollmeter.cli.root import tollmeter
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect

if TYPE_CHECKING:
    from tollmeter.embedded.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

CANARY = "canary.person@example.com"
COMPACTED = (topics.POLICIES, topics.SPEND, topics.NOTICES, topics.REGISTRY)
NOBODY = {topics.POLICIES: b"member:acme/user/nobody", topics.NOTICES: b"ack:nobody", topics.REGISTRY: b"label:nobody"}
ROUTES = "consumers:\n  log: {type: log}\nroutes:\n  - to: [log]\nreport: {enabled: false}\n"
CLEANED = {
    "cleanup.policy": "compact",
    "segment.ms": "500",
    "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": "0",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "500",
}


def held(line: Settings, topic: str) -> dict[bytes, bytes]:
    """Return the last value of each key."""
    rows: dict[bytes, bytes] = {}
    for record in read(line, topic, 1):
        rows[record.key] = record.value
    return {key: value for key, value in rows.items() if value is not None}


def naming(line: Settings) -> dict[str, int]:
    """Return how many records in force name the canary, by topic."""
    word = CANARY.encode()
    return {topic: sum(word in key or word in value for key, value in held(line, topic).items()) for topic in COMPACTED}


def said(line: Settings, *words: str) -> str:
    """Run a command, which must succeed; return what it printed."""
    done = CliRunner().invoke(tollmeter, list(words), obj=line)
    assert done.exit_code == 0, done.output
    return done.stdout


def prepare(line: Settings) -> None:
    """Everything that may name a person beside calls: policies, a raise, the membership, a block, a label, a mute."""
    org = ["--org", "acme"]
    own = [*org, "--scope", "user", "--name", CANARY]
    said(line, "member", "set", *org, "--user", CANARY, "--in", "research")
    said(line, "policy", "set", *org, "--applies", "each_member", "--monthly", "1000")
    said(line, "policy", "set", *own, "--daily", "0.001")
    words = ["--daily", "0.002", "--until", "2099-01-01", "--by", CANARY, "--reason", f"{CANARY} asked"]
    said(line, "policy", "raise", *own, *words)
    said(line, "block", "user", CANARY, "--org", "umbra", "--reason", f"{CANARY} left")
    said(line, "key", "set", "0000000000000001", *org, "--label", "prod", "--owner", CANARY)
    said(line, "alerts", "mute", "--scope", "user", "--name", CANARY, "--kind", "new_model", "--for", "1h")


async def clean_soon(line: Settings) -> None:
    admin = AIOKafkaAdminClient(**line.kafka_options())
    await admin.start()
    try:
        for topic in COMPACTED:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, line.topic(topic), CLEANED)])
    finally:
        await admin.close()


def bytes_of(stack: "Stack", line: Settings, topic: str) -> bytes:
    """Return every byte that the broker keeps of a topic."""
    files = [
        file
        for folder in stack.data_dir.rglob(f"{line.topic(topic)}-0")
        for file in folder.iterdir()
        if file.suffix == ".log"
    ]
    assert files, "the broker keeps its topics elsewhere: this test looks at nothing"
    return b"".join(file.read_bytes() for file in files)


def totals(client: ClickHouse) -> dict[str, Any]:
    sql = "SELECT count() AS n, sum(cost_nano) AS cost, sum(input_tokens) AS tokens FROM usage"
    return dict(client.query(sql)[0])


def test_nothing_names_who_is_forgotten(
    line_settings: Settings, stack: "Stack", workers: Workers, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    line = line_settings.model_copy(update={"checkpoint_s": 0.5, "rollup_quiet_s": 0.5})
    workers.ready("price", "ledger", "watch", line=line)
    (tmp_path / "routes.yaml").write_text(ROUTES, encoding="utf-8")
    workers.start("notify", "notify", "--routes", str(tmp_path / "routes.yaml"), line=line)
    prepare(line)
    start_us = int(time.time()) * 1_000_000
    calls = [fields(n, occurred_at=start_us + n, org_id="acme", user_id=(CANARY, "ann")[n % 2]) for n in range(20)]
    run(_publish(line, calls))
    client = connect(line)
    eventually(lambda: totals(client)["n"] == len(calls), 90)
    eventually(lambda: all(naming(line).values()), 90)
    before = totals(client)

    proof = json.loads(said(line, "forget", "--user", CANARY, "--wait", "90s", "--json"))
    assert (proof["forgotten"], proof["totals_kept"], proof["calls"]) == (True, True, 10), proof
    assert set(proof["tombstones"]) == set(COMPACTED)
    assert all(count > 0 for count in proof["tombstones"].values()), proof
    assert CANARY not in json.dumps(proof)
    assert totals(client) == before
    assert naming(line) == dict.fromkeys(COMPACTED, 0)
    assert [policy.policy_id for policy in list_policies(line)] == ["acme/org//each_member/USD"]
    assert history(line, "acme") == []
    for table in ("usage_windows", "watch_policies", "alerts", "alert_states"):
        rows = client.query(
            f"SELECT count() AS n FROM {table} AS t WHERE position(toString(tuple(t.*)), '{CANARY}') > 0"
        )
        assert rows == [{"n": 0}], table

    # the workers go on, and tell nothing of it again; the other user counts as before
    send(line, topics.EVENTS, [(0, avro(fields(99, occurred_at=start_us, org_id="acme", user_id="ann")), [])])
    eventually(lambda: totals(client)["n"] == len(calls) + 1, 90)
    eventually(lambda: any(b"ann" in key for key in held(line, topics.SPEND)), 60)
    assert naming(line) == dict.fromkeys(COMPACTED, 0)
    again = json.loads(said(line, "forget", "--user", CANARY, "--wait", "60s", "--json"))
    assert (again["calls"], sum(again["tombstones"].values()), again["forgotten"]) == (0, 0, True)

    run(clean_soon(line))
    word = CANARY.encode()

    def cleaned() -> bool:
        for topic, key in NOBODY.items():  # a segment ends when a later record comes
            compacted.write(line, topic, {key: None})
        return not any(word in bytes_of(stack, line, topic) for topic in COMPACTED)

    eventually(cleaned, 240)
    client.close()
