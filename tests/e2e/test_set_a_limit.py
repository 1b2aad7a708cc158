"""The README's "Set a limit" as printed: a user runs into a limit, people are told once, the next call is refused."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forkserver import ForkServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]  # a dozen commands, one after the other

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Set a limit\n")[2].partition("\n## ")[0]
ASK = """
from tollmeter import Guard
with Guard() as guard:
    assert guard.ready(600), guard.problem
    for user in ("ann", "bob"):
        print(guard.check("gpt-4o", prompt_tokens=1000, max_output_tokens=200, org="demo", user=user))
"""


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    return str(found)


class Terminal:
    """Types lines of the README in a folder; what is exported stays."""

    def __init__(self, folder: Path, warm: ForkServer) -> None:
        self.folder, self._warm = folder, warm
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
        self.environment["TOLLMETER_HEALTH_PORT"] = "0"  # other tests start stacks at the same time

    def type(self, line: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = value
            words = ["true"]
        elif words[0] == "tollmeter" and words[1] != "up":
            return self._warm.run([*words[1:], *more], self.environment, folder=self.folder, timeout=600)
        elif words[0] == "tollmeter":
            words = [sys.executable, "-m", *words, *more]
        return subprocess.run(words, cwd=self.folder, env=self.environment, check=False, capture_output=True, text=True)


@pytest.fixture
def terminal(tmp_path: Path, forkserver: ForkServer) -> Iterator[Terminal]:
    (tmp_path / "routes.yaml").write_text(block("yaml"))
    made = Terminal(tmp_path, forkserver)
    yield made
    made.type("tollmeter down")


def test_set_a_limit_as_printed(terminal: Terminal, eventually: Callable[..., Any]) -> None:
    lines = block("sh").strip().split("\n")
    for line in lines:
        done = terminal.type(line)
        if re.search(r"Java|Maven", done.stderr) and done.returncode == 2 and not os.environ.get("CI"):
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, f"{line}: {done.stdout} {done.stderr}"

    def told() -> Any:
        listed = json.loads(terminal.type("tollmeter alerts list --json").stdout)
        of_ann = {a["data"]["threshold_pct"]: a for a in listed if a["data"]["name"] == "ann"}
        return of_ann if len(of_ann) == 4 and all("state" in a for a in of_ann.values()) else None

    of_ann = eventually(told, timeout=60, every=0.5)
    assert sorted(of_ann) == [20, 50, 80, 100]
    lines = (terminal.folder / ".tollmeter/logs/notify.log").read_text().split("\n")
    delivered = Counter(words[1] for words in map(str.split, lines) if len(words) > 2 and len(words[1]) == 32)
    for pct, alert in of_ann.items():  # those behind the mute are listed and told to nobody
        assert delivered[alert["id"]] == (0 if alert.get("held") == "muted" else 1), (pct, alert)
    assert delivered[of_ann[20]["id"]] == 1

    asked = eventually(lambda: _refused(terminal), timeout=60, every=0.5)
    assert "daily cost limit reached" in asked[0]
    assert asked[1].startswith("Allow(")

    report = eventually(lambda: _counted(terminal), timeout=60, every=0.5)
    assert report["verdict"] == "OK"
    budget = report["budgets"][0]
    assert (budget["calls"], budget["tokens"], budget["spent"], budget["remaining"]) == (3, 3_600, 0.0135, 9.9865)

    _raised_limit(terminal, set(delivered), eventually)
    rows = json.loads(terminal.type("tollmeter status --json").stdout)["processes"]
    assert {row["name"]: row["up"] for row in rows}["notify"]


def _raised_limit(terminal: Terminal, before: set[str], eventually: Callable[..., Any]) -> None:
    """A raised limit closes its alerts; of the new limit each threshold above the present percentage is told once."""
    for line in (
        "tollmeter alerts mute --org demo --scope user --name ann --off",
        "tollmeter policy set --org demo --scope user --name ann --daily 0.05",  # 27 % of it are spent
        "tollmeter send --org demo --user ann --model gpt-4o --in 4000 --out 400",  # 55 %
    ):
        done = terminal.type(line)
        assert done.returncode == 0, f"{line}: {done.stderr}"

    def settled() -> Any:
        listed = json.loads(terminal.type("tollmeter alerts list --json").stdout)
        of_ann = [a for a in listed if a["data"]["name"] == "ann"]
        raised = [a for a in of_ann if a["data"]["limit_nano"] == 50_000_000]
        states = Counter(a.get("state") for a in of_ann)
        return raised if len(of_ann) == 5 and states == {"resolved": 4, "open": 1} else None

    (raised,) = eventually(settled, timeout=60, every=0.5)
    assert raised["data"]["threshold_pct"] == 50, "20 % were passed under the limit before"
    assert raised["id"] not in before
    lines = (terminal.folder / ".tollmeter/logs/notify.log").read_text().split("\n")
    assert sum(raised["id"] in line and " [" in line for line in lines) == 1


def _refused(terminal: Terminal) -> list[str] | None:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=terminal.folder,
        env=terminal.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    answers = done.stdout.strip().split("\n")
    return answers if answers[0].startswith("Deny(") else None


def _counted(terminal: Terminal) -> dict[str, Any] | None:
    report: dict[str, Any] = json.loads(terminal.type("tollmeter report budget --json").stdout)
    return report if report["budgets"][0]["calls"] == 3 else None
