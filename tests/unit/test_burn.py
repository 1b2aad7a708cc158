"""Burn rate and forecast of budgets: told at their figures, once, and with the hours that are left."""

from datetime import UTC, datetime

import pytest

from tests.suspects import USD, a_log, told
from tests.watch_rows import new_state
from tollmeter.schemas.policy import Policy
from tollmeter.streams.rules.windows.controls import fold_policy

MONTH = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
HOUR, DAY = 3_600, 86_400


def paces(monthly_usd: int, *spent: tuple[int, float], **limits: int) -> list[tuple[str, dict[str, object], str]]:
    """Return kind, facts and text of what is told of a budget's pace while (second of the month, USD) are spent."""
    state = new_state()
    policy = Policy(org_id="acme", monthly_limit_micro=monthly_usd * 1_000_000, **limits)  # type: ignore[arg-type]
    fold_policy(state, policy, 0, MONTH * 1_000)
    log = a_log((MONTH + at_s, [{"cost_nano": int(usd * USD)}]) for at_s, usd in spent)
    alerts = told((record._replace(offset=record.offset + 1) for record in log), state)
    return [(a.kind, a.facts, a.text) for a in alerts if a.kind in ("burn_rate", "forecast")]


@pytest.mark.parametrize(
    ("spent", "hours"),
    [
        pytest.param([(0, 2.49)], None, id="less than a quarter of a day in an hour"),
        pytest.param([(0, 2.5)], 1, id="a quarter of a day in an hour"),
        pytest.param([(0, 1.5), (HOUR - 1, 1)], 1, id="in one hour of the clock"),
        pytest.param([(n * HOUR, 0.99) for n in range(6)], None, id="less than 60 % in six hours"),
        pytest.param([(n * HOUR, 1.0) for n in range(6)], 6, id="60 % in six hours"),
        pytest.param([(n * 2 * HOUR, 1.0) for n in range(6)], None, id="60 % in twelve hours"),
        pytest.param([(0, 300)], None, id="nothing is left to warn of"),
    ],
)
def test_burns_of_a_monthly_budget_of_300(spent: list[tuple[int, float]], hours: int | None) -> None:
    found = [facts["burn_hours"] for kind, facts, _ in paces(300, *spent) if kind == "burn_rate"]
    assert found == ([] if hours is None else [hours])


def test_below_one_unit_of_the_currency_a_pace_is_nobodys_concern() -> None:
    assert paces(6, (0, 0.99)) == []
    assert [kind for kind, *_ in paces(6, (0, 1.0))] == ["burn_rate"]


def test_a_burn_is_told_once_a_day_with_what_is_left() -> None:
    found = paces(300, (0, 5), (60, 5), (2 * HOUR, 5), (DAY, 5))
    assert [(kind, facts["hours_left"]) for kind, facts, _ in found] == [("burn_rate", 59), ("burn_rate", 56)]
    assert found[0][2] == (
        "acme spent 5.00 USD within an hour, where a day's share is 10.00 USD: at this pace its monthly limit of "
        "300.00 USD lasts 59 hours more"
    )


@pytest.mark.parametrize(
    ("day", "usd", "told_of"),
    [
        pytest.param(2, 40, False, id="too early"),
        pytest.param(3, 29, False, id="it lasts"),
        pytest.param(3, 31, True, id="it does not last"),
        pytest.param(29, 302, False, id="it is used up"),
    ],
)
def test_forecast_of_a_monthly_budget_of_300(day: int, usd: float, told_of: bool) -> None:
    steps = [(0, usd - 1), (day * DAY, 0.5), (day * DAY + 60, 0.5)]
    found = [text for kind, _, text in paces(300, *steps) if kind == "forecast"]
    assert bool(found) is told_of
    assert len(found) <= 1
    assert all(text.startswith("acme will have spent 30") for text in found)


def test_a_daily_budget_tells_by_its_own_steps() -> None:
    state = new_state()
    fold_policy(state, Policy(org_id="acme", daily_limit_micro=10_000_000), 0, MONTH * 1_000)
    log = a_log([(MONTH, [{"cost_nano": 6 * USD}])])
    alerts = told((record._replace(offset=record.offset + 1) for record in log), state)
    assert {alert.kind for alert in alerts if alert.scope == "org"} == {"budget"}
