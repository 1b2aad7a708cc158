"""What rules would have told of a history, and what was lost before: worked out by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.alert_events import alert, budget, event, later
from tests.watch_rows import LOW, frame, row
from tollmeter.admin.replay.history import History
from tollmeter.admin.replay.lost import Lost, Minute, lost
from tollmeter.admin.replay.told import Telling
from tollmeter.cli import demo_report
from tollmeter.cli.demo_run import Run
from tollmeter.schemas.policy import Member, Policy
from tollmeter.streams.watch.thresholds import changed_limits, shipped_limits
from tollmeter.yaml_files import YamlError

USD, HOUR, DAY = 10**9, 3_600, 86_400
START = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())


def minutes(first: float, *spent: tuple[float, float]) -> dict[int, Minute]:
    """Return cost by minute of (seconds since the start, USD), one call each; `first`: when the first alert was."""
    return {
        START + int(at) // 60 * 60: Minute(int(usd * USD), int(usd * USD) * (START + at <= first)) for at, usd in spent
    }


USUAL = [(n * 600, 1.0) for n in range(6)]
"""Six windows at one dollar, on the first day."""


@pytest.mark.parametrize(
    ("spent", "first", "last", "began", "usual", "before", "total"),
    [
        pytest.param([(2 * DAY, 10), (2 * DAY + 60, 5)], 30, 30, 0, 1, 10, 14, id="found within its first window"),
        pytest.param(
            [(2 * DAY, 10), (2 * DAY + 600, 10), (2 * DAY + 1_200, 10)], 1_200, 1_200, 0, 1, 27, 27, id="in the third"
        ),
        pytest.param([(2 * DAY - 600, 2), (2 * DAY, 10)], 0, 0, 0, 1, 9, 9, id="what is not dear is not of it"),
        pytest.param([(2 * DAY, 10), (2 * DAY + 600, 7)], 0, 0, 0, 1, 10, 15, id="it goes on after the alert"),
        pytest.param([(2 * DAY, 10), (2 * DAY + 90, 5)], 80, 80, 0, 1, 10, 14, id="later in the minute of the alert"),
    ],
)
def test_money_lost(
    spent: list[tuple[int, float]], first: int, last: int, began: int, usual: int, before: int, total: int
) -> None:
    at = START + 2 * DAY
    found = lost(minutes(at + first, *USUAL, *spent), at + first, at + last)
    assert (found.began_s - at, found.usual_nano // USD) == (began, usual)
    assert (found.before_nano // USD, found.all_nano // USD) == (before, total)


def test_what_is_usual_is_what_was_before_the_day_of_the_alert_and_nothing_without_a_past() -> None:
    first = START + 199 * 600
    found = lost(minutes(first, *((n * 600, 1.0) for n in range(200))), first, first)
    assert found.usual_nano == 1 * USD, "windows of more than a day ago are what is usual"
    assert lost(minutes(START, (0, 4.0)), START, START) == Lost(START, START + 600, 0, 4 * USD, 4 * USD)


def test_telling_is_notifys() -> None:
    telling = Telling()
    made = [alert("spend_spike", number=0), alert("fan_out", number=1, at=later(60))]
    made += [alert("spend_spike", number=2, at=later(4 * HOUR)), alert("spend_spike", number=3, at=later(90 * HOUR))]
    telling.take(map(event, made))
    found = telling.found()
    assert [(one.kinds, one.alerts, one.told) for one in found] == [
        (("spend_spike", "fan_out"), 3, 2),  # held, then back after it was over
        (("spend_spike",), 1, 1),
    ]
    assert [one.first_s for one in found] == [later(0).timestamp(), later(90 * HOUR).timestamp()]


def rows(at_s: float, *calls: dict[str, Any]) -> pl.DataFrame:
    return frame([row(int(at_s) * 100 + n, START + at_s, **call) for n, call in enumerate(calls)])


def test_a_history_is_folded_in_order_of_its_own_time() -> None:
    """A day with a past, then one body again and again: told at the minute in which it crosses."""
    policy = Policy(org_id="acme", monthly_limit_micro=1_000_000)
    begin = datetime.fromtimestamp(START, UTC)
    history = History(replace(LOW, sources=1), begin, [policy], [Member(org_id="acme", name="u", groups=("g",))])
    done: list[int] = []
    for hour in range(30):
        page = rows(hour * HOUR, {"cost_nano": USD // 100, "prompt_hash": f"{hour:064x}"})
        assert [one for one in history.fold(page, done.append) if one.kind == "same_body"] == []
    body = {"cost_nano": USD // 100, "prompt_hash": "f" * 64}
    calls = [row(9_000 + n, START + 31 * HOUR + at, **body) for n, at in enumerate((0, 60, 60, 60))]
    leak = frame(calls)
    # the rows of the ledger say that they came much later: an import
    leak = leak.with_columns(pl.col("received_at") + timedelta(days=9))
    found = [one for one in history.fold(leak, done.append) if one.kind == "same_body"]
    assert [one.received_at.timestamp() for one in found] == [START + 31 * HOUR + 60]
    assert sum(done) == 34


def test_figures_of_a_file_stand_in_for_those_that_ship(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("fan_out:\n  least: 9\nfloor_nano: {value: 5, rests_on: 'ours'}\n")
    limits = changed_limits(file)
    assert (limits.fan_out.least, limits.floor_nano, limits.fan_out.factor) == (9, 5, shipped_limits().fan_out.factor)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fan_out:\n  least: many\n", ":2: fan_out.least: "),
        ("fan_out:\n  least: 4\n  most: 5\n", ":3: fan_out.most: "),
        ("fan_in: {least: 4}\n", ":1: fan_in: "),
        ("fan_out: [\n", "rules.yaml"),
        ("4\n", "figures by rule are expected"),
    ],
)
def test_a_broken_file_is_refused_with_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(YamlError) as caught:
        changed_limits(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_demo_shows_the_alerts_of_a_leaking_key_as_one_incident() -> None:
    kinds = ("spend_spike", "spend_spike", "ingest_loop", "fan_out", "dominance")
    leaking = [event(alert(kind, number=number, at=later(number))) for number, kind in enumerate(kinds)]
    events = [*leaking, event(budget(80)), event(alert("spend_spike", number=9, name="another", at=later(9)))]
    run = Run(alerts=[(one, 0.1) for one in events])
    document = run.document()
    assert document["alerts"] == 7
    assert [(one["name"], one["kinds"], one["alerts"]) for one in document["incidents"]] == [
        ("0123456789ab3f2a", ["spend_spike", "ingest_loop", "fan_out", "dominance"], 5),
        ("another", ["spend_spike"], 1),
    ]
    assert [one.told for one in run.incidents()] == [1, 1]
    assert [demo_report._incident(one)["who"] for one in run.incidents()] == [
        "key …3f2a of acme",
        "key another of acme",
    ]
