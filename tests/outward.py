"""Every way out of the product for text from outside: how a name is shown there, and where in the code that happens.

`WAYS` is walked by the law of hostile names; `PLACES` is held against the code, so that a new way out is listed here
with the function that escapes what passes it.
"""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from email import message_from_bytes, policy
from functools import cache
from typing import Any
from urllib.parse import unquote_plus

import polars as pl
import requests
from pydantic import SecretStr

from tests.alert_events import AT, alert, event
from tollmeter.admin import focus
from tollmeter.admin.close import Statement
from tollmeter.admin.policy_files import members_yaml
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.cli import alerts as alerts_command
from tollmeter.cli import close as close_command
from tollmeter.cli import mcp as mcp_command
from tollmeter.cli import top as top_command
from tollmeter.cli.output import err, out, print_json, print_table
from tollmeter.cli.root import run
from tollmeter.log_lines import LogLines
from tollmeter.producers.http.answer import Answer
from tollmeter.schemas.dead_letter import dead_letter_headers
from tollmeter.schemas.escapes import header_value
from tollmeter.schemas.policy import Member
from tollmeter.server import exposition
from tollmeter.server.json_answer import JsonAnswer
from tollmeter.server.pages import site
from tollmeter.server.problems import Problem, encoded
from tollmeter.sinks.channels import config
from tollmeter.sinks.channels.chat import Chat
from tollmeter.sinks.channels.mail import composed
from tollmeter.sinks.channels.message import Message
from tollmeter.streams.notify.channels import Lines
from tollmeter.streams.notify.evidence import Call, Cause, Causes
from tollmeter.streams.notify.incidents import Standing
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.notify.texts import message, opened

MAIL_HEADERS = [
    *("Subject", "From", "To", "Message-ID", "Date", "Auto-Submitted"),
    *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
]
CHATS = {
    "slack": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#x",
    "slack in blocks": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#x?blocks=yes",
    "discord": f"discord://123456789012345678/{'a' * 68}",
    "discord in embeds": f"discord://123456789012345678/{'a' * 68}?format=markdown",
    "telegram": "tgram://123456789:abcdefghijklmnopqrstuvwxyzABCDEFGHI/12315544/",
    "telegram in markdown": "tgram://123456789:abcdefghijklmnopqrstuvwxyzABCDEFGHI/12315544/?format=markdown",
    "teams": "workflows://host.azure.com/WFID/SIGNATURE",
    "mattermost": "mmost://localhost/3ccdd113474722377935511fc85d3dd4",
    "google chat": "gchat://workspace/key/token",
    "zulip": "zulip://botname@apprise/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/#x",
    "webex": f"wxteams://{'a' * 80}",
    "ntfy": "ntfy://localhost/x",
    "gotify": "gotify://localhost/abcdefghijklmno",
    "pushover": f"pover://{'a' * 30}@{'b' * 30}",
    "matrix": "matrix://user:token@localhost/#r?mode=slack",
    "mastodon": "mastodon://accesstoken@localhost",
    "sendgrid": "sendgrid://abcd:user@example.com/new@example.com",
}


def notice_of(name: str) -> Notice:
    """Return a notice whose every fact from outside is the name."""
    made = alert(severity="critical", name=name, org=name or "acme", text=name, cost_nano=10**10, window="hour")
    notice = Notice(id=made.id, event=event(made), opened_s=AT.timestamp(), incident="i", change="updated")
    call = Call(AT, 10**9, name, name, name)
    causes = Causes((Cause(60, f"{name} input from {name}"),), 10**9, (call,), ((name, 10**9),))
    title, body = opened(notice, causes, Standing(AT.timestamp(), (notice,), ((name, "user", name), (name, "org", ""))))
    return notice.model_copy(update={"title": title, "body": body})


def told(name: str) -> Message:
    return message(notice_of(name), "opened")


def raw(name: str) -> Message:
    """Return a message whose text nobody has escaped yet."""
    return Message("k", "opened", "budget", "critical", name, f"{name}\nnext: {name}", AT.timestamp(), {"name": name})


def screen(show: Callable[[], object]) -> str:
    """Return what is written to both streams."""
    both = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", newline="")
    with redirect_stdout(both), redirect_stderr(both):
        show()
        both.flush()
    assert isinstance(both.buffer, io.BytesIO)
    return both.buffer.getvalue().decode()


