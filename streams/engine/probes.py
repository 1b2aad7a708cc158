"""A small HTTP server, in a thread of its own: it answers also when the worker's loop hangs.

`/livez`, `/readyz`, `/startupz`: 200, or 503 with the reasons. `/metrics`: Prometheus. The same thread ends a worker
that is not alive for a minute: with the loop stuck nobody else would notice on a machine without an orchestrator.
"""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic

from tollmeter.streams.engine.health import Health

HEALTH_FILE = "TOLLMETER_HEALTH_FILE"
LOOK_S = 1.0
LOOKS = 60
"""Looks in a row, not seconds: after a SIGSTOP the clock has jumped, and nothing is wrong."""

log = logging.getLogger("tollmeter")


class Probes(ThreadingHTTPServer):
    """Serves until the process ends. `stuck` is called with the reasons when the worker was not alive for long."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, health: Health, metrics: Callable[[], bytes], port: int = 0, host: str = "127.0.0.1") -> None:
        self.health, self.metrics = health, metrics
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def start(self) -> int:
        """Serve in a thread; return the port, and write it into the file that the environment names."""
        # The interval is that of looking for an end; requests are answered at once.
        threading.Thread(target=self.serve_forever, args=(2.0,), name="probes", daemon=True).start()
        port = int(self.server_address[1])
        if path := os.environ.get(HEALTH_FILE):
            Path(path).write_text(f"{port}\n", encoding="ascii")
        return port

    def watch(self, stuck: Callable[[str], None]) -> None:
        """Look at the worker from a thread; call `stuck` once it was not alive at every look for a minute."""
        threading.Thread(target=self._watch, args=(stuck,), name="watchdog", daemon=True).start()

    def _watch(self, stuck: Callable[[str], None]) -> None:
        pause, looks = threading.Event(), 0
        while looks < LOOKS:
            pause.wait(LOOK_S)
            problems = self.health.not_alive(monotonic())
            looks = looks + 1 if problems else 0
        stuck("; ".join(problems))


class _Handler(BaseHTTPRequestHandler):
    server: Probes
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tollmeter", ""
    timeout = 5

    def do_GET(self) -> None:
        health, now = self.server.health, monotonic()
        verdicts = {"/livez": health.not_alive, "/readyz": health.not_ready, "/startupz": health.not_started}
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", self.server.metrics())
        elif path in verdicts:
            problems = verdicts[path](now)
            document = {"ok": not problems, "stage": health.stage, "problems": problems}
            self._answer(503 if problems else 200, "application/json", json.dumps(document).encode() + b"\n")
        else:
            self._answer(404, "text/plain", b"/livez, /readyz, /startupz or /metrics\n")

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name upstream gave it
        """Say nothing: a probe every few seconds is no event."""
