"""`tollmeter serve` as its clients meet it: real sockets, the real broker, a process that is stopped and killed."""

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gate import Gate
from tests.patience import eventually
from tests.workers import Worker, Workers, read
from tollmeter.schemas import codec, topics
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack
KEYS = {"API_KEY": "admin-key", "INGEST_KEY": "ingest-key", "READ_KEY": "read-key"}
OPEN = {"INGEST_RPM": "0", "RATE_LIMIT_RPM": "0", "SERVER_PORT": "0"}
CALL = {"model_sent": "gpt-4o", "input_tokens": 1_000, "output_tokens": 200}


class Serving:
    """A server of the line and a client with the ingest key."""

    def __init__(self, workers: Workers, spool: Path) -> None:
        self._workers, self._environment = workers, {**KEYS, **OPEN, "TOLLMETER_SPOOL_DIR": str(spool)}
        self.worker: Worker

    def start(self, line: Settings | None = None, **more: str) -> httpx.Client:
        """Start a server, once it listens; the client sends the ingest key unless told otherwise."""
        self.worker = self._workers.start("serve", "serve", line=line, **{**self._environment, **more})
        eventually(lambda: self.worker.ready or self.worker.process.poll() is not None, 60)
        assert self.worker.ready, self.worker.text
        return httpx.Client(base_url=self.url, headers={"x-ingest-key": KEYS["INGEST_KEY"]}, timeout=60)

    @property
    def url(self) -> str:
        port = int(self.worker.log.with_suffix(".health").read_text(encoding="ascii"))
        return f"http://127.0.0.1:{port}"


@pytest.fixture
def serving(workers: Workers, tmp_path: Path) -> Serving:
    return Serving(workers, tmp_path / "spool")


def events(line: Settings) -> list[dict[str, Any]]:
    """Return the events on the topic."""
    headless = (record.value[len(codec.SINGLE_OBJECT_HEADER) :] for record in read(line, topics.EVENTS))
    return [codec.decode_body(body) for body in headless]


def test_a_call_is_stored_once(serving: Serving, line: Settings) -> None:
    with serving.start() as client:
        call = CALL | {"event_id": "one"}
        answers = [client.post("/ingest", json=call) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 200]
        assert answers[0].json()["event_id"] == answers[1].json()["event_id"]
        assert answers[0].json()["durable"] == "kafka"
        assert client.post("/ingest", json=call | {"input_tokens": 7}).status_code == 409
    [event] = events(line)
    assert (event["model_sent"], event["input_tokens"], event["org_id"]) == ("gpt-4o", 1_000, "default")


def test_of_a_batch_each_is_told(serving: Serving, line: Settings) -> None:
    calls = [CALL | {"event_id": "a"}, CALL | {"event_id": "a"}, CALL | {"input_tokens": -1}, {"modell": "x"}, 7]
    with serving.start() as client:
        answer = client.post("/ingest", json=calls)
        assert answer.status_code == 202
        told = answer.json()
        assert (told["accepted"], told["duplicates"], told["rejected"]) == (1, 1, 3)
        assert [(one["i"], one["status"], one.get("code")) for one in told["results"]] == [
            (1, "duplicate", None),
            (2, "rejected", "bad_field"),
            (3, "rejected", "unknown_field"),
            (4, "rejected", "not_an_object"),
        ]
        lines = "\n".join(json.dumps(CALL | {"event_id": name}) for name in "bc")
        answer = client.post("/ingest?results=all", content=lines, headers={"content-type": "application/x-ndjson"})
        assert [one["status"] for one in answer.json()["results"]] == ["accepted"] * 2
    assert len(events(line)) == 3


def test_with_the_broker_away_calls_are_on_disk_and_go_out_later(serving: Serving, line: Settings) -> None:
    with Gate(line.kafka) as gate:
        behind = line.model_copy(update={"kafka": gate.address})
        with serving.start(behind) as client:
            answers = [client.post("/ingest", json=CALL | {"event_id": str(one)}) for one in range(3)]
            assert [(answer.status_code, answer.json()["durable"]) for answer in answers] == [(201, "spool")] * 3
            assert client.get("/readyz").json() == {"ok": True, "problems": [], "kafka": False, "spooled": 3}
        serving.worker.process.kill()
        serving.worker.process.wait()
        gate.open()
        with serving.start(behind) as client:
            eventually(lambda: client.get("/readyz").json()["kafka"], 30)
            assert client.post("/ingest", json=CALL | {"event_id": "late"}).json()["durable"] == "kafka"
            eventually(lambda: len(events(line)) == 4, 30)


def test_with_neither_broker_nor_disk_nothing_is_taken(serving: Serving, line: Settings, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no folder", encoding="utf-8")
    with Gate(line.kafka) as gate, serving.start(line.model_copy(update={"kafka": gate.address})) as client:
        answer = client.post("/ingest", json=CALL)
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert answer.json()["code"] == "not_durable"
        gate.open()
        eventually(lambda: client.post("/ingest", json=CALL | {"event_id": "again"}).status_code in (200, 201), 30)
    assert len(events(line)) == 1


def test_told_to_stop_it_answers_what_it_began_and_ends_well(serving: Serving, line: Settings) -> None:
    with serving.start() as client:
        assert client.post("/ingest", json=CALL).status_code == 201
        serving.worker.process.send_signal(signal.SIGTERM)
        assert serving.worker.process.wait(60) == 0, serving.worker.text
    assert len(events(line)) == 1
