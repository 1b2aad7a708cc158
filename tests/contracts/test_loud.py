"""What cannot be read any more is declared and alerted, and the line goes on; what must not be passed over pauses."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.contracts.test_stages import ids, priced, stored
from tests.usage_rows import AT, avro, fields
from tests.workers import Workers, add_partitions, alerts, commit, delete_records, read, recreate, send
from tollmeter.schemas import topics
from tollmeter.schemas.envelope import tick_record
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack
Eventually = Callable[..., Any]


def gaps(line: Settings) -> list[tuple[Any, ...]]:
    """The declared gaps: stage, topic, partition, first and last offset, kind."""
    client = connect(line)
    rows = client.query(
        "SELECT stage, topic, priced_partition, first_offset, last_offset, reason FROM ledger_gaps FINAL "
        "ORDER BY stage, topic, priced_partition"
    )
    client.close()
    return [tuple(row.values()) for row in rows]


def test_what_retention_deleted_is_declared_and_the_rest_is_stored(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    blocks = [priced(number) for number in (1, 2, 3)]
    send(line_settings, topics.PRICED, [(0, block.value, block.headers) for block in blocks])
    send(line_settings, topics.EVENTS, [(2, avro(fields(number)), []) for number in (11, 12, 13)])
    commit(line_settings, "ledger", topics.PRICED, {0: 1})
    commit(line_settings, "price", topics.EVENTS, {2: 0})
    delete_records(line_settings, topics.PRICED, {0: 2})
    delete_records(line_settings, topics.EVENTS, {2: 1})
    workers("ledger")
    workers("price")
    found = [("ledger", topics.PRICED, 0, 1, 1, "gap"), ("price", topics.EVENTS, 2, 0, 0, "gap")]
    eventually(lambda: gaps(line_settings) == found, timeout=40)
    client = connect(line_settings)
    eventually(lambda: stored(client) == ids(3, 12, 13), timeout=20)
    client.close()
    said = {event["id"]: event["data"] for event in alerts(line_settings, "gap")}
    assert {(data["stage"], data["name"], data["severity"]) for data in said.values()} == {
        ("ledger", "usage.priced/0", "critical"),
        ("price", "usage.events/2", "critical"),
    }
    assert "offsets 0 to 0 of usage.events/2" in next(d["text"] for d in said.values() if d["stage"] == "price")


def test_a_gap_that_opens_while_a_worker_lags_is_declared(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    """ClickHouse is away, LEDGER waits with little in memory, and retention passes it."""
    away = line_settings.model_copy(update={"clickhouse": "http://127.0.0.1:9"})
    first = priced(1)
    send(line_settings, topics.PRICED, [(1, first.value, first.headers)])
    worker = workers("ledger", away)
    eventually(lambda: any("ClickHouse" in problem for problem in worker.problems()), timeout=40)
    assert worker.ask("/livez")[0] == 200
    assert worker.metric("tollmeter_sink_paused") == 1.0
    worker.process.terminate()
    assert worker.process.wait(timeout=300) == 0
    delete_records(line_settings, topics.PRICED, {1: 1})
    later = priced(2)
    send(line_settings, topics.PRICED, [(1, later.value, later.headers)])
    workers("ledger")
    eventually(lambda: gaps(line_settings) == [("ledger", topics.PRICED, 1, 0, 0, "gap")], timeout=40)


def test_source_topic_made_again_is_read_from_its_beginning(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    """The old positions lie behind the end of the new log; nothing of it may be skipped."""
    send(line_settings, topics.EVENTS, [(0, avro(fields(number)), []) for number in range(5)])
    worker = workers("price")
    workers("ledger")
    client = connect(line_settings)
    eventually(lambda: stored(client) == ids(*range(5)), timeout=40)
    recreate(line_settings, topics.EVENTS)
    send(line_settings, topics.EVENTS, [(0, avro(fields(number)), []) for number in (7, 8)])
    eventually(lambda: worker.process.poll() is not None or stored(client) == ids(*range(5), 7, 8), timeout=60)
    if worker.process.poll() is not None:
        assert worker.process.returncode == 70
        workers("price")
    eventually(lambda: stored(client) == ids(*range(5), 7, 8), timeout=40)
    eventually(
        lambda: {event["data"]["name"] for event in alerts(line_settings, "new_epoch")} == {"usage.events/0"}, 20
    )
    client.close()


def test_changed_partition_counts_pause_every_stage(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    add_partitions(line_settings, topics.PRICED, 6)
    block = priced(1)
    send(line_settings, topics.PRICED, [(0, block.value, block.headers)])
    started = [workers(stage) for stage in ("price", "ledger", "watch")]
    for worker in started:
        eventually(lambda: any("has 6 partitions" in problem for problem in worker.problems()), 40)  # noqa: B023
    found = eventually(lambda: len(said := alerts(line_settings, "paused")) == 3 and said, 20)
    assert {event["data"]["stage"] for event in found} == {"price", "ledger", "watch"}
    client = connect(line_settings)
    assert stored(client) == []
    client.close()
    assert all(worker.process.poll() is None and worker.ask("/livez")[0] == 200 for worker in started)


def test_newer_format_pauses_and_alerts_once(line_settings: Settings, workers: Workers, eventually: Eventually) -> None:
    later = priced(2)
    newer = [(name, b"999" if name == "format" else value) for name, value in later.headers]
    send(line_settings, topics.PRICED, [(0, later.value, newer), (0, later.value, newer)])
    started = [workers("ledger"), workers("watch")]
    found = eventually(lambda: len(said := alerts(line_settings, "paused")) == 2 and said, 40)
    assert {event["data"]["stage"] for event in found} == {"ledger", "watch"}
    assert {event["data"]["name"] for event in found} == {"usage.priced/0"}
    for worker in started:
        assert any("upgrade this worker" in problem for problem in worker.problems())
        assert worker.metric("tollmeter_partition_paused", topic=line_settings.topic(topics.PRICED)) == 1.0
        assert worker.text.count("upgrade this worker") == 1


def test_health_and_metrics_of_a_working_line(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    started = {stage: workers(stage) for stage in ("price", "ledger", "watch")}
    for worker in started.values():
        eventually(lambda: worker.ask("/readyz")[0] == 200, 40)  # noqa: B023
        assert worker.ask("/livez")[0] == worker.ask("/startupz")[0] == 200
        assert worker.ask("/secrets")[0] == 404
    send(line_settings, topics.EVENTS, [(1, avro(fields(number)), []) for number in range(3)] + [(1, b"poison", [])])
    eventually(lambda: started["ledger"].metric("tollmeter_events_stored_total", table="usage_events") == 3.0, 20)
    price = started["price"]
    assert price.metric("tollmeter_events_received_total", partition="1") == 4.0
    assert price.metric("tollmeter_events_invalid_total") == 1.0
    assert price.metric("tollmeter_dlq_events_total", stage="price") == 1.0
    assert price.metric("tollmeter_rebalances_total") == 1.0
    eventually(lambda: price.metric("tollmeter_consumer_lag_events", partition="1") == 0.0, 10)
    assert started["ledger"].metric("tollmeter_sink_insert_seconds_count", table="usage_events") is not None
    eventually(lambda: (started["watch"].metric("tollmeter_watermark_seconds") or 0) > time.time() - 60, 20)
    assert len(read(line_settings, topics.DLQ)) == 1


def test_watch_goes_on_behind_a_gap_and_in_a_log_made_anew(
    line_settings: Settings, workers: Workers, eventually: Eventually
) -> None:
    """The checkpoint lies below the log's start, then beyond the end of another log; the new small offsets count."""
    line = line_settings.model_copy(update={"checkpoint_s": 0.2})
    client = connect(line)
    months = "SELECT sum(calls) AS n FROM usage_windows FINAL WHERE level = 'month' AND scope = 'org'"
    tick = tick_record(dict.fromkeys(range(4), AT // 1000))

    def put(*numbers: int) -> None:
        found = [priced(number) for number in numbers]
        send(line, topics.PRICED, [(0, block.value, block.headers) for block in found] + [(0, *tick)])

    put(0, 1)
    saved = "SELECT max(applied) AS n FROM watch_progress WHERE priced_partition = 0"
    worker = workers("watch", line)
    eventually(lambda: client.query(months)[0]["n"] == 2 and client.query(saved)[0]["n"] == 2, 60)
    worker.process.kill()
    worker.process.wait()
    put(2, 3)
    delete_records(line, topics.PRICED, {0: 4})  # the tick at 2 and the row at 3 are gone, the row at 4 is not
    worker = workers("watch", line)
    eventually(lambda: client.query(months)[0]["n"] == 3, 60)
    (gap,) = alerts(line, "gap")
    assert (gap["data"]["stage"], gap["data"]["first_offset"], gap["data"]["last_offset"]) == ("watch", 3, 3)
    worker.process.kill()
    worker.process.wait()
    recreate(line, topics.PRICED)
    put(4)
    workers("watch", line)
    eventually(lambda: client.query(months)[0]["n"] == 4, 60)
    assert {event["data"]["stage"] for event in alerts(line, "new_epoch")} == {"watch"}
    client.close()
