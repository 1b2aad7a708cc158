"""Blocks and rate limits from the command line: written where guards read them, short ids resolved, errors one line."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.priced_rows import insert, row
from tollmeter.admin import access
from tollmeter.cli.access import block, ratelimit, unblock
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

COMMANDS = {"block": block, "unblock": unblock, "ratelimit": ratelimit}


def run(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(COMMANDS[arguments[0]], arguments[1:], obj=settings)


def done(settings: Settings, *arguments: str) -> str:
    result = run(settings, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def said(settings: Settings, *arguments: str) -> Any:
    return json.loads(done(settings, *arguments, "--json"))


def refused(settings: Settings, *arguments: str) -> str:
    result = run(settings, *arguments)
    assert result.exit_code == 2, result.output
    return result.output


@pytest.mark.stack
def test_blocks_come_and_go(line_settings: Settings) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    common = {"event_time": at, "received_at": at}
    client = connect(line_settings)
    insert(
        client,
        [
            row(1, **common, api_key_id="aaaa3f2a"),
            row(2, **common, api_key_id="bbbb3f2a", org_id="other"),
            row(3, **common, api_key_id="cccc77ee"),
            row(4, **common, user_id="ann@example.org"),
        ],
    )
    client.close()
    org = "acme"
    made = said(line_settings, "block", "key", "…77ee", "--reason", "leak", "--for", "2h")
    assert (made["scope"], made["name"], made["reason"]) == ("api_key", "cccc77ee", "leak")
    assert timedelta(minutes=119) < datetime.fromisoformat(made["until"]) - datetime.now(UTC) <= timedelta(hours=2)
    assert "aaaa3f2a" in (text := refused(line_settings, "block", "key", "…3f2a"))
    assert "bbbb3f2a" in text
    assert "--org" in text
    assert said(line_settings, "block", "key", "...3f2a", "--org", "other")["name"] == "bbbb3f2a"
    assert "seen" in refused(line_settings, "block", "key", "…0000")
    known = run(line_settings, "block", "user", "ann@example.org")
    assert "no call of" not in known.stderr
    done(line_settings, "unblock", "user", "ann@example.org")
    elsewhere = run(line_settings, "block", "user", "ann@example.org", "--org", org)
    assert "no call of this user is stored" in elsewhere.stderr
    assert "no call of this key is stored" in run(line_settings, "block", "key", "cccc77e").stderr
    done(line_settings, "unblock", "key", "cccc77e")
    done(line_settings, "block", "ip", "10.1.2.3")
    listed = {(entry["org_id"], entry["scope"], entry["name"]) for entry in said(line_settings, "block", "list")}
    key_org = made["org_id"]
    assert listed == {
        (key_org, "api_key", "cccc77ee"),
        ("other", "api_key", "bbbb3f2a"),
        (org, "user", "ann@example.org"),
        ("*", "client_ip", "10.1.2.3"),
    }
    assert "cccc77ee" in done(line_settings, "unblock", "key", "…77ee")
    done(line_settings, "unblock", "ip", "10.1.2.3")
    done(line_settings, "unblock", "ip", "10.9.9.9")
    assert {entry["name"] for entry in said(line_settings, "block", "list")} == {"bbbb3f2a", "ann@example.org"}
    _addresses(line_settings)
    assert "blocked" in done(line_settings, "block", "list")

    made = said(line_settings, "ratelimit", "set", "ip", "--requests", "1", "--per", "1m")
    assert (made["org_id"], made["name"], made["requests"], made["window_s"], made["burst"]) == ("*", "*", 1, 60, 1)
    done(
        line_settings,
        "ratelimit",
        "set",
        "key",
        "aaaa3f2a",
        "--requests",
        "10",
        "--per",
        "1s",
        "--burst",
        "20",
        "--for",
        "1d",
    )
    assert [limit.name for limit in access.rate_limits(line_settings)] == ["aaaa3f2a", "*"]
    assert "aaaa3f2a" in done(line_settings, "ratelimit", "list")
    done(line_settings, "ratelimit", "delete", "key", "aaaa3f2a")
    done(line_settings, "ratelimit", "delete", "ip")
    assert said(line_settings, "ratelimit", "list") == []


def _addresses(line: Settings) -> None:
    """Networks and every spelling of an address; unblocking says what it found."""
    for given, name in (("::ffff:1.2.3.4", "1.2.3.4"), ("2001:0DB8::2", "2001:db8::2"), ("10.1.2.3/8", "10.0.0.0/8")):
        assert said(line, "block", "ip", given)["name"] == name
    assert done(line, "unblock", "ip", "10.7.7.7") == (
        "ip 10.7.7.7 was not blocked (all organisations)\nit is blocked still: ip 10.0.0.0/8 is (all organisations)\n"
    )
    assert done(line, "unblock", "ip", "10.0.0.0/8") == "ip 10.0.0.0/8 may call again (all organisations)\n"
    assert done(line, "unblock", "ip", "2001:DB8:0::2") == "ip 2001:db8::2 may call again (all organisations)\n"
    assert done(line, "unblock", "ip", "::ffff:1.2.3.4") == "ip 1.2.3.4 may call again (all organisations)\n"
    said(line, "block", "ip", "10.9.9.9", "--org", "other")
    assert "it is blocked still: ip 10.9.9.9 is (organisation other)" in done(line, "unblock", "ip", "10.9.9.9")
    done(line, "unblock", "ip", "10.9.9.9", "--org", "other")
    assert "had no rate limit" in done(line, "ratelimit", "delete", "ip", "10.9.9.9")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("block", "key", "k", "--for", "soon"), "--for"),
        (("block", "key", "k", "--for", "0h"), "--for"),
        (("block", "key", "…f2a"), "four"),
        (("block", "ip", ""), "no address"),
        (("block", "ip", "203.0.113.9:8080"), "no address and no network"),
        (("block", "ip", "300.1.1.1"), "no address and no network"),
        (("block", "key", ""), "name"),
        (("ratelimit", "set", "ip", "10.0.0.0/8", "--requests", "1", "--per", "1m"), "is a network"),
        (("ratelimit", "set", "ip", "--requests", "0", "--per", "1m"), "requests"),
        (("ratelimit", "set", "ip", "--requests", "1", "--per", "60"), "--per"),
        (("ratelimit", "set", "ip", "--requests", "1", "--per", "1m", "--burst", "-1"), "burst"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments: tuple[str, ...], named: str) -> None:
    text = refused(Settings(), *arguments)
    assert named in text
    assert len(text.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments", [("block", "ip", "10.1.2.3"), ("block", "list"), ("ratelimit", "list")])
def test_without_a_broker_it_says_what_to_do(arguments: tuple[str, ...]) -> None:
    assert "TOLLMETER_KAFKA" in refused(Settings(kafka="127.0.0.1:1"), *arguments)
