"""The budget report as values: golden figures, money by hand, one verdict line, the hour at which it is due."""

from datetime import UTC, datetime, time
from typing import Any

import pytest

from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.streams.notify import budget as report
from tollmeter.streams.notify.budget import Budget, Operation, amount
from tollmeter.streams.notify.daily import slot
from tollmeter.streams.notify.routes import Report

START, END = 1_793_491_200, 1_796_083_200  # November 2026
NOW = START + 21 * 86_400
OPENAI = {"org_id": "acme", "scope": "provider", "name": "openai", "monthly_limit_micro": 10_000_000}


def budget(*operations: Operation, now_s: int = NOW, unpriced: int = 0, **policy: Any) -> Budget:
    spent = sum(operation.spent for operation in operations)
    return Budget(
        Policy(**OPENAI | policy),
        "2026-11",
        START,
        END,
        now_s,
        unpriced,
        spent,
        0,
        operations or (),
    )


GOLDEN = budget(Operation("summarise", 126, 45_230, 179_997_500))
DOCUMENTS = Operation("documents", 10, 7_000, 10 * 3_250_000)
"""gpt-4o, 500 tokens in at 2.50 and 200 out at 10 USD per million: 0.00325 USD each."""


def test_golden_report() -> None:
    text = report.text([GOLDEN], NOW)
    assert text.split("\n") == [
        "tollmeter budget report, 2026-11-22T00:00:00Z",
        "provider openai of acme",
        "  period: 2026-11 (UTC)",
        "  calls: 126",
        "  tokens: 45,230",
        "  estimated cost: $0.18",
        "  budget: $10.00",
        "  spent: $0.18 (1 %)",
        "  remaining: $9.82",
        "  at the end of the period, at this pace: $0.26",
        "  summarise: 126 calls at $0.001429; 100 more cost $0.142855; what remains buys 6,874",
        "OK provider openai of acme: 126 calls, 45,230 tokens, $0.18 spent, $9.82 remaining",
    ]
    assert text.isascii()


def test_a_hundred_documents_cost_0_325() -> None:
    made = budget(DOCUMENTS)
    fields = report.document([made], NOW)["budgets"][0]["operations"][0]
    assert (fields["mean_cost"], fields["cost_of_100"], fields["remaining_buys"]) == (0.00325, 0.325, 3_066)
    assert "100 more cost $0.325;" in report.text([made], NOW)


@pytest.mark.parametrize(
    ("spent", "policy", "alert"),
    [
        (4_999_999_999, {"alert_remaining_micro": 5_000_000}, False),
        (5_000_000_000, {"alert_remaining_micro": 5_000_000}, False),  # exactly 5 USD remain
        (5_000_000_001, {"alert_remaining_micro": 5_000_000}, True),
        (7_999_999_999, {}, False),
        (8_000_000_000, {}, True),
        (12_000_000_000, {}, True),
        (3_000_000_000, {"warn_threshold_pct": 30}, True),
    ],
)
def test_verdict(spent: int, policy: dict[str, Any], alert: bool) -> None:
    made = budget(Operation("o", 1, 1, spent), **policy)
    assert made.alert is alert
    assert report.verdict([made]).startswith("ALERT " if alert else "OK ")
    assert made.remaining == max(0, 10_000_000_000 - spent)


def test_one_verdict_for_several_budgets_names_those_that_need_attention() -> None:
    over = budget(Operation("o", 3, 9, 9_000_000_000), name="anthropic")
    text = report.text([GOLDEN, over], NOW)
    verdicts = [line for line in text.split("\n") if line.startswith(("OK", "ALERT"))]
    assert verdicts == ["ALERT provider anthropic of acme: 3 calls, 9 tokens, $9.00 spent, $1.00 remaining"]
    assert report.document([GOLDEN, over], NOW)["verdict"] == "ALERT"


