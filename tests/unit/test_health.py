"""When a worker is alive and when it is ready; and that the probes say so over HTTP, also of a hanging loop."""

import json
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from aiokafka.structs import TopicPartition

from benchmarks.floods import run_floods
from tollmeter.schemas.policy import SCOPE_COLUMNS
from tollmeter.streams.engine.gaps import Loss, losses_at_start, losses_between
from tollmeter.streams.engine.health import Facts, Health
from tollmeter.streams.engine.loop import BATCH_BYTES, Batching
from tollmeter.streams.engine.metrics import PartitionFacts, WorkerCollector, expose
from tollmeter.streams.engine.probes import Probes

FINE = Facts(polled_at=1_000.0)
TP0 = TopicPartition("usage.priced", 0)


def health_of(facts: Facts | None) -> Health:
    return Health("ledger", lambda: facts)


@pytest.mark.parametrize(
    ("facts", "now", "alive", "ready"),
    [
        (FINE, 1_060.0, True, True),
        (FINE, 1_061.0, False, False),
        (Facts(polled_at=1_000.0, busy=True), 1_900.0, True, True),
        (Facts(polled_at=1_000.0, oldest_at=900.0), 1_020.0, True, True),
        (Facts(polled_at=1_000.0, oldest_at=900.0), 1_021.0, False, False),
        (Facts(polled_at=1_000.0, settled=False), 1_001.0, True, False),
        (Facts(polled_at=1_000.0, paused={"usage.priced/0": "newer"}), 1_001.0, True, False),
    ],
)
def test_verdicts(facts: Facts, now: float, alive: bool, ready: bool) -> None:
    health = health_of(facts)
    assert (not health.not_alive(now), not health.not_ready(now)) == (alive, ready)


def test_waiting_for_clickhouse_is_alive_and_not_ready() -> None:
    health = health_of(Facts(polled_at=1_000.0, busy=True, oldest_at=1_000.0))
    health.storing("usage_events", 1_000.0)
    health.wait("ClickHouse", "refused", 1_001.0)
    health.wait("ClickHouse", "refused again", 1_500.0)
    assert health.not_alive(2_200.0) == []
    complaints = health.not_ready(2_200.0)
    assert any("waits for ClickHouse since 1199 s: refused again" in text for text in complaints)
    assert any("uncommitted for 1200 s" in text for text in complaints)
    assert any("nothing was stored in usage_events for 1200 s" in text for text in complaints)
    health.go_on("ClickHouse")
    health.stored("usage_events")
    assert len(health.not_ready(2_200.0)) == 1  # what is uncommitted for so long is said all the same


def test_startup_is_over_for_ever_once_it_was_ready() -> None:
    facts = [Facts(polled_at=0.0, settled=False), FINE, Facts(polled_at=0.0, settled=False)]
    health = Health("watch", lambda: facts[0])
    assert health.not_started(1_000.0)
    facts.pop(0)
    assert not health.not_started(1_000.0)
    facts.pop(0)
    assert not health.not_started(9_000.0)


def test_probes_answer_on_loopback() -> None:
    health = health_of(None)
    collector = WorkerCollector("ledger", lambda: {("usage.priced", 0): PartitionFacts(5, 2.0, 1.0, 7, 900, True)})
    probes = Probes(health, lambda: expose([collector]))
    port = probes.start()
    try:
        assert probes.server_address[0] == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
            assert json.load(answer) == {"ok": True, "stage": "ledger", "problems": []}
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
        with refused.value as answer:
            assert (answer.code, json.load(answer)["ok"]) == (503, False)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        probes.shutdown()
        probes.server_close()
    labels = 'partition="0",stage="ledger",topic="usage.priced"'
    assert f"tollmeter_consumer_lag_events{{{labels}}} 5.0" in text
    assert f"tollmeter_buffer_bytes{{{labels}}} 900.0" in text
    assert "tollmeter_events_stored_total" in text


def test_a_batch_is_full_by_rows_or_by_bytes() -> None:
    weigh = Batching(400, lambda delivery: 3).within_bytes().weigh
    small, large = (SimpleNamespace(size=size) for size in (100, BATCH_BYTES))
    assert (weigh(small), weigh(large)) == (3, 400)  # type: ignore[arg-type]


def test_positions_outside_their_log_are_losses() -> None:
    assert losses_at_start({TP0: 5}, {TP0: 5}, {TP0: 5}) == []
    assert losses_at_start({TP0: 4}, {TP0: 7}, {TP0: 9}) == [Loss(TP0, "gap", 4, 6)]
    assert losses_at_start({TP0: 10}, {TP0: 2}, {TP0: 9}) == [Loss(TP0, "new_epoch", 2, 8)]
    assert losses_between(TP0, 5, 8, 0, 20) is None  # marks of a transaction
    assert losses_between(TP0, 5, 8, 7, 20) == Loss(TP0, "gap", 5, 6)
    assert losses_between(TP0, 5, 0, 0, 3) == Loss(TP0, "new_epoch", 0, 2)
    assert losses_between(TP0, 5, 4, 0, 20) is None  # fetched before a seek


def test_floods_in_short() -> None:
    figures = run_floods(rows=12_000, scopes=200)
    assert figures["crossings"]["distinct_alerts"] == 200
    assert figures["distinct_names"]["scopes"] <= 2 * 10_000 + len(SCOPE_COLUMNS)
