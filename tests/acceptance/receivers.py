"""Where alerts of the stack arrive: a webhook, a mail box and a chat on 127.0.0.1, and the routes that lead there."""

import base64
import email
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from aiosmtpd.controller import Controller

from tests.acceptance import tokens
from tests.alert_events import receiver

HOOK_KEY = base64.b64encode(b"sesame of the hook").decode()
TOLD_ORG, MAIL_ORG = "acc-told", "acc-mail"
"""Organisations of whose alerts every receiver hears, and the mail box alone."""


@contextmanager
def _served(document: dict[str, Any]) -> Iterator[str]:
    """Serve one JSON document; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        finally:
            server.shutdown()
            thread.join()


class Receivers:
    """A webhook that fails at first, a chat, and a mail box; empty until an alert arrives."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.hook = self._open.enter_context(receiver())
        self.hook.answer = lambda number: 500 if number == 0 else 204
        self.chat = self._open.enter_context(receiver())
        self.chat.answer = lambda number: 200
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.keys_url = self._open.enter_context(_served(tokens.jwks()))
        self._server = Controller(self, hostname="127.0.0.1", port=self.port)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._open.close()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - named by aiosmtpd
        """Take a mail."""
        self.mails.append(email.message_from_bytes(envelope.content))
        return "250 OK"

    def subjects(self) -> list[str]:
        """Return the subjects of the mails, decoded."""
        return [str(make_header(decode_header(mail["Subject"]))) for mail in list(self.mails)]

    def told(self) -> dict[str, list[dict[str, Any]]]:
        """Return what the webhook took, by the id that it came under."""
        found: dict[str, list[dict[str, Any]]] = {}
        for number, ((headers, _), body) in enumerate(zip(list(self.hook.requests), self.hook.bodies(), strict=False)):
            if self.hook.answer(number) < 300:
                found.setdefault(headers["webhook-id"], []).append(body)
        return found

    @property
    def secrets(self) -> dict[str, str]:
        """The variables that the routes name."""
        chat = f"ntfy://127.0.0.1:{urlsplit(self.chat.url).port}/ops"
        return {"ACC_HOOK_KEY": f"whsec_{HOOK_KEY}", "ACC_CHAT_URL": chat}

    def routes(self) -> str:
        """Return the routes file."""
        return f"""
consumers:
  log: {{type: log}}
  hook: {{type: webhook, url: "{self.hook.url}", key_env: ACC_HOOK_KEY, allow: [127.0.0.1]}}
  chat: {{type: apprise, url_env: ACC_CHAT_URL}}
  ops-mail:
    {{type: email, to: [ops@example.org], from: toll@example.org, host: 127.0.0.1, port: {self.port}, tls: none}}
routes:
  - to: log
  - match: {{org: [{TOLD_ORG}]}}
    to: [hook, chat, ops-mail]
  - match: {{org: [{MAIL_ORG}]}}
    to: ops-mail
limits: {{per_scope_per_hour: 6, storm_per_minute: 500, per_hour: 1000, digest: 3s}}
report: {{at: "{datetime.now(UTC) + timedelta(minutes=3):%H:%M}"}}
retry: {{first: 1s, longest: 2s, give_up: 1h}}
"""