def test_nothing_used_yet_and_free_calls() -> None:
    assert report.verdict([budget()]) == "OK provider openai of acme: 0 calls, 0 tokens, $0.00 spent, $10.00 remaining"
    free = budget(Operation("local", 5, 50, 0))
    assert free.operations[0].buys(free.remaining) is None
    assert "local" not in report.text([free], NOW)


def test_forecast_needs_a_part_of_the_period() -> None:
    used = Operation("o", 1, 1, 1_000_000_000)
    assert budget(used, now_s=START + 86_400 // 2).forecast is None
    assert budget(used, now_s=START + 2 * 86_400).forecast == 15_000_000_000
    assert "(above the budget)" in report.text([budget(used, now_s=START + 2 * 86_400)], NOW)


def test_other_currencies_and_rounding() -> None:
    assert amount(179_997_500, "USD") == "$0.18"
    assert amount(5_000_000, "USD") == "$0.01"  # half up
    assert amount(1_234_567_890_000_000, "EUR") == "1,234,567.89 EUR"
    assert amount(325_000_000, "USD", fine=True) == "$0.325"
    assert amount(10_000_000_000, "USD", fine=True) == "$10.00"
    assert amount(0, "USD", fine=True) == "$0.00"


def test_which_policies_are_reported() -> None:
    policies = [
        Policy(**OPENAI),
        Policy(**OPENAI | {"org_id": "umbra"}),
        Policy(**OPENAI | {"monthly_limit_micro": None, "daily_limit_micro": 5}),
        Policy(org_id="acme", monthly_limit_micro=5),
        Policy(org_id="acme", monthly_limit_micro=5, applies="each_member"),
    ]
    assert report.monthly_pools(policies, "provider", "", "") == policies[:2]
    assert report.monthly_pools(policies, "provider", "umbra", "") == [policies[1]]
    assert report.monthly_pools(policies, "provider", "", "gemini") == []
    assert report.monthly_pools(policies, "org", "", "") == [policies[3]]


@pytest.mark.parametrize(
    ("now", "zone", "day"),
    [
        ("2026-11-22T08:59:59", "UTC", None),
        ("2026-11-22T09:00:00", "UTC", "2026-11-22"),
        ("2026-11-22T14:59:59", "UTC", "2026-11-22"),
        ("2026-11-22T15:00:00", "UTC", None),
        ("2026-11-22T08:00:00", "Europe/Berlin", "2026-11-22"),
        ("2026-07-22T07:00:00", "Europe/Berlin", "2026-07-22"),
        ("2026-11-22T03:30:00", "Asia/Kolkata", "2026-11-22"),
        ("2026-11-22T22:30:00", "Asia/Tokyo", None),
        ("2026-11-23T00:00:00", "Asia/Tokyo", "2026-11-23"),
    ],
)
def test_when_the_report_is_due(now: str, zone: str, day: str | None) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()
    assert slot(Report(timezone=zone), at) == day
    assert slot(Report(timezone=zone, enabled=False), at) is None


def test_a_report_late_in_the_evening_belongs_to_its_day_also_after_midnight() -> None:
    late = Report.model_construct(at=time(23, 0), timezone="UTC", enabled=True)
    assert slot(late, datetime(2026, 11, 23, 1, tzinfo=UTC).timestamp()) == "2026-11-22"


def test_the_words_of_the_verdict_and_what_is_said_before_it() -> None:
    one = budget(Operation("a", 1, 2, 9_000_000_000))
    words = report.Words("BON", "ALERTE")
    lines = report.text([one], NOW, words, ["provider openai answers: gpt-4o-mini"]).split("\n")
    assert lines[-2] == "provider openai answers: gpt-4o-mini"
    assert lines[-1].startswith("ALERTE provider openai of acme: ")
    assert report.text([budget()], NOW, words).split("\n")[-1].startswith("BON ")
    found = report.document([one], NOW, words)
    assert (found["verdict"], found["text"].split()[0]) == ("ALERT", "ALERTE")
    for wrong in ("", "ALERTE ROUGE", "a\nb", "x" * 33):
        with pytest.raises(ValueError, match="verdict_alert"):
            Settings(verdict_alert=wrong)
