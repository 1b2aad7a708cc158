"""`notify`, `alerts ack|mute|test` as commands: each mistake is one line; a test alert says what became of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alert_events import Receiver, receiver
from tollmeter.cli.root import run

ROUTES = """
consumers:
  hook: {{type: webhook, url: "{url}", key_env: HOOK_KEY, allow: [127.0.0.1]}}
  log: {{type: log}}
routes:
  - to: log
  - match: {{kind: budget, severity: critical}}
    to: hook
"""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    """A receiver, its routes file as setting, and no broker anywhere."""
    monkeypatch.setenv("TOLLMETER_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("TOLLMETER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TOLLMETER_NOTIFY_ROUTES", str(tmp_path / "routes.yaml"))
    monkeypatch.setenv("HOOK_KEY", "sesame")
    with receiver() as made:
        (tmp_path / "routes.yaml").write_text(ROUTES.format(url=made.url))
        yield made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["notify", "--routes", "/none.yaml"], "routes file /none.yaml cannot be read: No such file or directory"),
        (["notify"], " at 127.0.0.1:1 "),
        (["alerts", "ack", "abc"], " at 127.0.0.1:1 "),
        (["alerts", "mute", "--kind", "budget", "--for", "2h"], " at 127.0.0.1:1 "),
        (["alerts", "mute", "--kind", "budget"], "say for how long (--for 2h), or --off to end a mute"),
        (["alerts", "mute", "--for", "2h"], "say what to mute: --kind, --org, --scope or --name"),
        (["report", "budget"], "127.0.0.1:1"),
    ],
)
def test_one_line_for_each_mistake(
    hook: Receiver, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.strip().split("\n")
    assert line.startswith("tollmeter: ")
    assert said in line
    assert shown.out == ""


def test_no_routes_and_a_missing_secret(
    hook: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HOOK_KEY")
    assert run(["alerts", "test"]) == 2
    assert "consumer hook: variable HOOK_KEY is missing or empty" in capsys.readouterr().err
    monkeypatch.setenv("TOLLMETER_NOTIFY_ROUTES", "")
    assert run(["notify"]) == 2
    assert "no routes: give --routes FILE or set TOLLMETER_NOTIFY_ROUTES" in capsys.readouterr().err


def test_a_test_alert_goes_to_every_consumer_and_a_failure_is_a_finding(
    hook: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["alerts", "test", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == [
        {"consumer": "hook", "sent": True, "error": ""},
        {"consumer": "log", "sent": True, "error": ""},
    ]
    assert "this is a test alert from tollmeter" in hook.bodies()[0]["text"]
    assert "this is a test alert from tollmeter" in shown.err, "the line of the log consumer"
    hook.answer = lambda number: 500
    assert run(["alerts", "test"]) == 1
    assert "127.0.0.1 answered 500" in capsys.readouterr().out


@pytest.mark.parametrize(("severity", "requests"), [("critical", 1), ("info", 0)])
def test_a_test_alert_of_a_kind_follows_the_routes(hook: Receiver, severity: str, requests: int) -> None:
    assert run(["alerts", "test", "--kind", "budget", "--severity", severity]) == 0
    assert len(hook.requests) == requests
