"""A worker that is told to stop ends within ten seconds, whatever is away; what it had in hand is done by the next."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.contracts.test_stages import ids, stored
from tests.patience import Patience
from tests.usage_rows import avro, fields
from tests.workers import Worker, Workers, send
from tollmeter.embedded.stack import STAGES, Stack
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect
from tollmeter.streams.engine.app import preflight

pytestmark = pytest.mark.stack
Eventually = Callable[..., Any]
LIMIT_S = 10.0


@pytest.fixture
def line(line_settings: Settings) -> Settings:
    return line_settings.model_copy(update={"session_timeout_s": 6.0})


def stop_all(stopping: list[Worker]) -> list[tuple[int | None, float]]:
    """Send SIGTERM to all; return exit codes, None of one that did not end, and the seconds (of an idle machine)."""
    patience = Patience(3 * LIMIT_S)
    for worker in stopping:
        worker.process.send_signal(signal.SIGTERM)
    ended: dict[int, float] = {}
    while len(ended) < len(stopping) and not patience.ended():
        for number, worker in enumerate(stopping):
            if number not in ended and worker.process.poll() is not None:
                ended[number] = 3 * LIMIT_S - patience.left_s
        time.sleep(0.05)
    return [(worker.process.poll(), ended.get(number, 3 * LIMIT_S)) for number, worker in enumerate(stopping)]


def test_workers_end_while_the_broker_is_away_and_the_next_ones_do_the_rest(
    stack: Stack, line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    client = connect(line_settings)
    send(line_settings, topics.EVENTS, [(number % 4, avro(fields(number)), []) for number in range(1, 9)])
    started = [workers(stage) for stage in STAGES]
    eventually(lambda: stored(client) == ids(*range(1, 9)), 90)
    eventually(lambda: all(worker.ask("/readyz")[0] == 200 for worker in started), 60)
    stack.kill("broker", signal.SIGKILL, restart=False)
    try:
        eventually(lambda: all("aiokafka" in worker.text for worker in started), 60)  # they have noticed
        ends = stop_all(started)
    finally:
        stack.resume("broker")
    assert [code for code, _ in ends] == [0, 0, 0], ends
    assert max(seconds for _, seconds in ends) < LIMIT_S, ends
    eventually(lambda: asyncio.run(preflight(line_settings, [topics.EVENTS])), 60)
    send(line_settings, topics.EVENTS, [(number % 4, avro(fields(number)), []) for number in range(9, 13)])
    for stage in STAGES:
        workers(stage)
    eventually(lambda: stored(client) == ids(*range(1, 13)), 90)
    client.close()
