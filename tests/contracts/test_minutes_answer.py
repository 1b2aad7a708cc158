"""Spend of long periods from the rollup is to the nano-USD what the ledger says, whatever came late or was changed."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.priced_rows import insert, row
from tollmeter.admin.reports import minutes, questions
from tollmeter.admin.reports.asked import NO_FILTER, Asked
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.sinks.clickhouse.rollup import step

pytestmark = pytest.mark.stack
NOW = datetime(2026, 11, 20, 10, 0, 30, tzinfo=UTC)
WHOLE = NOW - timedelta(days=300)


@pytest.fixture(scope="module", name="ledger")
def connected(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    client.command(
        "INSERT INTO registry (key, value, version) VALUES "
        '(\'label:1\', \'{"org_id": "o1", "api_key_id": "k1", "label": "shop"}\', 1)'
    )
    yield client
    client.close()


def some_rows(draw: random.Random, count: int, first: int) -> list[dict[str, Any]]:
    """Return calls of the last four days, priced or not, estimated, corrected, by a subscription, or failed."""
    made = []
    for number in range(first, first + count):
        at = NOW - timedelta(seconds=draw.randrange(4 * 86_400), microseconds=draw.randrange(10**6))
        status = draw.choice(["PRICED", "PRICED", "UNKNOWN_MODEL", "SUBSCRIPTION", "NO_USAGE"])
        known = status in ("PRICED", "SUBSCRIPTION")
        made.append(
            row(
                number,
                event_time=at,
                received_at=at,
                org_id=draw.choice(["o1", "o2", ""]),
                api_key_id=draw.choice(["k1", "k2"]),
                provider=draw.choice(["openai", "google"]),
                model=(model := draw.choice(["a", "b"])),
                model_sent=model,
                status=draw.choice(["OK", "ERROR", "BLOCKED"]),
                price_status=status,
                cost_nano=draw.randrange(10**9) if status == "PRICED" else 0 if known else None,
                est_cost_nano=draw.choice([None, 5]),
                at_risk_nano=None if known else draw.randrange(10**6),
                usage_source=draw.choice(["PROVIDER", "ESTIMATED"]),
                revision=draw.choice([0, 0, 1]),
                input_tokens=draw.randrange(10**4),
                output_tokens=draw.randrange(10**4),
                price_book=draw.choice(["", "b1", "b2"]),
                fx_date=draw.choice([None, (NOW - timedelta(days=draw.randrange(9))).date()]),
            )
        )
    return made


QUESTIONS: list[tuple[tuple[str, ...], dict[str, str], str]] = [
    (("model", "key"), {}, "UTC"),
    (("day",), {"org_id": "o1"}, "Asia/Kolkata"),
    (("hour", "model"), {}, "Asia/Kathmandu"),
    (("week", "key"), {}, "America/New_York"),
    (("month",), {}, "Pacific/Auckland"),
    (("org", "provider", "label"), {}, "UTC"),
    (("label",), {"label": "shop"}, "UTC"),
    ((), {"api_key_id": "k2"}, "UTC"),
    (("key",), {"org_id": "nobody"}, "UTC"),
]


@pytest.mark.parametrize("seed", [0, *(pytest.param(one, marks=pytest.mark.nightly) for one in range(1, 6))])
def test_the_rollup_answers_as_the_ledger(ledger: ClickHouse, ledger_settings: Settings, seed: int) -> None:
    draw = random.Random(seed)
    settings = ledger_settings.model_copy(update={"rollup_quiet_s": 0.0})
    rows = some_rows(draw, 60, seed * 1_000)
    come = datetime.now(UTC) - timedelta(minutes=10)  # what is younger is computed again and again
    insert(ledger, rows, offset=seed * 10, at=come)
    while step(ledger, settings).minutes:
        pass
    assert ledger.query(load("rollup_progress"))[0]["covered_until"] > come, "nothing is stale"
    later = [{**one, "revision": 3, "cost_nano": 7, "price_status": "PRICED"} for one in rows[:9]]
    later += [{**one, "status": "VOID", "revision": 4} for one in rows[9:12]]
    insert(ledger, [*later, *some_rows(draw, 20, seed * 1_000 + 500)], offset=seed * 10 + 1)  # not rolled up yet
    for by, filters, zone in QUESTIONS:
        since, until = NOW - timedelta(days=3, seconds=17), NOW - timedelta(seconds=11)
        asked = Asked(since, until, ZoneInfo(zone), {**NO_FILTER, **filters})
        quick = asked._replace(minutes_from=WHOLE)
        assert minutes.answer(quick, by)
        course = draw.choice(["", "hour", "day"])
        plain, rolled = (questions.spend(ledger, one, by, step=course) for one in (asked, quick))
        assert rolled.totals(NOW) == plain.totals(NOW), (by, filters)
        more = ("refused", "known_nano", "unpriced", "usd_at_risk", "course")
        names = [*(questions.BY[name] for name in by), *questions.SPEND, *more]
        assert [_picked(one, names) for one in rolled.rows] == [_picked(one, names) for one in plain.rows]
        for one in (plain, rolled):
            _adds_up(one, course)


def _adds_up(answered: questions.Answered, step: str) -> None:
    """The total is the sum of the rows, and every course the sum of its steps."""
    if not answered.rows:
        return
    for name in ("calls", "refused", "known_nano", "unpriced"):
        assert answered.total[name] == sum(one[name] for one in answered.rows), name
    assert answered.total["groups"] == len(answered.rows)
    for one in (answered.total, *answered.rows):
        steps, *sums = one["course"]
        assert [sum(column) for column in sums] == [one["known_nano"], one["unpriced"], one["calls"]]
        assert steps == sorted(set(steps))
        assert step or steps == [""]


def test_minutes_without_all_columns_are_read_from_the_ledger(ledger: ClickHouse) -> None:
    """As computed by the version before."""
    at = NOW - timedelta(days=100)
    insert(ledger, [row(90_000, event_time=at, received_at=at, org_id="old", cost_nano=5, usage_source="ESTIMATED")])
    ledger.command(
        "INSERT INTO usage_minutes (minute, org_id, calls, cost_nano, computed_at) "
        f"VALUES ('{at:%Y-%m-%d %H:%M:00}', 'old', 1, 5, now64(6))"
    )
    filters = {**NO_FILTER, "org_id": "old"}
    asked = Asked(at - timedelta(days=1), at + timedelta(days=1), ZoneInfo("UTC"), filters, minutes_from=WHOLE)
    total = questions.total(ledger, asked).totals(NOW)
    assert (total["calls"], total["estimated"], total["usd_est"]) == (1, 1, 0.0)


def _picked(one: dict[str, Any], names: list[str]) -> list[Any]:
    return [one[name] for name in names]


def test_a_period_without_calls_has_a_total_of_zeros(ledger: ClickHouse) -> None:
    nobody = {**NO_FILTER, "org_id": "nobody"}
    asked = Asked(NOW - timedelta(days=4), NOW, ZoneInfo("UTC"), nobody, minutes_from=WHOLE)
    assert minutes.answer(asked, ())
    totals = questions.total(ledger, asked).totals(NOW)
    assert (totals["calls"], totals["usd_est"], totals["unpriced"]) == (0, 0.0, 0)


@pytest.mark.parametrize("name", NO_FILTER)
def test_minutes_answer_only_what_they_can_be_filtered_by(name: str) -> None:
    asked = Asked(NOW - timedelta(days=4), NOW, ZoneInfo("UTC"), {**NO_FILTER, name: "a=b"}, minutes_from=WHOLE)
    assert minutes.answer(asked, ()) == (name in ("org_id", "api_key_id", "label"))
