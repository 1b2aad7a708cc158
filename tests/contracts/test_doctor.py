"""The doctor on a real line: well when it is, and what is wrong has its row, what was found and what to do."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from tollmeter.broker.client import kafka_admin
from tollmeter.cli.doctor import doctor
from tollmeter.doctor.check import Check
from tollmeter.doctor.run import examine
from tollmeter.schemas.topics import EVENTS
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack


def checks(settings: Settings, folder: Path | None = None) -> dict[str, Check]:
    return {check.name: check for check in examine(settings, folder)}


@pytest.fixture(name="mine")
def of_our_own(line_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A line whose data folder and spool are there and empty."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("TOLLMETER_DATA_DIR", str(folder))
    return line_settings.model_copy(update={"data_dir": folder, "spool_dir": str(tmp_path / "spool")})


def test_a_line_that_is_well(mine: Settings) -> None:
    found = checks(mine)
    assert {name for name, check in found.items() if check.state == "wrong"} == set()
    for name in ("broker", "topics and layout", "topics' configuration", "ClickHouse", "tables", "clock of ClickHouse"):
        assert found[name].state == "ok", found[name]
    assert found["backup"].do == "tollmeter backup FOLDER"
    assert all(check.do for check in found.values() if check.state in ("warning", "wrong"))


def test_what_is_wrong_is_said(mine: Settings, tmp_path: Path) -> None:
    async def shorten() -> None:
        async with kafka_admin(mine) as admin:
            config = {"retention.ms": "3600000", "message.timestamp.type": "CreateTime"}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, mine.topic(EVENTS), configs=config)])

    asyncio.run(shorten())
    client = connect(mine)
    client.command("DROP VIEW token_usage")
    client.close()
    mine.data_dir.chmod(0o755)
    (mine.data_dir / "last_backup.json").write_text(
        json.dumps({"folder": str(tmp_path / "gone"), "at": "2026-01-01T00:00:00+00:00"}), encoding="utf-8"
    )
    found = checks(mine, mine.data_dir)
    configuration = found["topics' configuration"]
    assert configuration.state == "wrong"
    assert "message.timestamp.type is CreateTime" in configuration.found
    assert "keeps its records for 1 h" in configuration.found
    assert found["tables"].state == "wrong"
    assert "0016_token_usage" in found["tables"].found
    assert found["rights of the data folder"].do == f"chmod -R go= {mine.data_dir}"
    assert found["backup"].state == "wrong"
    assert found["processes"].found == f"no stack runs on {mine.data_dir}"


def run(settings: Settings, *arguments: str) -> Any:
    return CliRunner().invoke(doctor, arguments, obj=settings, standalone_mode=False)


def test_nobody_answers(mine: Settings) -> None:
    away = mine.model_copy(update={"kafka": "127.0.0.1:9", "clickhouse": "http://127.0.0.1:9"})
    done = run(away, "--json")
    document = json.loads(done.output)
    found = {check["name"]: check for check in document["checks"]}
    assert found["broker"]["state"] == found["ClickHouse"]["state"] == "wrong"
    assert "tollmeter up" in found["broker"]["do"]
    assert found["versions"]["state"] == "ok"
    assert document["counts"]["wrong"] == 2
    assert done.return_value == 1, "the exit code"
    told = CliRunner().invoke(doctor, (), obj=away)
    assert told.exit_code == 1
    assert "127.0.0.1:9 does not answer" in told.output


def test_not_set_up(mine: Settings) -> None:
    other = mine.model_copy(update={"topic_prefix": "never.", "clickhouse_database": "never"})
    found = checks(other)
    assert (found["topics and layout"].state, found["topics and layout"].do) == ("wrong", "tollmeter setup")
    assert (found["ClickHouse"].state, found["ClickHouse"].do) == ("wrong", "tollmeter setup")


def test_another_prefix_of_passwords_is_not_told(mine: Settings) -> None:
    secret = "pass-4711-word"
    wrong = mine.model_copy(update={"clickhouse_password": type(mine.clickhouse_password)(secret)})
    shown = CliRunner().invoke(doctor, (), obj=wrong).output
    assert secret not in shown
    assert "Traceback" not in shown
