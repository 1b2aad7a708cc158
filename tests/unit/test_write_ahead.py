"""What a killed process leaves in its write-ahead file the next one records: ended calls exactly, cut ones guessed."""

import json
import logging
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tollmeter.producers.client.durable import DurableProducer
from tollmeter.producers.client.write_ahead import ROTATE_BYTES, WriteAhead, left_behind, read
from tollmeter.schemas.event import UsageEvent
from tollmeter.settings import Settings

NOWHERE = "127.0.0.1:1"
KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from tollmeter.producers.client.durable import DurableProducer
from tollmeter.schemas.event import UsageEvent

def event(number, **more):
    return UsageEvent(event_id=f"00000000-0000-7000-8000-{number:012d}", occurred_at=datetime(2026, 11, 29, tzinfo=UTC),
                      service="s", provider="openai", model_sent="gpt-4o", **more)

producer = DurableProducer("127.0.0.1:1", service="proxy", org_id="acme", spool_dir=sys.argv[1])
producer.begun(event(1).event_id, [event(1, input_tokens=9, usage_source="ESTIMATED")])
producer.begun(event(2).event_id, [event(2, input_tokens=9, usage_source="ESTIMATED")])
producer.begun(event(3).event_id, [event(3)])
producer.nothing(event(3).event_id)
producer.record(event(1, input_tokens=1_000, usage_source="PROVIDER"))
refused = producer.record(model_sent="gpt-4o", provider="openai", status="BLOCKED", user_id="mallory")
print(refused, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def lines(*entries: Any) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


@pytest.mark.parametrize(
    ("written", "events", "cut_short"),
    [
        (lines(["open", "a", [{"n": 1}]]), [{"n": 1}], 1),
        (lines(["open", "a", [{"n": 1}]], ["open", "a", [{"n": 2}]]), [{"n": 2}], 1),
        (lines(["open", "a", [{"n": 1}]], ["done", "a", [{"n": 2}]]), [{"n": 2}], 0),
        (lines(["done", "a", [{"n": 2}]], ["open", "a", [{"n": 1}]]), [{"n": 2}], 0),
        (lines(["open", "a", [{"n": 1}]], ["nothing", "a", []]), [], 0),
        (lines(["done", "a", [{"n": 1}]]) + b'["done", "b", [{"n"', [{"n": 1}], 0),
        (b"", [], 0),
    ],
    ids=["in flight", "come further", "ended", "order does not matter", "no event", "cut line", "empty"],
)
def test_what_the_lines_come_to(written: bytes, events: Any, cut_short: int) -> None:
    assert read(written) == (events, cut_short)


def test_a_killed_process_leaves_every_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    settings = Settings(kafka=NOWHERE, spool_dir=str(tmp_path))
    with caplog.at_level(logging.WARNING), DurableProducer(settings=settings) as heir:
        assert heir.recover() == 3
        assert "3 of its events are recorded, 1 of them estimates" in caplog.text
        assert heir.recover() == 0
        (own,) = tmp_path.glob("ahead-*.jsonl")
        by_id = {event["event_id"]: event for event in read(own.read_bytes()).events}
    ended, cut, refused = sorted(by_id.values(), key=lambda event: str(event["event_id"]))
    assert (ended["input_tokens"], ended["usage_source"], ended["occurred_at"]) == (
        1_000,
        "PROVIDER",
        "2026-11-29T00:00:00Z",
    )
    assert (cut["input_tokens"], cut["usage_source"]) == (9, "ESTIMATED")
    assert (refused["event_id"], refused["user_id"]) == (done.stdout.strip(), "mallory")
    assert heir.counters.accepted == 3
    assert heir.counters.on_disk == 3, "the broker is away: they wait on the spool"
    assert not list(tmp_path.glob("ahead-*.jsonl")), "on the spool they are safe"


def test_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    with DurableProducer(NOWHERE, spool_dir=tmp_path, service="s") as alive:
        alive.record(model_sent="gpt-4o", provider="openai")
        with DurableProducer(NOWHERE, spool_dir=tmp_path) as other:
            assert other.recover() == 0


def test_a_file_shrinks_when_its_events_are_safe_and_keeps_calls_in_flight(tmp_path: Path) -> None:
    ahead = WriteAhead(tmp_path, "t")
    ahead.begun("long", [{"n": 1}])
    ahead.done("a", [{"text": "x" * ROTATE_BYTES}])
    ahead.settled()
    ahead.settled()
    (path,) = tmp_path.glob("ahead-*.jsonl")
    assert path.stat().st_size < 100
    assert read(path.read_bytes()).events == [{"n": 1}]
    ahead.close(settled=True)
    assert [found.events for _, _, found in left_behind(tmp_path, ["t"])] == [[{"n": 1}]]


def test_no_disk_is_said_and_costs_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    ahead = WriteAhead(tmp_path / "file" / "below", "t")
    ahead.done("a", [])
    assert "no write-ahead file" in caplog.text


def test_other_modes_have_no_ahead(tmp_path: Path) -> None:
    with DurableProducer(mode="memory", service="s", spool_dir=tmp_path) as producer:
        event = UsageEvent(
            event_id="00000000-0000-7000-8000-000000000001",
            occurred_at=datetime.now(UTC),
            service="s",
            provider="openai",
            model_sent="gpt-4o",
        )
        producer.begun(event.event_id, [event])
        producer.nothing(event.event_id)
        assert producer.record(event) == event.event_id
        assert producer.recover() == 0
    assert not list(tmp_path.iterdir())
