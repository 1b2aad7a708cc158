"""Notify on the real broker: each alert reaches its consumer once, whatever is killed, refused or started twice."""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from tests.alert_events import Receiver, alert, receiver
from tests.forkserver import Child
from tests.workers import Worker, Workers
from tollmeter.cli.alerts import alerts as alerts_command
from tollmeter.schemas import topics
from tollmeter.schemas.alert import Alert
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack
Start = Callable[[], Child]

FILE = """
consumers:
  hook: {{type: webhook, url: "{url}", key_env: HOOK_KEY, allow: [127.0.0.1], timeout: 5s}}
  log: {{type: log}}
routes:
  - to: [hook, log]
limits: {{storm_per_minute: 1000, per_hour: 1000, per_scope_per_hour: 1000, cooldown: 1s, digest: 1s}}
retry: {{first: 0.05s, longest: 0.2s}}
report: {{enabled: false}}
"""


@pytest.fixture
def line(line_settings: Settings) -> Settings:
    return line_settings.model_copy(update={"session_timeout_s": 6.0})


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def start(workers: Workers, hook: Receiver, tmp_path: Path) -> Iterator[Start]:
    """Start an instance of notify."""
    routes = tmp_path / "routes.yaml"
    routes.write_text(FILE.format(url=hook.url))
    started: list[Worker] = []

    def start_one() -> Child:
        started.append(workers.start("notify", "notify", "--routes", str(routes), HOOK_KEY="whsec_c2VjcmV0"))
        return started[-1].process

    yield start_one
    workers.close()
    for worker in started:
        print(worker.text)
        assert "c2VjcmV0" not in worker.text
        assert "Traceback" not in worker.text


def publish(settings: Settings, alerts: Sequence[Alert]) -> None:
    async def send() -> None:
        producer = AIOKafkaProducer(**settings.kafka_options(), acks="all")
        await producer.start()
        try:
            for made in alerts:
                partition = topics.org_partition(made.org_id, settings.partitions_priced)
                await producer.send_and_wait(settings.topic(topics.ALERTS), made.wire(), partition=partition)
        finally:
            await producer.stop()

    asyncio.run(send())


def fresh(count: int, first: int = 0) -> list[Alert]:
    now = datetime.now(UTC)
    return [alert("unpriced", number=n, org=f"org-{n % 7}", name=f"k{n}", at=now) for n in range(first, first + count)]


def test_each_alert_once_over_kills_and_replays(
    line: Settings, hook: Receiver, start: Start, eventually: Callable[..., Any]
) -> None:
    alerts = fresh(60)
    hook.answer = lambda number: 500 if number % 3 == 0 else 204  # every third request fails
    first = start()
    # killed between the receiver's having the message and its answer: the one moment in which a repeat is possible
    hook.on_request = lambda number: first.send_signal(signal.SIGKILL) if number == 13 else None
    publish(line, alerts[:30])
    eventually(lambda: first.poll() is not None)
    publish(line, alerts)  # a replay of the first half, as after a restart of WATCH, and the rest
    start()
    eventually(lambda: len(hook.accepted()) == 60, 60)
    got = hook.accepted()
    assert set(got) == {made.id for made in alerts}
    assert sum(len(bodies) - 1 for bodies in got.values()) == 1, "the one message that was on its way comes twice"
    assert all(len(set(bodies)) == 1 for bodies in got.values()), "a repeat is the same message"
    assert {json.loads(bodies[0])["alert"]["id"] for bodies in got.values()} == set(got)


def test_a_standby_takes_over_where_the_first_ends(
    line: Settings, hook: Receiver, start: Start, eventually: Callable[..., Any]
) -> None:
    first, second = start(), start()
    publish(line, fresh(5))
    eventually(lambda: len(hook.accepted()) == 5)
    for leaving in (first, second):  # whoever is in charge hands over when it is told to stop
        if leaving is second:
            start()
        leaving.send_signal(signal.SIGTERM)
        assert leaving.wait(300) == 0
        more = len(hook.accepted()) + 5
        publish(line, fresh(more))
        eventually(lambda more=more: len(hook.accepted()) == more)
    assert all(len(bodies) == 1 for bodies in hook.accepted().values())


def test_a_consumer_that_answers_500_loses_nothing_and_holds_up_nobody(
    line: Settings, hook: Receiver, start: Start, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    hook.answer = lambda number: 500
    start()
    alerts = fresh(8)
    publish(line, alerts)
    log = tmp_path / "notify-0.log"
    eventually(lambda: all(made.id in log.read_text() for made in alerts))  # the log consumer has them all
    eventually(lambda: len(hook.requests) >= 5)
    assert hook.accepted() == {}
    failed = len(hook.requests) + 1
    hook.answer = lambda number: 204 if number > failed else 500
    eventually(lambda: len(hook.accepted()) == 8)
    assert hook.accepted().keys() == {made.id for made in alerts}
    assert all(len(bodies) == 1 for bodies in hook.accepted().values())


def tollmeter(settings: Settings, *arguments: str) -> Any:
    return CliRunner().invoke(alerts_command, arguments, obj=settings, standalone_mode=False)


def listed(settings: Settings) -> dict[str, dict[str, Any]]:
    result = tollmeter(settings, "list", "--json")
    return {entry["id"]: entry for entry in json.loads(result.stdout)}


def test_acks_and_mutes_reach_a_running_notify_and_states_are_listed(
    line: Settings, hook: Receiver, start: Start, eventually: Callable[..., Any]
) -> None:
    ledger = connect(line)
    start()
    first, muted, later = (alert("unpriced", number=n, name=f"k{n}", at=datetime.now(UTC)) for n in range(3))
    muting = ("mute", "--kind", "unpriced", "--scope", "api_key", "--name", "k1")
    publish(line, [first])
    eventually(lambda: len(hook.accepted()) == 1)
    for made in (first, muted, later):  # LEDGER does not run here
        ledger.insert_rows("alerts", ("event", "appended_at"), [(made.wire().decode(), made.received_at)])
    done = tollmeter(line, "ack", first.id[:10], "--by", "ann")
    assert first.id in done.stdout
    eventually(lambda: listed(line)[first.id].get("state") == "acknowledged")
    assert listed(line)[first.id]["told"] == "hook: sent, log: sent"
    assert tollmeter(line, *muting, "--for", "2h").exit_code == 0
    publish(line, [muted, later])
    eventually(lambda: later.id in hook.accepted())
    eventually(lambda: listed(line)[muted.id].get("held") == "muted")
    assert muted.id not in hook.accepted()
    assert tollmeter(line, *muting, "--off").exit_code == 0
    for arguments, said in [(("ack", "nothing"), "knows no alert"), (("mute", "--for", "1h"), "say what to mute")]:
        assert said in str(tollmeter(line, *arguments).exception)
    ledger.close()
