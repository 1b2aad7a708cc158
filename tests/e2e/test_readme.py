"""The README as a newcomer follows it: `tollmeter up`, the snippet as printed, the report that shows the call."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fake_provider import serving
from tests.forkserver import ForkServer

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}


def tollmeter(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tollmeter", *arguments],
        cwd=folder,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )


@dataclass(frozen=True)
class Folder:
    """A folder in which a stack runs, and what runs commands there that begin with their imports done."""

    path: Path
    warm: ForkServer

    def tollmeter(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.warm.run(arguments, environment(), folder=self.path, timeout=600)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, forkserver: ForkServer) -> Iterator[Folder]:
    """Started as printed. Missing Java or Maven: skipped here, an error in CI."""
    folder = tmp_path_factory.mktemp("readme")
    started = tollmeter(folder, "up", "--detach")
    if started.returncode == 2 and re.search(r"Java|Maven", started.stderr) and not os.environ.get("CI"):
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    try:
        yield Folder(folder, forkserver)
    finally:
        stopped = tollmeter(folder, "down")
        assert stopped.returncode == 0, stopped.stderr


def snippet(number: int) -> str:
    """Return one of the Python blocks, as printed."""
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(found[number])


def run_snippet(up: Folder, number: int, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", snippet(number)],
        cwd=up.path,
        env=environment() | more,
        check=False,
        capture_output=True,
        text=True,
    )


def shown(up: Folder) -> Any:
    return json.loads(up.tollmeter("report", "calls", "--top", "20", "--json").stdout)["rows"]


def test_snippets_as_printed(up: Folder, eventually: Callable[..., Any]) -> None:
    published = run_snippet(up, 0)
    assert published.returncode == 0, published.stderr
    assert published.stdout.endswith("is in Kafka\n")
    (call,) = eventually(lambda: shown(up), timeout=60, every=0.5)
    assert (call["model_used"], call["pt"], call["ot"]) == ("gpt-4o", 1000, 200)
    assert float(call["est_cost"]) == pytest.approx(0.0045)  # 1,000 in at 2.50 and 200 out at 10 USD per million

    sent = up.tollmeter("send", "--model", "gpt-4o", "--in", "1000", "--out", "200")
    assert sent.returncode == 0, sent.stderr
    assert len(eventually(lambda: shown(up) if len(shown(up)) == 2 else None, timeout=60, every=0.5)) == 2

    with serving() as provider:
        guarded = run_snippet(up, 1, OPENAI_BASE_URL=f"{provider.url}/v1", OPENAI_API_KEY="sk-0123456789abcdef0123")
        assert guarded.returncode == 0, guarded.stderr
        assert len(provider.asked) == 1, "the second call never left"
    served, refused = guarded.stdout.splitlines()
    assert "cost_nano=5000000, price_status='PRICED'" in served
    assert "'error': 'cost_cap'" in refused
    assert refused.startswith("402 ")
    calls = eventually(lambda: shown(up) if len(shown(up)) == 4 else None, timeout=60, every=0.5)
    costs = sorted(float(call["est_cost"]) for call in calls)
    assert costs == pytest.approx([0.0, 0.0045, 0.0045, 0.005]), "refused: a row that costs nothing"
    telemetry(up, eventually)


def telemetry(up: Folder, eventually: Callable[..., Any]) -> None:
    """What "Send your telemetry" says, as printed; the server's port is the one that it got."""
    section = (ROOT / "README.md").read_text().partition("## Send your telemetry")[2].partition("\n## ")[0]
    variables = dict(re.findall(r"^export (\w+)=(\S+)$", section, re.MULTILINE))
    port = json.loads((up.path / ".tollmeter" / "stack.json").read_text())["server"].rpartition(":")[2]
    variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = variables["OTEL_EXPORTER_OTLP_ENDPOINT"].replace("5001", port)
    sent = run_snippet(up, 2, **variables)
    assert (sent.returncode, sent.stderr) == (0, "")
    by_user = ("report", "spend", "--by", "user", "--user", "zoe", "--json")
    (row,) = eventually(lambda: json.loads(up.tollmeter(*by_user).stdout)["rows"], timeout=60, every=0.5)
    assert (row["calls"], row["usd_est"]) == (1, 0.0045)
    (words,) = re.findall(r"^tollmeter (run .*?) +#", section, re.MULTILINE)
    (up.path / "app.py").write_text("print('ran')", encoding="utf-8")
    ran = tollmeter(up.path, *[sys.executable if word == "python" else word for word in words.split()])
    assert (ran.stdout, ran.returncode) == ("ran\n", 0)


def test_the_first_minutes_show_an_alert(up: Folder) -> None:
    """The commands below "In a second terminal", as printed; the last one waits, so it is ended once it has shown."""
    readme = (ROOT / "README.md").read_text()
    block = readme.partition("In a second terminal:")[2].partition("```sh\n")[2].partition("```")[0]
    lines = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert lines[-1] == ["alerts", "follow"]
    for words in lines[:-1]:
        done = up.tollmeter(*words)
        assert done.returncode == 0, (words, done.stderr)
    follow = subprocess.Popen(
        [sys.executable, "-m", "tollmeter", *lines[-1]],
        cwd=up.path,
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert follow.stdout is not None
    try:
        shown = next(line for line in follow.stdout if "%" in line)  # what the snippets were refused is told, too
    finally:
        follow.kill()
        follow.communicate()
    assert "demo" in shown
