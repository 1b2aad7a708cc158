"""The registry on a real line: keys, tokens and labels come and go; ClickHouse has them, and nobody has a secret."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from tests.workers import Workers
from tollmeter.admin import registry, secret
from tollmeter.broker.registry import RegistryError, read
from tollmeter.cli.key import key
from tollmeter.cli.server_key import server_key
from tollmeter.cli.token import token
from tollmeter.schemas.registry import ServerKey, TrackingToken, digest
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

COMMANDS = {"key": key, "server-key": server_key, "token": token}
NOW = datetime(2026, 11, 29, 10, 0, tzinfo=UTC)


def run(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(COMMANDS[arguments[0]], arguments[1:], obj=settings)


def said(settings: Settings, *arguments: str) -> Any:
    result = run(settings, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(name="line")
def line_with_secret(line_settings: Settings) -> Settings:
    line_settings.data_dir.mkdir(parents=True)
    secret.ensure(line_settings.data_dir)
    return line_settings


@pytest.mark.stack
def test_a_key_is_made_rotated_switched_off_and_gone(line: Settings) -> None:
    made = said(line, "server-key", "create", "--org", "acme", "--role", "read", "--name", "board")
    first = made["secret"]
    (row,) = [entry for entry in read(line).values() if isinstance(entry, ServerKey)]
    under = secret.secret_of(line)
    assert (row.digest, row.org_id, row.role, row.may_set_identity) == (digest(under, first), "acme", "read", False)
    assert first not in row.model_dump_json()
    again = said(line, "server-key", "rotate", made["id"], "--overlap", "1h")
    (row,) = [entry for entry in read(line).values() if isinstance(entry, ServerKey)]
    assert (row.digest, row.earlier_digest) == (digest(under, again["secret"]), digest(under, first))
    assert row.earlier_until is not None
    assert timedelta(minutes=59) < row.earlier_until - datetime.now(UTC) <= timedelta(hours=1)
    assert said(line, "server-key", "rotate", made["id"], "--now")["rotated_at"]
    (row,) = [entry for entry in read(line).values() if isinstance(entry, ServerKey)]
    assert (row.earlier_digest, row.earlier_until) == (None, None)
    assert run(line, "server-key", "disable", made["id"]).exit_code == 0
    (listed,) = said(line, "server-key", "list")
    assert (listed["active"], listed["used_at"]) == (False, None)
    assert not {"digest", "earlier_digest"} & listed.keys()
    refused = run(line, "server-key", "enable", made["id"], "--org", "other")
    assert (refused.exit_code, "no key of the server has the id" in refused.stderr) == (2, True)
    assert run(line, "server-key", "delete", made["id"]).exit_code == 0
    assert said(line, "server-key", "list") == []


@pytest.mark.stack
def test_a_key_needs_the_secret_of_the_others(line: Settings) -> None:
    registry.create_key(line, "acme", "admin", "ann", NOW)
    other = line.model_copy(update={"secret": SecretStr("another-secret-of-a-length")})
    with pytest.raises(RegistryError, match="under another secret"):
        registry.create_key(other, "acme", "admin", "bob", NOW)
    file = line.data_dir / secret.FILE
    assert oct(file.stat().st_mode)[-3:] == "600"
    file.chmod(0o644)
    refused = run(line, "server-key", "create", "--org", "a", "--role", "read", "--name", "n")
    assert (refused.exit_code, "can be read by other users" in refused.stderr) == (2, True)
    file.unlink()
    refused = run(line, "server-key", "create", "--org", "a", "--role", "read", "--name", "n")
    assert (refused.exit_code, "set TOLLMETER_SECRET" in refused.stderr) == (2, True)


@pytest.mark.stack
def test_tokens_and_labels(line: Settings) -> None:
    made = said(line, "token", "create", "--org", "acme", "--name", "shop")
    assert len(made["value"]) == 22
    assert run(line, "token", "disable", made["id"], "--org", "acme").exit_code == 0
    assert [(row["name"], row["active"]) for row in said(line, "token", "list", "--org", "acme")] == [("shop", False)]
    assert said(line, "token", "list", "--org", "other") == []
    old = TrackingToken(
        id=registry.token_id("x" * 22), name="old", value="x" * 22, org_id="acme", created_at=NOW, active=True
    )
    assert [registry.put_tokens(line, [old]) for _ in range(2)] == [1, 0]
    with pytest.raises(RegistryError, match="belongs to organisation acme"):
        registry.put_tokens(line, [old.model_copy(update={"org_id": "other"})])
    assert run(line, "token", "delete", made["id"]).exit_code == 0
    assert [row["name"] for row in said(line, "token", "list")] == ["old"]

    rows = said(line, "key", "set", "k-old", "k-new", "--label", "shop", "--owner", "ann", "--cost-centre", "4711")
    assert [(row["api_key_id"], row["label"], row["org_id"]) for row in rows] == [
        ("k-old", "shop", "*"),
        ("k-new", "shop", "*"),
    ]
    said(line, "key", "set", "k-old", "--label", "theirs", "--org", "other")
    assert [row["label"] for row in said(line, "key", "list", "--org", "acme")] == ["shop", "shop"]
    assert run(line, "key", "delete", "k-new").exit_code == 0
    assert [row["label"] for row in said(line, "key", "list", "--org", "other")] == ["shop", "theirs"]
    refused = run(line, "key", "set", "sk-" + "a" * 40, "--label", "x")
    assert (refused.exit_code, "looks like the key itself" in refused.stderr) == (2, True)


@pytest.mark.stack
def test_the_copy_in_clickhouse_follows_and_has_no_digest(
    line: Settings, workers: Workers, eventually: Callable[..., Any]
) -> None:
    workers("ledger")
    issued = registry.create_key(line, "acme", "ingest", "app", NOW, may_set_identity=True)
    made = registry.create_token(line, "acme", "shop", NOW, 22)
    registry.label_keys(line, "acme", ["k1", "k2"], "shop", "ann")
    registry.label_keys(line, "acme", ["k1"], "shop 2", "bob")
    registry.unlabel_key(line, "acme", "k2")
    client = connect(line)

    def labels() -> list[dict[str, Any]]:
        return client.query("SELECT org_id, api_key_id, label, owner, cost_centre FROM key_labels")

    wanted = {"org_id": "acme", "api_key_id": "k1", "label": "shop 2", "owner": "bob", "cost_centre": ""}
    eventually(lambda: labels() == [wanted], 30)
    (key_row,) = client.query("SELECT id, org_id, role, may_set_identity, active, created_at, used_at FROM server_keys")
    assert (key_row["id"], key_row["role"], key_row["created_at"], key_row["used_at"]) == (
        issued.key.id,
        "ingest",
        NOW,
        None,
    )
    (token_row,) = client.query("SELECT token, active FROM tracking_tokens")
    assert (token_row["token"], token_row["active"]) == (made.value, True)
    everything = json.dumps(client.query("SELECT key, value FROM registry"))
    client.close()
    assert issued.key.digest not in everything
    assert issued.secret not in everything


def test_nobody_there_is_one_line() -> None:
    nowhere = Settings(kafka="127.0.0.1:1", secret=SecretStr("a-secret-of-some-length"))
    for arguments in (("token", "list"), ("key", "list"), ("server-key", "list")):
        result = run(nowhere, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "no Kafka broker answers at 127.0.0.1:1" in result.stderr
