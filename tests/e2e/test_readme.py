"""The README as a newcomer follows it: `tollmeter up`, the snippet as printed, the report that shows the call."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}


def tollmeter(folder: Path, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tollmeter", *arguments], cwd=folder, env=environment(), check=False,
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a stack runs. Missing Java or Maven: skipped here, an error in CI."""
    started = tollmeter(tmp_path, "up", "--detach")
    if started.returncode == 2 and re.search(r"Java|Maven", started.stderr) and not os.environ.get("CI"):
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    try:
        yield tmp_path
    finally:
        stopped = tollmeter(tmp_path, "down")
        assert stopped.returncode == 0, stopped.stderr


def test_snippet_as_printed(up: Path, eventually: Callable[..., Any]) -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=up,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("is in Kafka\n")

    def shown() -> Any:
        return json.loads(tollmeter(up, "report", "calls", "--top", "20", "--json").stdout)

    (call,) = eventually(shown, timeout=60, every=0.5)
    assert (call["model_used"], call["pt"], call["ot"]) == ("gpt-4o", 1000, 200)
    assert float(call["est_cost"]) == pytest.approx(0.0045)  # 1,000 in at 2.50 and 200 out at 10 USD per million

    sent = tollmeter(up, "send", "--model", "gpt-4o", "--in", "1000", "--out", "200")
    assert sent.returncode == 0, sent.stderr
    assert len(eventually(lambda: shown() if len(shown()) == 2 else None, timeout=60, every=0.5)) == 2