@contextmanager
def wire(sent: list[bytes]) -> Iterator[None]:
    """Keep what leaves for the services of chats instead of sending it."""

    def send(self: object, request: requests.PreparedRequest, **options: object) -> requests.Response:
        body = request.body or b""
        sent.append(body if isinstance(body, bytes) else str(body).encode())
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, request.url or ""
        content = b"ok" if "hooks.slack.com" in answer.url else b'{"ok": true, "result": {}, "id": 1}'
        answer.raw = io.BytesIO(content)
        return answer

    before = requests.adapters.HTTPAdapter.send
    requests.adapters.HTTPAdapter.send = send  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        requests.adapters.HTTPAdapter.send = before  # type: ignore[method-assign]


@cache
def chat(kind: str) -> Chat:
    made = Chat(kind, SecretStr(CHATS[kind]))
    for service in made._apprise:
        service.request_rate_per_sec = 0  # nobody is there to be spared
    return made


def chatted(kind: str, text: Message) -> str:
    """Return the bodies that one chat gets for a message, as text."""
    sent: list[bytes] = []
    with wire(sent):
        chat(kind).deliver(text)
    assert sent, kind
    bodies = [body.decode() for body in sent]
    return "\n".join(_words(json.loads(body)) if body.startswith("{") else _form(body) for body in bodies)


def _form(body: str) -> str:
    return unquote_plus(body)


def _words(document: object) -> str:
    """Return all texts of a document, a line each."""
    if isinstance(document, Mapping):
        return "\n".join(map(_words, document.values()))
    return "\n".join(map(_words, document)) if isinstance(document, list) else str(document)


