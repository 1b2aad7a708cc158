"""The producer without a broker: never blocks, never raises, counts everything, keeps what it cannot send."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tollmeter import UsageProducer
from tollmeter.producers.client import spool
from tollmeter.producers.client.ids import Ids
from tollmeter.producers.client.queue import Counters
from tollmeter.schemas import codec
from tollmeter.schemas.event import UsageEvent
from tollmeter.settings import Settings, SettingsError

NOWHERE = "127.0.0.1:1"
CALL: dict[str, Any] = {"provider": "openai", "model_sent": "gpt-4o"}
SETTINGS = Settings()
Eventually = Callable[..., Any]


@pytest.fixture
def memory() -> Iterator[UsageProducer]:
    with UsageProducer(service="shop", mode="memory", settings=SETTINGS, environment="test") as producer:
        yield producer


def offline(tmp_path: Path, **how: Any) -> UsageProducer:
    how.setdefault("spool_dir", tmp_path / "spool")
    return UsageProducer(NOWHERE, service="shop", settings=SETTINGS, **how)


def test_memory_keeps_events_for_the_tests_of_a_service(memory: UsageProducer) -> None:
    event_id = memory.record(**CALL, input_tokens=3, user_id=None, tags={"team": "a"})
    (event,) = memory.events
    assert (event.event_id, event.service, event.environment, event.user_id) == (event_id, "shop", "test", "")
    assert event.producer.startswith("tollmeter-python/")
    assert memory.flush(0)
    assert memory.counters == Counters(accepted=1, acknowledged=1)


def test_disabled_does_nothing() -> None:
    producer = UsageProducer(mode="disabled", settings=SETTINGS)
    assert producer.record(**CALL) == ""
    assert producer.flush(0)
    producer.close()
    assert (producer.counters, producer.events) == (Counters(), [])


def test_fields_win_over_the_event_which_wins_over_the_defaults(memory: UsageProducer) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    event = UsageEvent(
        event_id="0195d0e0-0000-7000-8000-000000000001",
        occurred_at=at,
        service="",
        environment="prod",
        user_id="ann",
        **CALL,
    )
    assert memory.record(event, user_id="bob") == event.event_id
    (kept,) = memory.events
    assert (kept.occurred_at, kept.service, kept.environment, kept.user_id) == (at, "shop", "prod", "bob")


def test_what_users_send_is_made_to_fit(memory: UsageProducer) -> None:
    many = {f"tag{number}": number for number in range(17)}
    memory.record(**CALL, session_id="a\ud800b", user_id=42, feature="x" * 300, tags={**many, "long": "y" * 129})
    memory.record(**CALL, tags=7, agent=None)
    first, second = memory.events
    assert (first.session_id, first.user_id, first.feature) == ("a?b", "42", "x" * 256)
    assert first.tags == {f"tag{number}": str(number) for number in range(16)}
    assert (second.tags, second.agent) == ({}, "")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"provider": "openai"}, "model_sent"),
        ({**CALL, "input_tokens": -1}, "input_tokens"),
        ({**CALL, "input_tokens": True}, "input_tokens"),
        ({**CALL, "colour": "red"}, "colour"),
        ({**CALL, "input_tokens": 1, "cache_read_tokens": 2}, "exceed input_tokens"),
        ({**CALL, "occurred_at": "yesterday"}, "occurred_at"),
        ({**CALL, "event_id": "7"}, "event_id"),
    ],
)
def test_invalid_is_counted_and_named_never_raised(
    memory: UsageProducer, caplog: pytest.LogCaptureFixture, fields: dict[str, Any], named: str
) -> None:
    with caplog.at_level(logging.WARNING, "tollmeter.producer"):
        assert memory.record(**fields) == ""
        memory.record(**fields)
    assert (memory.counters.invalid, memory.events) == (2, [])
    (line,) = [record.getMessage() for record in caplog.records]  # the second one is within the minute
    assert named in line
    assert "\n" not in line


def test_no_secret_leaves_in_any_field(memory: UsageProducer) -> None:
    key = "sk-proj-abcdefghijklmnopqrstuvwx1234"
    memory.record(**CALL, api_key_id=key, user_id=f"Bearer {key}", tags={key: "AIzaSyA1234567890abcdefghijklmnopqrst"})
    (event,) = memory.events
    assert len(event.api_key_id) == 16
    assert not any(part in event.model_dump_json() for part in (key, "sk-proj", "AIza"))


def test_a_response_is_recorded_and_a_bad_one_does_no_harm(memory: UsageProducer) -> None:
    reply = {"model": "gpt-4o", "usage": {"prompt_tokens": 5, "completion_tokens": 6}}
    assert memory.record_response(reply, user_id="ann")
    assert memory.record_response(reply, colour="red") == ""
    assert memory.record_response(object(), model_sent="x")
    assert [event.usage_source for event in memory.events] == ["PROVIDER", "NONE"]
    assert [event.service for event in memory.events] == ["shop", "shop"]
    assert memory.counters.invalid == 1


def test_a_broker_away_fills_the_spool_in_order(
    tmp_path: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tollmeter.producer"), offline(tmp_path) as producer:
        ids = [producer.record(**CALL, input_tokens=number) for number in range(100)]
        eventually(lambda: producer.counters.on_disk == 100)
        assert not producer.flush(0.05)
        assert "refused" in producer.problem or "failed" in producer.problem
    (line,) = [record.getMessage() for record in caplog.records if record.name == "tollmeter.producer"]
    assert NOWHERE in line
    left = spool.adopt(tmp_path / "spool", [spool.target_name(NOWHERE, "usage.events")], 10**9)
    assert left is not None
    waiting, broken = left.first(1_000)
    bodies = [codec.decode_body(event.body[10:]) for event in waiting]
    assert [body["event_id"] for body in bodies] == ids
    assert [body["input_tokens"] for body in bodies] == list(range(100))
    assert broken == 0
    left.remove(waiting[-1].row)
    left.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_many_threads_lose_nothing(tmp_path: Path, eventually: Eventually) -> None:
    ids: list[str] = []
    with offline(tmp_path, queue_size=100_000) as producer:
        work = [
            threading.Thread(target=lambda: ids.extend(producer.record(**CALL) for _ in range(500))) for _ in range(8)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        eventually(lambda: producer.counters.on_disk == 4_000)
        counters = producer.counters
    assert (counters.accepted, counters.spooled, counters.queued, counters.dropped) == (4_000, 4_000, 0, 0)
    assert len(set(ids)) == 4_000


def test_a_full_queue_refuses_and_counts(tmp_path: Path) -> None:
    producer = offline(tmp_path, queue_size=10, spool_bytes=0)
    given = [producer.record(**CALL) for _ in range(200)]
    producer.close(0.2)
    counters = producer.counters
    assert counters.accepted == sum(1 for event_id in given if event_id)
    assert counters.accepted >= 10
    assert counters.dropped == 200, "10 in the queue, what memory held, and the rest at the door: nothing was delivered"
    assert producer.record(**CALL) == "", "closed"


def test_a_full_spool_drops_the_newest_and_counts(tmp_path: Path, eventually: Eventually) -> None:
    with offline(tmp_path, spool_bytes=2_000) as producer:
        for _ in range(100):
            producer.record(**CALL)
        eventually(lambda: producer.counters.on_disk + producer.counters.dropped == 100)
        assert 0 < producer.counters.on_disk < 100


def test_without_a_writable_folder_events_wait_in_memory(tmp_path: Path, eventually: Eventually) -> None:
    (tmp_path / "file").write_text("")
    with offline(tmp_path, spool_dir=tmp_path / "file" / "spool") as producer:
        producer.record(**CALL)
        eventually(lambda: producer.problem)
        eventually(lambda: producer.counters.queued == 1)
        assert producer.counters.on_disk == 0


def test_it_works_as_an_async_context(tmp_path: Path) -> None:
    async def call() -> Counters:
        async with offline(tmp_path) as producer:
            producer.record(**CALL)
            assert not await producer.aflush(0.05)
        counters: Counters = producer.counters
        return counters

    assert asyncio.run(call()).on_disk == 1


def test_ids_grow_and_are_uuid7() -> None:
    ids, seen = Ids(), []
    for _ in range(3_000):
        text, _at = ids.next()
        assert text[14] == "7"
        assert text[19] in "89ab"
        seen.append(text)
    assert seen == sorted(set(seen))
    millis = int(seen[-1].replace("-", "")[:12], 16)
    assert abs(millis - time.time() * 1_000) < 60_000


def test_a_wrong_mode_or_setting_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="kafka, disabled or memory"):
        UsageProducer(mode="off", settings=SETTINGS)  # type: ignore[arg-type]
    monkeypatch.setenv("TOLLMETER_KAFFKA", "x")
    with pytest.raises(SettingsError, match="no such setting"):
        UsageProducer(mode="disabled")


def test_secrets_are_not_in_a_repr() -> None:
    settings = Settings(kafka_password="hunter2", pepper="salt", kafka_security="SASL_PLAINTEXT")  # type: ignore[arg-type]
    text = repr(UsageProducer(mode="disabled", settings=settings))
    assert "hunter2" not in text
    assert "salt" not in text


BASE_ONLY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import importlib, pkgutil
import tollmeter, tollmeter.producers, tollmeter.schemas
for package in (tollmeter.producers, tollmeter.schemas):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
with tollmeter.UsageProducer("127.0.0.1:1", service="s", spool_dir={folder!r}, settings=None) as producer:
    event = tollmeter.extract({{"model": "gpt-4o", "usage": {{"prompt_tokens": 1, "completion_tokens": 2}}}})
    assert producer.record(event)
print(producer.counters.on_disk)
"""


def test_the_base_install_is_enough(tmp_path: Path) -> None:
    blocked = {
        "numpy",
        "polars",
        "faust",
        "clickhouse_connect",
        "click",
        "rich",
        "chdb",
        "genai_prices",
        "orjson",
        "yaml",
    }
    code = BASE_ONLY.format(blocked=blocked, folder=str(tmp_path / "spool"))
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_a_process_that_just_ends_leaves_its_events_on_disk(tmp_path: Path) -> None:
    code = (
        "from tollmeter import UsageProducer\n"
        f"producer = UsageProducer('{NOWHERE}', service='s', spool_dir={str(tmp_path / 'spool')!r})\n"
        "producer.record(provider='openai', model_sent='gpt-4o')\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    left = spool.adopt(tmp_path / "spool", [spool.target_name(NOWHERE, "usage.events")], 10**9)
    assert left is not None
    assert len(left) == 1
    left.close()
