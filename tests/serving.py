"""A server of a test's line, started as `tollmeter serve`, and what it has written to the topic."""

from pathlib import Path
from typing import Any

import httpx

from tests.patience import eventually
from tests.workers import Worker, Workers, read
from tollmeter.schemas import codec, topics
from tollmeter.settings import Settings

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


def events(line: Settings) -> list[dict[str, Any]]:
    """Return the events on the topic."""
    headless = (record.value[len(codec.SINGLE_OBJECT_HEADER) :] for record in read(line, topics.EVENTS))
    return [codec.decode_body(body) for body in headless]