def logged(name: str) -> str:
    """Return the line of an event that names it, and of an error whose text it is."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogLines())
    try:
        raise ValueError(name)
    except ValueError:
        record = logging.LogRecord("tollmeter", logging.ERROR, "", 0, "row %s: %s", (name, name), sys.exc_info())
    handler.emit(record)
    return stream.getvalue()


def mailed(text: Message) -> str:
    """Return subject and text of a mail as they are read behind the wire."""
    wanted = config.Email.model_validate(
        {"type": "email", "to": "a@example.org", "from": "b@example.org", "host": "localhost"}
    )
    mail = message_from_bytes(composed(wanted, text).as_bytes(policy=policy.SMTP), policy=policy.default)
    assert list(mail.keys()) == MAIL_HEADERS
    assert not mail.is_multipart()
    assert mail["To"] == "a@example.org"
    assert "\n" not in mail["Subject"]
    return f"{mail['Subject']}\n{mail.get_content()}".replace("\r\n", "\n")


def rendered(name: str) -> str:
    """Return a page whose every value is the name, in text, in an attribute and in a form."""
    template = site._templates().from_string(
        '{% extends "problem.html" %}{% block title %}{{ detail }}{% endblock %}'
        '{% block content %}<p title="{{ detail }}">{{ detail }}</p><i>{{ detail }}</i>{% endblock %}'
    )
    frame = {"tabs": (), "tab": "", "session": None, "form": "", "path": "", "query": "", "clock": ""}
    return template.render(**frame, detail=name, code=name).encode().decode()


def statement(name: str) -> str:
    row: dict[str, Any] = dict.fromkeys(close_command.NAMES, name)
    row |= dict.fromkeys((*close_command.MONEY, "calls", "unpriced", "estimated"), 1)
    totals = dict.fromkeys((*close_command.MONEY, "calls", "unpriced", "estimated", "at_risk_nano"), 1)
    totals |= {"estimated_nano": 1, "without_eur": 0, "without_rub": 0}
    content = {"rows": [row], "adjustments": [row], "totals": totals, "closed_at": name, "price_books": [name]}
    content |= {"fx_first": name, "fx_last": name}
    return close_command.page(Statement("2026-11", 1, "closed", "", content, "0" * 64)).encode().decode()


def table(name: str) -> str:
    return screen(lambda: print_table(name, [{"name": name, "usd": 1, "other": name}]))


def topped(name: str) -> str:
    row = {"cost_nano": 1, "hour_nano": 1, "calls": 1, "input_tokens": 1, "output_tokens": 1, "refused": 0}
    row |= {"unpriced": 0, "hour_unpriced": 0, "at_risk_nano": 0}
    line = top_command._line(name, name, row, 60)
    return screen(lambda: print_table("spend", [line], top_command.COLUMNS, spare=top_command._SPARE))


def followed(name: str) -> str:
    return screen(lambda: alerts_command._show(event(alert(name=name, text=name)), as_json=False))


def failed(name: str) -> str:
    """Return what a command says of a file that is not there."""
    possible = "".join(one for one in name if one != "\0" and not "\ud800" <= one < "\udc80")[:200]
    return screen(lambda: run(["import", f"/nowhere/{possible}"]))


def metrics(name: str) -> str:
    family = exposition._counted("problems", "x", ("status", "code"), [((400, name), 1)])
    (sample,) = family.samples
    return "".join(sample.labels.values())


def focus_text(name: str) -> str:
    frame = pl.DataFrame({"Tags": [name.encode("utf-8", "replace").decode()], "ChargePeriodStart": [AT]})
    return focus.csv_text(frame)


def membership(name: str) -> str:
    """Return the membership as YAML; a name that none takes cannot leave by it."""
    try:
        return members_yaml([Member(org_id="acme", kind="user", name=name, groups=("g",))])
    except ValueError:
        return ""


def answered(name: str) -> str:
    body = JsonAnswer({"name": name}).body
    assert json.loads(bytes(body)) == {"name": name}
    return bytes(body).decode()


def problem(name: str) -> str:
    body = Problem(400, "x", name, more={"name": name}).body(name)
    assert json.loads(body)["name"] == name
    return body.decode()


def printed_json(name: str) -> str:
    text = screen(lambda: print_json({"name": name}))
    assert json.loads(text) == {"name": name}
    return text.removesuffix("\n")


def headers(name: str) -> str:
    pairs = encoded([("retry-after", name), *Answer(request_id=name, event_id=name).headers().items()])
    return " | ".join(value.decode("latin-1") for _, value in pairs[1:]) if len(pairs) > 1 else header_value(name)


def letters(name: str) -> str:
    class At:
        topic, partition, offset = "usage.events", 0, 0

    found = dict(dead_letter_headers("price", "invalid", name, At()))
    return found["detail"].decode("utf-8", "replace")


def assisted(name: str) -> str:
    return "\n".join((str(mcp_command._wrong(name)), _words(mcp_command._seen({"rows": [{"model": name}]}))))


LINE, LINES, CELL, JSON, PAGE, CHAT = "line", "lines", "cell", "json", "page", "chat"
"""What a way shows: one line, several, a table of cells, JSON, a page, a chat's message."""
Way = tuple[str, Callable[[str], str]]
WAYS: dict[str, Way] = {
    "terminal": (LINE, lambda name: screen(lambda: out.print(name)).removesuffix("\n")),
    "terminal, stderr": (LINE, lambda name: screen(lambda: err.print(name)).removesuffix("\n")),
    "terminal, table": (LINES, table),
    "terminal, top": (LINES, topped),
    "terminal, follow": (LINE, lambda name: followed(name).removesuffix("\n")),
    "terminal, error": (LINES, failed),
    "json, terminal": (JSON, printed_json),
    "json, server": (JSON, answered),
    "json, problem": (JSON, problem),
    "json, webhook": (JSON, lambda name: raw(name).document().decode()),
    "log": (LINES, logged),
    "log, alerts": (LINE, lambda name: screen(lambda: Lines(aside=False).deliver(told(name))).removesuffix("\n")),
    "log, alerts as they came": (
        LINE,
        lambda name: screen(lambda: Lines(aside=True).deliver(raw(name))).removesuffix("\n"),
    ),
    "page": (PAGE, rendered),
    "page, statement": (PAGE, statement),
    "mail": (LINES, lambda name: mailed(told(name))),
    "mail as it came": (LINES, lambda name: mailed(raw(name))),
    "csv": (CELL, lambda name: csv_text(["a", "b"], [{"a": name, "b": name}])),
    "csv, focus": (CELL, focus_text),
    "membership": (LINES, membership),
    "prometheus": (LINE, metrics),
    "header": (LINE, headers),
    "dead letter": (LINES, letters),
    "assistant": (LINES, assisted),
    **{f"chat, {kind}": (CHAT, lambda name, kind=kind: chatted(kind, told(name))) for kind in CHATS},
    **{f"chat as it came, {kind}": (CHAT, lambda name, kind=kind: chatted(kind, raw(name))) for kind in CHATS},
}
OF_PROGRAMS = "programs"
"""JSON and the like that only programs of ours, Kafka, ClickHouse or a provider read: it is quoted."""
_LISTED = {
    OF_PROGRAMS: """
        json: dashboards/grafana/render.py producers/client/write_ahead.py producers/fallback/native.py
            producers/guard/reader.py producers/http/models.py producers/http/refused.py
            src/tollmeter/admin/forget_topics.py src/tollmeter/admin/model_rules.py producers/http/request.py
            producers/imports/log_lines.py producers/imports/old_tables.py producers/middleware/admission.py
            schemas/envelope.py schemas/progress.py schemas/registry.py sinks/clickhouse/books.py
            sinks/clickhouse/client.py src/tollmeter/admin/access.py src/tollmeter/admin/backup.py
            src/tollmeter/admin/close.py
            src/tollmeter/admin/setup.py src/tollmeter/broker/passed.py
            src/tollmeter/broker/policies.py src/tollmeter/broker/registry.py
            src/tollmeter/cli/run.py src/tollmeter/embedded/environment.py src/tollmeter/embedded/http_answer.py
            src/tollmeter/embedded/state.py src/tollmeter/server/doors/litellm.py src/tollmeter/server/known.py
            src/tollmeter/server/pages/session.py
            src/tollmeter/server/proxy/fall_back.py src/tollmeter/stacks.py src/tollmeter/traffic/poison.py
            streams/engine/probes.py streams/ledger/stage.py streams/notify/commands.py
            streams/notify/journal.py streams/notify/stage.py
            streams/price/book/book.py streams/price/book/publish.py streams/price/quarantine.py
            streams/rules/events/avro_block.py streams/watch/checkpoint.py streams/watch/spend_publisher.py
        yaml: dashboards/grafana/generate.py
        csv: src/tollmeter/traffic/derive.py streams/price/book/fx_banks.py streams/price/book/public_map.py
        answer: producers/http/library.py src/tollmeter/broker/topic_ids.py src/tollmeter/embedded/front.py
            streams/engine/probes.py src/tollmeter/server/pages/files.py
        stream: streams/price/sandbox_process.py
        metrics: streams/engine/metrics.py""",
    "terminal": """
        stream: src/tollmeter/cli/output.py src/tollmeter/cli/progress.py src/tollmeter/cli/groups.py
            src/tollmeter/cli/demo_run.py src/tollmeter/cli/notify.py src/tollmeter/cli/worker.py
            src/tollmeter/server/run.py src/tollmeter/__main__.py src/tollmeter/embedded/front.py
            src/tollmeter/traffic/derive.py producers/autoload/sitecustomize.py""",
    "terminal, table": "json: src/tollmeter/cli/dlq.py src/tollmeter/cli/quote.py",
    "json, terminal": "json: schemas/escapes.py",
    "json, server": """
        json: src/tollmeter/server/json_answer.py
        answer: src/tollmeter/server/json_answer.py src/tollmeter/server/answers/alerts.py
            src/tollmeter/server/answers/billing.py src/tollmeter/server/answers/data.py
            src/tollmeter/server/answers/health.py src/tollmeter/server/answers/keys.py
            src/tollmeter/server/answers/limits.py src/tollmeter/server/answers/spend.py
            src/tollmeter/server/query.py
            src/tollmeter/server/answers/tokens.py src/tollmeter/server/answers/models.py
            src/tollmeter/server/answers/__init__.py""",
    "log": "stream: src/tollmeter/log_lines.py\nlog: src/tollmeter/log_lines.py",
    "log, alerts": "stream: streams/notify/channels.py",
    "page": """
        page: src/tollmeter/server/answers/description.py src/tollmeter/server/pages/site.py
        answer: src/tollmeter/server/answers/description.py src/tollmeter/server/pages/alerts.py
            src/tollmeter/server/pages/doing.py src/tollmeter/server/pages/incidents.py
            src/tollmeter/server/pages/limits.py src/tollmeter/server/pages/now.py
            src/tollmeter/server/pages/session.py src/tollmeter/server/pages/sign_in.py
            src/tollmeter/server/pages/site.py src/tollmeter/server/pages/tokens.py
            src/tollmeter/server/pages/health.py src/tollmeter/server/pages/keys.py
            src/tollmeter/server/pages/prices.py src/tollmeter/server/answers/invoice.py
            src/tollmeter/server/pages/invoice.py""",
    "mail": "mail: sinks/channels/mail.py",
    "chat, slack": "chat: sinks/channels/chat.py",
    "csv": """
        csv: src/tollmeter/admin/reports/csv_text.py
        json: src/tollmeter/admin/reports/export.py
        stream: src/tollmeter/cli/export.py src/tollmeter/cli/report_rows.py
        answer: src/tollmeter/server/answers/costs.py src/tollmeter/server/pages/calls.py
            src/tollmeter/server/pages/spend.py""",
    "csv, focus": """
        csv: src/tollmeter/admin/focus.py
        json: src/tollmeter/admin/focus_costs.py
        stream: src/tollmeter/cli/charges.py""",
    "membership": """
        csv: src/tollmeter/admin/policy_files.py
        yaml: src/tollmeter/admin/policy_files.py
        stream: src/tollmeter/cli/policy_files.py""",
    "prometheus": "metrics: src/tollmeter/server/exposition.py\nanswer: src/tollmeter/server/answers/metrics.py",
}


def _places() -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for way, listed in _LISTED.items():
        kind = ""
        for word in listed.split():
            if word.endswith(":"):
                kind = word[:-1]
            else:
                found[word, kind] = way
    return found


PLACES = _places()
"""For each file of the product and each kind of place in it where text leaves: the way that it takes there."""
