"""Commands find the running stack; what the environment says goes first, and credentials go to the stack alone."""

import stat
from pathlib import Path
from typing import Any

import pytest

from tollmeter import stacks
from tollmeter.embedded import ports, state
from tollmeter.embedded.environment import settings_environment
from tollmeter.embedded.jars import MissingToolError, cache_dir, fetch, java
from tollmeter.settings import Settings

STACK = {
    "pid": 1,
    "kafka": "127.0.0.1:40001",
    "topic_prefix": "a.",
    "group_prefix": "g",
    "clickhouse_database": "d",
    "clickhouse": "http://127.0.0.1:40002",
    "clickhouse_user": "default",
    "clickhouse_password": "pw-of-default",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("127.0.0.1:40001", "http://127.0.0.1:40002", "default", "pw-of-default", "a.", "d")),
        ({"KAFKA": "k:9"}, ("k:9", "http://127.0.0.1:40002", "default", "pw-of-default", "a.", "d")),
        ({"CLICKHOUSE": "http://other:8123"}, ("127.0.0.1:40001", "http://other:8123", "default", "", "a.", "d")),
        (
            {"CLICKHOUSE_USER": "reader", "CLICKHOUSE_PASSWORD": "r"},
            ("127.0.0.1:40001", "http://127.0.0.1:40002", "reader", "r", "a.", "d"),
        ),
        ({"KAFKA": ""}, ("127.0.0.1:40001", "http://127.0.0.1:40002", "default", "pw-of-default", "a.", "d")),
        (
            {"TOPIC_PREFIX": "mine."},
            ("127.0.0.1:40001", "http://127.0.0.1:40002", "default", "pw-of-default", "mine.", "d"),
        ),
    ],
    ids=["nothing set", "kafka", "clickhouse", "user", "set to nothing", "prefix"],
)
def test_overlay(environment: dict[str, str], expected: tuple[str, ...]) -> None:
    variables = {f"TOLLMETER_{name}": value for name, value in environment.items()}
    seen = stacks.overlay(Settings.from_environment(variables), variables, STACK)
    password = seen.clickhouse_password.get_secret_value()
    found = (seen.kafka, seen.clickhouse, seen.clickhouse_user, password, seen.topic_prefix, seen.clickhouse_database)
    assert found == expected
    assert "pw-of-default" not in repr(seen)


def test_a_stack_counts_only_while_its_supervisor_lives(tmp_path: Path) -> None:
    assert stacks.running(tmp_path) is None
    with state.owner(tmp_path):
        state.write(tmp_path, STACK)
        assert stacks.running(tmp_path) == STACK
        with pytest.raises(state.AlreadyRunningError, match=r"pid 1.*tollmeter down"), state.owner(tmp_path):
            pass
    assert stacks.running(tmp_path) is None
    state.write(tmp_path, STACK)  # as a killed supervisor leaves it
    assert stacks.running(tmp_path) is None


def test_describe_is_what_overlay_reads(tmp_path: Path) -> None:
    settings = Settings(kafka="127.0.0.1:1", clickhouse_password="p", topic_prefix="x.")  # type: ignore[arg-type]
    assert stacks.overlay(Settings(), {}, stacks.describe(settings)) == settings


def test_the_file_is_private(tmp_path: Path) -> None:
    state.write(tmp_path, STACK)
    state.write(tmp_path, STACK)
    assert stat.S_IMODE((tmp_path / stacks.FILE).stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [stacks.FILE]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kafka": "127.0.0.1:1", "clickhouse_password": "p", "data_dir": "/x y", "horizon_s": 5, "spool_dir": "s"},
        {"retention_alerts_days": 3, "clickhouse_timeout_s": 2.5, "kafka_security": "SASL_SSL"},
    ],
)
def test_a_child_builds_the_same_settings(changes: dict[str, Any]) -> None:
    settings = Settings.model_validate(changes)
    assert Settings.from_environment(settings_environment(settings)) == settings


def test_a_taken_port_is_replaced() -> None:
    [free] = ports.choose([0])
    assert ports.choose([free]) == [free]
    with ports.listener(free):
        [other] = ports.choose([free])
        assert other != free
        assert ports.answers(free)
    assert len(set(ports.choose([free, free, 0, 0]))) == 4


def test_missing_tools_name_both_ways_out(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    for call in (java, fetch):
        with pytest.raises(MissingToolError, match=r"(Java|Maven) was not found: install it .*`docker compose up`"):
            call(nothing)


def test_java_home_goes_first(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "java"
    command.parent.mkdir()
    command.touch(0o755)
    assert java({"JAVA_HOME": str(tmp_path), "PATH": ""}) == str(command)


def test_the_cache_follows_the_pom_and_the_environment(tmp_path: Path) -> None:
    assert cache_dir({"XDG_CACHE_HOME": str(tmp_path)}).parent == tmp_path / "tollmeter"
    assert cache_dir({"HOME": "/h"}).parent == Path("/h/.cache/tollmeter")
    assert cache_dir({"HOME": "/h"}).name.startswith("jars-")
