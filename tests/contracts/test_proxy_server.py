"""`tollmeter serve` with providers behind it, killed in the middle of calls: every call that was made leaves its event.

An answered call leaves it exactly; one in flight, whose request had gone out, as an estimate. Each counts once.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fake_provider import FakeServer
from tests.fake_provider import serving as providing
from tests.patience import eventually
from tests.workers import Worker, Workers, read
from tollmeter.schemas import codec, topics
from tollmeter.settings import Settings

pytestmark = pytest.mark.stack
KEY = "ingest-key-of-the-test"
CHAT = "/proxy/openai/v1/chat/completions"


@pytest.fixture
def provider() -> Iterator[FakeServer]:
    with providing() as running:
        yield running


class Served:
    """A server of the line in front of a provider, started again at the same port when it was killed."""

    def __init__(self, workers: Workers, provider: FakeServer, folder: Path) -> None:
        config = folder / "proxy.yaml"
        entry = {"url": provider.url, "key_from": ["SHOP_KEY"], "provider": "openai"}
        config.write_text(json.dumps({"upstreams": {"openai": entry}}), encoding="utf-8")
        self._workers, self._port = workers, "0"
        self._environment = {
            "API_KEY": "admin-key-of-the-test",
            "INGEST_KEY": KEY,
            "SHOP_KEY": "sk-real",
            "TOLLMETER_PROXY_FILE": str(config),
            "TOLLMETER_SPOOL_DIR": str(folder / "spool"),
        }
        self.worker: Worker
        self.start()

    def start(self) -> None:
        self.worker = self._workers.start("serve", "serve", **self._environment, SERVER_PORT=self._port)
        eventually(lambda: self.worker.ready or self.worker.process.poll() is not None, 60)
        assert self.worker.ready, self.worker.text
        self._port = self.worker.log.with_suffix(".health").read_text(encoding="ascii").strip()

    def kill(self) -> None:
        self.worker.process.kill()
        self.worker.process.wait()

    def ask(self, model: str, **more: Any) -> httpx.Response:
        document = {"model": model, "messages": [{"role": "user", "content": "x" * 400}], **more}
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx.post(f"http://127.0.0.1:{self._port}{CHAT}", json=document, headers=headers, timeout=30)

    def metrics(self) -> str:
        headers = {"x-api-key": self._environment["API_KEY"], "accept": "text/plain"}
        return httpx.get(f"http://127.0.0.1:{self._port}/metrics", headers=headers, timeout=30).text


def events(line: Settings) -> list[dict[str, Any]]:
    """Return the events on the topic."""
    headless = (record.value[len(codec.SINGLE_OBJECT_HEADER) :] for record in read(line, topics.EVENTS))
    return [codec.decode_body(body) for body in headless]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.nightly)])
def test_killed_in_the_middle_of_calls(
    kills: int, workers: Workers, line: Settings, provider: FakeServer, tmp_path: Path
) -> None:
    served = Served(workers, provider, tmp_path)
    served.ask("warm")  # from here on the guard knows what it must
    answered: set[str] = set()
    stopped = threading.Event()

    def call(caller: int) -> None:
        number = 0
        while not stopped.is_set():
            number += 1
            model = f"gpt-4o-{caller}-{number}"
            streams = {"stream": True, "stream_options": {"include_usage": True}} if number % 2 else {}
            try:
                if served.ask(model, **streams).status_code == 200:
                    answered.add(model)
            except httpx.TransportError:
                continue  # the server is gone, or was in the middle

    with ThreadPoolExecutor(4) as callers:
        running = [callers.submit(call, number) for number in range(4)]
        for _ in range(kills):
            before = len(answered)
            eventually(lambda before=before: len(answered) >= before + 20, 60)
            served.kill()
            served.start()
        stopped.set()
        for one in running:
            one.result()
    made = {body["model"] for _, _, body in provider.asked}

    def found() -> dict[str, set[str]]:
        ids: dict[str, set[str]] = {}
        for event in events(line):
            ids.setdefault(event["model_sent"], set()).add(event["event_id"])
        return ids

    eventually(lambda: made <= found().keys(), 60)
    assert all(len(ids) == 1 for ids in found().values()), "each call is one event"
    exact = {event["model_sent"] for event in events(line) if event["usage_source"] == "PROVIDER"}
    assert answered <= exact
    cut = [event for event in events(line) if event["error_type"] == "process_ended"]
    assert all((event["status"], event["usage_source"]) == ("CANCELLED", "ESTIMATED") for event in cut)
    log = "".join(path.read_text(encoding="utf-8", errors="replace") for path in tmp_path.rglob("*.log"))
    assert KEY not in log
    assert "sk-real" not in log


def test_a_call_in_flight_when_the_server_is_killed_is_an_estimate(
    workers: Workers, line: Settings, provider: FakeServer, tmp_path: Path
) -> None:
    served = Served(workers, provider, tmp_path)
    with ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(served.ask, "late")
        eventually(lambda: provider.asked, 30)
        served.kill()
        with pytest.raises(httpx.TransportError):
            waiting.result()
    served.start()
    (event,) = eventually(lambda: events(line), 60)
    assert (event["status"], event["usage_source"], event["error_type"]) == ("CANCELLED", "ESTIMATED", "process_ended")
    assert (event["input_tokens"], event["org_id"]) == (100, "default")
    assert "1 of them estimates of calls cut short" in served.worker.text
    assert served.ask("gpt-4o").status_code == 200
    text = served.metrics()
    assert 'gen_ai_client_token_usage_sum{gen_ai_token_type="input"} 1000.0' in text, (
        "those of the killed are not its own"
    )
    assert "gen_ai_client_operation_duration_seconds_count 1.0" in text
