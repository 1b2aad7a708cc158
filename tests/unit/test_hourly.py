"""The check that runs by itself: when it is due, where it is ours, one at a time, and its end is told."""

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from tollmeter.cli.verify import verify
from tollmeter.streams.hourly import FIRST_SHARE, Hourly, verify_command

EVERY_S = 60.0


def run(path: Path, steps: list[tuple[float, bool]], code: str = "", every_s: float = EVERY_S) -> int:
    """Return how often the command was run over (time, ours) steps, each after the one before has ended."""
    program = f"open({str(path)!r}, 'a').write('x'); import sys; {code or 'pass'}"

    async def scenario() -> None:
        hourly = Hourly([sys.executable, "-c", program], every_s)
        for now, ours in steps:
            hourly.step(now, ours=ours)
            hourly.step(now, ours=ours)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(scenario())
    return len(path.read_text()) if path.exists() else 0


def test_runs_sooner_first_and_then_once_an_interval(tmp_path: Path) -> None:
    first = EVERY_S / FIRST_SHARE
    assert run(tmp_path / "a", [(0.0, True), (first - 1, True)]) == 0
    assert run(tmp_path / "b", [(0.0, True), (first, True), (first + EVERY_S - 1, True)]) == 1
    assert run(tmp_path / "c", [(0.0, True), (first, True), (first + EVERY_S, True)]) == 2


def test_runs_only_where_the_first_partition_is_and_never_at_zero(tmp_path: Path) -> None:
    assert run(tmp_path / "a", [(0.0, False), (EVERY_S, False)]) == 0
    assert run(tmp_path / "b", [(0.0, False), (EVERY_S, False), (EVERY_S + 1, True)]) == 1
    assert run(tmp_path / "c", [(0.0, True), (1e9, True)], every_s=0.0) == 0


def test_says_how_it_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    steps = [(0.0, True), (EVERY_S, True)]
    run(tmp_path / "a", steps)
    run(tmp_path / "b", steps, "print('one', file=sys.stderr); sys.exit('3 differences')")
    assert "no differences" in caplog.text
    assert "exit code 1: 3 differences" in caplog.text


def test_command_is_one_that_verify_understands() -> None:
    arguments = verify_command(3_600.0)
    assert arguments[:4] == [sys.executable, "-m", "tollmeter", "verify"]
    parsed = verify.make_context("verify", arguments[4:]).params
    assert (parsed["since"], parsed["alert"], parsed["mend"], parsed["deep"]) == (10_800.0, True, False, False)
