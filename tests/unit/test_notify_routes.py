"""The routes file: whom an alert reaches, and a mistake named with its line."""

import logging
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tollmeter.sinks.channels.address import ForbiddenAddressError, is_allowed, pinned, system_resolve
from tollmeter.streams.notify import routes
from tollmeter.streams.notify.channels import build
from tollmeter.streams.notify.routes import RoutesError

GOOD = """
consumers:
  log: {type: log}
  hook: {type: webhook, url: "https://hooks.example.org/x", key_env: KEY}
  mail: {type: email, to: ops@example.org, from: me@example.org, host: mail}
routes:
  - to: log
  - match: {kind: [budget, remaining], org: acme}
    to: mail
    stop: true
  - match: {severity: [warning, critical]}
    to: [hook, log]
limits: {cooldown: 90m, per_hour: 7}
report: {at: "08:30", timezone: Europe/Berlin}
"""


@pytest.mark.parametrize(
    ("alert", "consumers"),
    [
        (("budget", "critical", "acme", "user", "ann"), ("log", "mail")),
        (("budget", "critical", "umbra", "user", "ann"), ("log", "hook")),
        (("spend_spike", "info", "acme", "api_key", "k"), ("log",)),
    ],
)
def test_whom_an_alert_reaches(alert: tuple[str, str, str, str, str], consumers: tuple[str, ...]) -> None:
    assert routes.parse(GOOD, "r.yaml").consumers_for(*alert) == consumers


def test_values() -> None:
    read = routes.parse(GOOD, "r.yaml")
    assert (read.limits.cooldown, read.limits.quiet, read.limits.per_hour) == (5_400, 7_200, 7)
    assert (read.report.at.hour, read.report.at.minute, read.report.timezone) == (8, 30, "Europe/Berlin")
    assert read.retry.give_up == 48 * 3_600


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("to: mail", "to: [mail, ops]", "r.yaml line 9: no consumer 'ops'; there is log, hook, mail"),
        ("type: log}", "type: pager}", "r.yaml line 3: consumers.log"),
        ("KEY}", "KEY, user: x}", "r.yaml line 4: consumers.hook.webhook.user: Extra inputs are not permitted"),
        (
            ", key_env: KEY",
            "",
            "r.yaml line 4: consumers.hook.webhook: key_env (a variable's name) or key_file is missing",
        ),
        ("https://hooks", "ftp://hooks", "r.yaml line 4: consumers.hook.webhook.url: write http://HOST/PATH"),
        ("https://hooks", "https://u:p@hooks", "no user or password in the address"),
        ("https://hooks.example.org", "http://169.254.169.254", "169.254.169.254 is not a public address"),
        ("https://hooks.example.org", "http://[::1]:80", "::1 is not a public address"),
        ("severity: [warning, critical]", "severity: [loud]", "r.yaml line 11: routes.2.match.severity.0"),
        ("90m", "soon", "r.yaml line 13: limits.cooldown: write a span of time, for example 90s"),
        ("per_hour: 7", "per_hour: 0", "limits.per_hour"),
        ('"08:30"', "18:30", 'report.at: write the hour in quotes, "09:00"'),
        ("Europe/Berlin", "Europe/Nowhere", "report.timezone: unknown time zone 'Europe/Nowhere'"),
        ("routes:", "routes: [", "r.yaml line"),
        ("host: mail}", "host: mail, user: u}", "password_env (a variable's name) or password_file is missing"),
    ],
)
def test_a_mistake_is_named_with_its_place(before: str, after: str, said: str) -> None:
    assert before in GOOD
    with pytest.raises(RoutesError) as raised:
        routes.parse(GOOD.replace(before, after), "r.yaml")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "- 1", "just words", "consumers: {}\nroutes: []"])
def test_no_routes_at_all(text: str) -> None:
    with pytest.raises(RoutesError, match=r"r\.yaml"):
        routes.parse(text, "r.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RoutesError, match="cannot be read: No such file"):
        routes.read(tmp_path / "none.yaml")


def consumers(text: str, **environment: str) -> Any:
    return build(routes.parse(f"consumers:\n  c: {text}\nroutes:\n  - to: c\n", "r"), environment)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{type: webhook, url: "https://example.invalid", key_env: NONE}',
            "consumer c: variable NONE is missing or empty",
        ),
        (
            '{type: webhook, url: "https://example.invalid", key_file: /none}',
            "consumer c: file /none is missing or empty",
        ),
        ('{type: webhook, url: "http://localhost:1", key_env: KEY}', "consumer c: localhost has the address"),
        (
            '{type: webhook, url: "http://2130706433/", key_env: KEY}',
            "consumer c: 2130706433 has the address 127.0.0.1",
        ),
        ('{type: webhook, url: "http://0x7f.1/", key_env: KEY}', "consumer c: 0x7f.1 has the address 127.0.0.1"),
        ('{type: webhook, url: "https://example.invalid", key_env: BAD}', "the part behind whsec_ is no base64"),
        ("{type: apprise, url_env: KEY}", "consumer c: apprise does not know this URL"),
        ("{type: apprise, url_env: HTTP}", "consumer c: jsons:// is no chat"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(text: str, said: str) -> None:
    with pytest.raises(RoutesError) as raised:
        consumers(text, KEY="sesame", BAD="whsec_???", HTTP="jsons://10.0.0.1/token")
    assert said in str(raised.value)
    assert "sesame" not in str(raised.value)
    assert "token" not in str(raised.value)


def test_secrets_show_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key").write_text("sesame\n")
    made = consumers(f'{{type: webhook, url: "https://example.invalid/p", key_file: "{tmp_path / "key"}"}}')["c"]
    assert "sesame" not in repr(vars(made)) + repr(made) + caplog.text


@pytest.mark.parametrize(
    ("address", "allowed", "fine"),
    [
        ("93.184.216.34", "", True),
        ("2606:2800:220:1:248:1893:25c8:1946", "", True),
        ("10.1.2.3", "", False),
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "", False),
        ("100.64.0.1", "", False),
        ("169.254.169.254", "", False),
        ("224.0.0.1", "", False),
        ("::1", "", False),
        ("::1", "::1/128", True),
        ("fe80::1", "", False),
        ("fd00::1", "", False),
        ("::ffff:127.0.0.1", "", False),
        ("::ffff:10.1.2.3", "10.1.0.0/16", True),
        ("64:ff9b::a00:1", "", False),
        ("2002:7f00:1::", "", False),
    ],
)
def test_addresses(address: str, allowed: str, fine: bool) -> None:
    assert is_allowed(ip_address(address), [ip_network(allowed)] if allowed else []) is fine


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(ForbiddenAddressError, match=r"10\.0\.0\.1, which is not public"):
        pinned("rebind.example.org", 443, [], lambda host, port: ["93.184.216.34", "10.0.0.1"])
    assert pinned("example.org", 443, [], lambda host, port: ["93.184.216.34"]) == "93.184.216.34"
    assert system_resolve("127.0.0.1", 80) == ["127.0.0.1"]
