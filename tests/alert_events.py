"""Alerts for tests of notify: CloudEvents as WATCH sends them, from a few words; and a receiver of webhooks."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tollmeter.schemas.alert import Alert, Severity, alert_id

AT = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


def alert(
    kind: str = "spend_spike",
    *,
    number: int = 0,
    severity: Severity = "warning",
    org: str = "acme",
    scope: str = "api_key",
    name: str = "0123456789ab3f2a",
    at: datetime = AT,
    period: str = "",
    text: str = "something happened",
    **facts: Any,
) -> Alert:
    """An alert, of the hour that it is raised in if no period is named; the same words give the same id."""
    return Alert(
        id=alert_id(kind, org, scope, name, period, str(number)),
        kind=kind,
        severity=severity,
        org_id=org,
        scope=scope,
        name=name,
        period=period or f"{at:%Y-%m-%dT%H}",
        received_at=at,
        text=text,
        facts=facts,
    )


def budget(pct: int, *, limit_micro: int = 10_000_000, at: datetime = AT, window: str = "day", **more: Any) -> Alert:
    """A budget's threshold, as WATCH makes it: its id depends on the limit."""
    period = at.strftime("%Y-%m-%d" if window == "day" else "%Y-%m")
    made = alert(
        "budget",
        severity="critical" if pct >= 100 else "warning" if pct >= 80 else "info",
        scope="user",
        name="ann",
        at=at,
        period=period,
        policy_id="acme/user/ann/pool/USD",
        threshold_pct=pct,
        limit_nano=limit_micro * 1_000,
        spent_nano=limit_micro * 10 * pct,
        currency="USD",
        window=window,
        **more,
    )
    identity = alert_id("budget", made.facts["policy_id"], window, str(limit_micro * 1_000), period, str(pct))
    return Alert(**{name: getattr(made, name) for name in made.__slots__} | {"id": identity})


def event(made: Alert) -> dict[str, Any]:
    """The CloudEvent as it is read from the topic."""
    read: dict[str, Any] = json.loads(made.wire())
    return read


def later(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


class Receiver:
    """A webhook's receiver on 127.0.0.1. `answer` says which status a request gets, by its number from 0."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[int], int] = lambda number: 204
        self.headers: dict[str, str] = {}
        self.on_request: Callable[[int], None] = lambda number: None
        self.url = ""
        self._lock = threading.Lock()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in list(self.requests)]

    def accepted(self) -> dict[str, list[bytes]]:
        """The bodies of the requests that got 2xx, by their idempotency key."""
        found: dict[str, list[bytes]] = {}
        for number, (headers, body) in enumerate(list(self.requests)):
            if self.answer(number) < 300:
                found.setdefault(headers["idempotency-key"], []).append(body)
        return found


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver that runs."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with made._lock:
                number = len(made.requests)
                made.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            made.on_request(number)
            status = made.answer(number)
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("location", made.url)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
