"""By hand and by the printed example: an event goes to a real broker and its acknowledgement is told."""

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tollmeter.embedded.environment import settings_environment
from tollmeter.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "produce.py"


def run(*command: str, settings: Settings, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    environment |= settings_environment(settings)
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.stack
def test_send_waits_for_the_acknowledgement(line_settings: Settings, tmp_path: Path) -> None:
    command = ["-m", "tollmeter", "send", "--model", "gpt-4o", "--in", "1000", "--out", "200", "--json"]
    done = run(*command, settings=line_settings, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (UUID(answer["event_id"]).version, answer["acknowledged"]) == (7, True)
    assert answer["row"] is None, "no worker runs here"


@pytest.mark.stack
def test_the_example_runs_as_printed(line_settings: Settings, tmp_path: Path) -> None:
    done = run(str(EXAMPLE), settings=line_settings, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    event_id, said = done.stdout.strip().split(" ", 1)
    assert (UUID(event_id).version, said) == (7, "is in Kafka")


def test_an_unreachable_broker_is_one_line(tmp_path: Path) -> None:
    settings = Settings(kafka="127.0.0.1:1")
    done = run("-m", "tollmeter", "send", "--model", "gpt-4o", settings=settings, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tollmeter: nothing was sent to Kafka at 127.0.0.1:1 (")
    assert done.stderr.count("\n") == 1


def test_counts_below_zero_are_refused(tmp_path: Path) -> None:
    command = ["-m", "tollmeter", "send", "--model", "gpt-4o", "--in", "-5"]
    done = run(*command, settings=Settings(kafka="127.0.0.1:1"), cwd=tmp_path)
    assert done.returncode == 2
    assert "--in" in done.stderr
