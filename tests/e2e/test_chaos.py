"""Chaos on a line of its own: nothing lost, nothing double, every window and alert right."""

import json
import os
import subprocess
import sys

import pytest

COUNTS = (
    "lost",
    "double",
    "wrong_rows",
    "unknown_rows",
    "wrong_windows",
    "wrong_rollups",
    "alerts_missing",
    "alerts_wrong",
    "dead_letters_missing",
)


def chaos(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TOLLMETER_")}
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments],
        capture_output=True,
        text=True,
        timeout=6_000,
        check=False,
        env={**plain, "PYTHONPATH": os.pathsep.join(("src", ".")), **environment},
    )


@pytest.mark.stack
@pytest.mark.timeout(1_600)
@pytest.mark.parametrize(
    ("minutes", "brokers", "faults", "events"),
    [
        (0.05, 1, 1, 500),
        pytest.param(3.0, 1, 2, 5_000, marks=pytest.mark.nightly),
        pytest.param(3.0, 3, 2, 5_000, marks=pytest.mark.nightly),
    ],
)
def test_nothing_is_wrong_after_minutes_of_chaos(
    stack: object, minutes: float, brokers: int, faults: int, events: int
) -> None:
    """`stack` says whether Java and Maven are there; chaos starts its own. The short form is one fault."""
    done = chaos("--minutes", str(minutes), "--brokers", str(brokers), "--seed", "7", "--json")
    assert done.stdout, done.stderr[-3_000:]
    found = json.loads(done.stdout)
    assert {name: found[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0), done.stderr[-3_000:]
    assert done.returncode == 0, done.stderr[-3_000:]
    assert found["faults"] == sum(row["injected"] for row in found["by_fault"].values()) >= faults
    assert found["events"] > events
    assert found["poison"] > 0
    assert found["alerts"] > 10
    assert found["producer"]["given_up"] == 0


@pytest.mark.parametrize("name", ["TOLLMETER_KAFKA", "TOLLMETER_CLICKHOUSE"])
def test_any_other_address_is_refused(name: str) -> None:
    done = chaos("--minutes", "1", **{name: "127.0.0.1:9092"})
    assert done.returncode == 2
    assert done.stdout == ""
    assert name in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
