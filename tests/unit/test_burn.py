"""Burn rate and forecast of budgets: told at their figures, once, and with the hours that are left."""

from datetime import UTC, datetime

import pytest

from tests.suspects import USD, a_log, told
from tests.watch_rows import new_state
from tollmeter.schemas.policy import Policy
from tollmeter.streams.rules.windows.controls import fold_policy

MONTH = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
HOUR, DAY = 3_600, 86_400


Spent = tuple[int, float] | tuple[int, float, str]
"""Second of the month, USD, and through which key."""


def paces(budget: int | Policy | tuple[Policy, ...], *spent: Spent) -> list[tuple[str, dict[str, object], str]]:
    """Return kind, facts and text of what is told of a budget's pace; a number is a monthly one of so many dollars."""
    state = new_state()
    monthly = isinstance(budget, int) and Policy(org_id="acme", monthly_limit_micro=budget * 1_000_000)
    policies = (monthly,) if isinstance(monthly, Policy) else budget if isinstance(budget, tuple) else (budget,)
    for policy in policies:
        fold_policy(state, policy, 0, MONTH * 1_000)  # type: ignore[arg-type]
    calls = [
        (MONTH + at_s, {"cost_nano": int(usd * USD), "api_key_id": "".join(key) or "k"}) for at_s, usd, *key in spent
    ]
    log = a_log((at_s, [call]) for at_s, call in calls)
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


@pytest.mark.parametrize(
    ("spent", "told_of"),
    [
        pytest.param([(0, 2.49)], [], id="less than a quarter in an hour"),
        pytest.param([(10 * HOUR, 2.5)], [(1, 3)], id="a quarter in an hour, gone in three more"),
        pytest.param([(21 * HOUR, 2.5)], [], id="the day ends before it is gone"),
        pytest.param([(n * HOUR, 1.0) for n in range(6)], [(6, 4)], id="60 % in six hours"),
        pytest.param([(10 * HOUR, 10)], [], id="nothing is left to warn of"),
    ],
)
def test_burns_of_a_daily_budget_of_10(spent: list[tuple[int, float]], told_of: list[tuple[int, int]]) -> None:
    found = paces(Policy(org_id="acme", daily_limit_micro=10_000_000), *spent)
    assert [(facts["burn_hours"], facts["hours_left"]) for _, facts, _ in found] == told_of
    assert all("its daily limit of 10.00 USD lasts" in text for *_, text in found)


def test_who_has_no_budget_is_held_against_the_default() -> None:
    default = Policy(org_id="acme", scope="api_key", applies="each_member", monthly_limit_micro=300_000_000)
    own = Policy(org_id="acme", scope="api_key", name="rich", monthly_limit_micro=3_000_000_000)
    found = paces((default, own), (0, 2.5, "poor"), (60, 2.5, "rich"))
    assert [(kind, text.partition(" spent")[0]) for kind, _, text in found] == [("burn_rate", "api_key poor of acme")]
