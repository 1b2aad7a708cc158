"""`tollmeter demo` on its own stack: stable keys, a sum that adds up, alerts of the leaks, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def test_demo_adds_up_and_leaves_nothing(tmp_path: Path, stack: object) -> None:
    """`stack` only says whether Java and Maven are there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    done = subprocess.run(
        [sys.executable, "-m", "tollmeter", "demo", "--events", "4000", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {
        "records",
        "ledger",
        "resends",
        "rejected",
        "cost_nano",
        "alerts",
        "alert_delay_p95_s",
        "events_per_second",
    }
    assert document["ledger"] == 4_000
    assert document["records"] == document["ledger"] + document["resends"] + document["rejected"]
    assert document["cost_nano"] > 20_000_000_000
    assert document["alerts"] >= 6
    assert list((tmp_path / ".tollmeter").iterdir()) == []
