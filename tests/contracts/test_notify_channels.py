"""Consumers against real servers: HTTP, SMTP, and a chat service through apprise. Nothing is patched."""

import base64
import email
import hmac
import json
import socket
from collections.abc import Iterator
from email.message import Message as Mail
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiosmtpd.controller import Controller

from tests.alert_events import AT, Receiver, alert, event, receiver
from tollmeter.sinks.channels import config
from tollmeter.sinks.channels.message import Away, Channel, Message, Refused, Unsure
from tollmeter.streams.notify import routes
from tollmeter.streams.notify.channels import build
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.notify.outcome import Outcome, attempt_once
from tollmeter.streams.notify.texts import message

KEY = "whsec_" + base64.b64encode(b"sesame").decode()


def consumer(text: str, **environment: str) -> Channel:
    (made,) = build(routes.parse(f"consumers:\n  c: {text}\nroutes:\n  - to: c\n", "r"), environment).values()
    return made


def opened(**changes: Any) -> Message:
    made = alert(severity="critical")
    notice = Notice(
        id=made.id, event=event(made), opened_s=AT.timestamp(), title="[critical] key …3f2a", body="It spent."
    )
    return message(notice.model_copy(update=changes), "opened")


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def webhook(url: str) -> Channel:
    return consumer(f'{{type: webhook, url: "{url}", key_env: KEY, allow: [127.0.0.1], timeout: 2s}}', KEY=KEY)


def test_webhook_is_signed_and_carries_the_alert(hook: Receiver) -> None:
    webhook(hook.url).deliver(opened())
    ((headers, body),) = hook.requests
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"sesame", signed, sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["idempotency-key"] == headers["webhook-id"] == alert(severity="critical").id
    document = json.loads(body)
    assert document["alert"] == event(alert(severity="critical"))
    assert (document["type"], document["title"]) == ("tollmeter.alert.opened", "[critical] key …3f2a")


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (500, Away, "127.0.0.1 answered 500"),
        (503, Away, "answered 503"),
        (429, Away, "answered 429"),
        (422, Refused, "answered 422"),
        (302, Refused, "redirects are not followed"),
    ],
)
def test_webhook_answers(hook: Receiver, status: int, error: type[Exception], said: str) -> None:
    hook.answer = lambda number: status
    with pytest.raises(error, match=said):
        webhook(hook.url).deliver(opened())
    assert len(hook.requests) == 1, "one attempt, and no redirect was followed"


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ("120", 120.0),
        ("Sat, 28 Nov 2020 00:00:00 GMT", 0.0),
        ("Sat, 28 Nov 2099 00:00:00 GMT", 3_600.0),
        ("99999999999", 3_600.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("", 0.0),
    ],
)
def test_webhook_that_asks_for_a_pause(hook: Receiver, said: str, wait_s: float) -> None:
    hook.answer, hook.headers = lambda number: 429, {"retry-after": said}
    with pytest.raises(Away) as raised:
        webhook(hook.url).deliver(opened())
    assert raised.value.wait_s == wait_s


def test_webhook_that_nobody_hears() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/secret-path"
    with pytest.raises(Away, match="does not answer") as raised:
        webhook(url).deliver(opened())
    assert "secret-path" not in str(raised.value)


def test_webhook_goes_to_the_address_that_was_checked(hook: Receiver) -> None:
    """The name is resolved once per message: what it turns into afterwards does not matter."""
    from pydantic import SecretStr

    from tollmeter.sinks.channels.webhook import Webhook

    port = urlsplit(hook.url).port
    wanted = config.Webhook.model_validate(
        {"type": "webhook", "url": f"http://rebind.example.org:{port}/hook", "key_env": "K", "allow": ["127.0.0.1"]}
    )
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    made = Webhook(wanted, SecretStr("k"), resolve=lambda host, port: answers.pop(0))
    made.deliver(opened())
    assert hook.requests[0][0]["host"] == f"rebind.example.org:{port}"
    with pytest.raises(Refused, match="not public"):
        made.deliver(opened())
    assert len(hook.requests) == 1


class Box:
    """What a mail server takes; it refuses whom it is told to."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - named by aiosmtpd
        if self.answer.startswith("250"):
            self.mails.append(email.message_from_bytes(envelope.content))
        return self.answer


@pytest.fixture
def box() -> Iterator[tuple[Box, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Box()
    server = Controller(made, hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield made, port
    finally:
        server.stop()


def mail(port: int, **environment: str) -> Channel:
    return consumer(
        "{type: email, to: [ops@example.org, cfo@example.org], from: toll@example.org, host: 127.0.0.1, tls: none, "
        f"port: {port}}}",
        **environment,
    )


def test_mail_arrives_under_the_id_of_its_alert(box: tuple[Box, int]) -> None:
    inbox, port = box
    mail(port).deliver(opened(title="[critical] two\nlines: äöü"))
    (got,) = inbox.mails
    assert got["Message-ID"] == f"<{alert(severity='critical').id}@tollmeter>"
    subject = email.header.make_header(email.header.decode_header(got["Subject"]))
    assert (str(subject), got["To"]) == ("[critical] two lines: äöü", "ops@example.org, cfo@example.org")
    assert b"It spent." in got.get_payload(decode=True)


@pytest.mark.parametrize(("answer", "error"), [("451 later", Away), ("554 no", Refused)])
def test_mail_that_is_not_taken(box: tuple[Box, int], answer: str, error: type[Exception]) -> None:
    inbox, port = box
    inbox.answer = answer
    with pytest.raises(error, match="does not take the mail"):
        mail(port).deliver(opened())
    assert inbox.mails == []


def test_mail_without_a_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Away, match="does not answer"):
        mail(port).deliver(opened())


def test_chat_through_apprise(hook: Receiver) -> None:
    """`ntfy` is a chat service that one may run oneself: the message goes over the wire as apprise sends it."""
    made = consumer("{type: apprise, url_env: CHAT}", CHAT=f"ntfy://127.0.0.1:{urlsplit(hook.url).port}/ops")
    hook.answer = lambda number: 200 if number == 0 else 500
    made.deliver(opened())
    assert b"It spent." in hook.requests[0][1]
    with pytest.raises(Unsure, match="c did not take the message"):
        made.deliver(opened())


def test_a_text_that_a_chat_refuses_holds_up_no_other(hook: Receiver) -> None:
    made = consumer("{type: apprise, url_env: CHAT}", CHAT=f"ntfy://127.0.0.1:{urlsplit(hook.url).port}/ops")
    hook.answer = lambda number: 400 if b"refused" in hook.requests[number][1] else 200
    outcome = attempt_once(made, opened(body="refused"))
    assert (outcome.away, outcome.unsure) == (False, True)
    assert attempt_once(made, opened(body="taken")) == Outcome()


class Broken:
    """A consumer with a bug, as a plug-in may have one."""

    def deliver(self, message: Message) -> None:
        raise RuntimeError("of its own")


def test_what_goes_wrong_in_a_consumer_stays_there() -> None:
    assert attempt_once(Broken(), opened()) == Outcome("unexpected RuntimeError")
    assert attempt_once(webhook("http://127.0.0.1:1/"), opened()).away


def test_log_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    consumer("{type: log}").deliver(opened(body="It spent.\nnext: tollmeter block key k"))
    line = capsys.readouterr().out
    assert line == (
        f"2026-11-20T10:00:00Z {alert(severity='critical').id} [critical] key …3f2a | next: tollmeter block key k\n"
    )
