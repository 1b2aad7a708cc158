"""The check that runs by itself: when it is due, where it is ours, one at a time, and its end is told."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tollmeter.cli.verify import verify
from tollmeter.settings import Settings
from tollmeter.streams.engine import metrics
from tollmeter.streams.ledger.self_check import FIRST_SHARE, SelfCheck, price_missing, tell_compared, verify_command
from tollmeter.streams.ledger.self_check import tell_differences as tell

EVERY_S = 60.0


def run(
    path: Path,
    steps: list[tuple[float, bool]],
    code: str = "",
    every_s: float = EVERY_S,
    needed: Callable[[], bool] | None = None,
) -> int:
    """Return how often the command was run over (time, ours) steps, each after the one before has ended."""
    program = f"open({str(path)!r}, 'a').write('x'); import sys; {code or 'pass'}"

    async def scenario() -> None:
        hourly = SelfCheck([sys.executable, "-c", program], every_s, None, needed)
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


def test_failure_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(
        tmp_path / "b",
        [(0.0, True), (EVERY_S, True)],
        "print('one\\nClickHouse is away', file=sys.stderr); sys.exit(2)",
    )
    assert "exit code 2: ClickHouse is away" in caplog.text


@pytest.mark.parametrize("waits", [False, True])
def test_no_process_is_started_for_nothing(tmp_path: Path, waits: bool) -> None:
    assert run(tmp_path / "a", [(0.0, True), (EVERY_S, True)], needed=lambda: waits) == int(waits)


def test_what_cannot_be_asked_is_done() -> None:
    assert price_missing(Settings(clickhouse="http://127.0.0.1:1", clickhouse_timeout_s=1))


def test_findings_become_metrics(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = [
        {"name": "missing_in_ledger", "amount": 3},
        {"name": "missing_in_ledger", "amount": 4},
        {"name": "id_with_several_times", "amount": 2},
    ]
    tell(b'{"differences": []}', 100.0)
    tell(json.dumps({"differences": found}).encode(), 200.0)
    values = (metrics.LEDGER_MISSING, metrics.LEDGER_DUPLICATE, metrics.VERIFY_SUCCESS)
    assert [gauge._value.get() for gauge in values] == [7, 2, 100.0]
    assert "id_with_several_times 2, missing_in_ledger 7" in caplog.text
    tell(b"no document", 300.0)
    assert metrics.VERIFY_SUCCESS._value.get() == 100.0
    tell(b'{"differences": []}', 400.0)
    assert [gauge._value.get() for gauge in values] == [0, 0, 400.0]


def test_command_is_one_that_verify_understands() -> None:
    arguments = verify_command(3_600.0)
    assert arguments[:4] == [sys.executable, "-m", "tollmeter", "verify"]
    parsed = verify.make_context("verify", arguments[4:]).params
    assert (parsed["since"], parsed["alert"], parsed["as_json"]) == (10_800.0, True, True)
    assert (parsed["mend"], parsed["deep"], parsed["first_wins"]) == (False, False, True)


def test_bills_that_differ_are_told(caplog: pytest.LogCaptureFixture) -> None:
    found = [{"provider": "openai", "month": "2026-11", "gaps": 2}, {"provider": "aws", "month": "2026-11", "gaps": 0}]
    tell_compared(json.dumps({"compared": found}).encode(), 0.0)
    assert caplog.messages == ["the bill of openai for 2026-11 differs on 2 closed days"]
    tell_compared(b"nonsense", 0.0)
    assert "nothing that can be read" in caplog.messages[-1]
