"""What changed, who fell silent, what a policy would have refused: beside answers worked out by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.priced_rows import insert, row
from tollmeter.admin.policy_trial import CannotTryError, try_policy
from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import NO_FILTER, Asked
from tollmeter.admin.reports.changes import changes
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.ledger.silence import silent_alert

pytestmark = pytest.mark.stack

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
PRICED = {"provider": "openai", "status": "OK", "price_status": "PRICED"}


def call(number: int, at: datetime, **changed: Any) -> dict[str, Any]:
    return row(number, event_time=at, received_at=at, **{**PRICED, **changed})


@pytest.fixture(scope="module", name="ledger")
def seeded(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    half_past = NOW - timedelta(minutes=30)
    moved = {"org_id": "moved", "model_used": "a", "model": "a"}
    rows = [
        call(1, half_past, **moved, api_key_id="k1", cost_nano=5_000_000_000),
        call(
            2,
            half_past - 24 * HOUR,
            org_id="moved",
            api_key_id="k1",
            model_used="a",
            model="a",
            cost_nano=2_000_000_000,
        ),
        call(3, half_past, **moved, api_key_id="k2", price_status="UNKNOWN_MODEL"),
        call(
            4,
            half_past - 24 * HOUR,
            org_id="moved",
            api_key_id="k3",
            model_used="a",
            model="a",
            cost_nano=9_000_000_000,
        ),
    ]
    for number in range(60):  # of `steady` hourly and still, of `stopped` until 13 hours ago, of `young` for an hour
        rows.append(call(100 + number, NOW - number * HOUR, service="steady"))
        rows.append(call(200 + number, NOW - (13 + number) * HOUR, service="stopped", org_id="acme"))
        rows.append(call(300 + number, NOW - 14 * HOUR - timedelta(minutes=number), service="young"))
        imported = call(400 + number, NOW - (13 + number) * HOUR, service="imported")
        rows.append({**imported, "received_at": NOW})
    insert(client, rows)
    yield client
    client.close()


def test_movers_and_new_names(ledger: ClickHouse) -> None:
    asked = Asked(NOW - HOUR, NOW, ZoneInfo("UTC"), {**NO_FILTER, "org_id": "moved"})
    found = changes(ledger, asked, ("key",), "day", 20, NOW)
    shown = [
        (one["api_key_id"], one["usd_est"], one["usd_before"], one["usd_more"], one["unpriced"])
        for one in found["movers"]
    ]
    assert shown == [("k3", 0.0, 9.0, -9.0, 0), ("k1", 5.0, 2.0, 3.0, 0), ("k2", None, 0.0, 0.0, 1)]
    assert [(one["kind"], one["name"], one["usd_est"]) for one in found["new"]] == [("key", "k2", None)]
    assert found["totals"]["usd_est"] == 5.0
    assert found["totals_before"]["usd_est"] == 11.0


def test_a_service_is_silent_by_its_own_rhythm(ledger: ClickHouse) -> None:
    saved = [(0, 1, 1, "{}", datetime.now(UTC))]
    ledger.insert_rows("watch_progress", ("priced_partition", "applied", "stamp", "state", "written_at"), saved)
    (found,) = ledger.query(load("silent_services"))
    assert (found["service"], found["org_id"], found["pause_s"], found["calls"]) == ("stopped", "acme", 3_600, 60)
    assert found["last"] == NOW - 13 * HOUR
    assert abs(found["silent_s"] - (datetime.now(UTC) - found["last"]).total_seconds()) < 60
    first, again = silent_alert(found, NOW), silent_alert({**found, "silent_s": 90_000}, NOW + 12 * HOUR)
    assert first.id == again.id
    assert first.text.endswith("its longest pause of the last eight days was 60 min")


def test_nobody_is_silent_while_the_line_stands_still(ledger: ClickHouse) -> None:
    ledger.command("TRUNCATE TABLE watch_progress")
    assert ledger.query(load("silent_services")) == []


@pytest.mark.parametrize(
    ("by", "zone", "wanted"),
    [
        ("hour", "Europe/Berlin", ["2026-10-25T02:00+0100", "2026-10-25T02:00+0200"]),
        ("hour", "Asia/Kolkata", ["2026-10-25T05:00+0530", "2026-10-25T06:00+0530"]),
        ("day", "America/New_York", ["2026-10-24"]),
        ("week", "Europe/Berlin", ["2026-10-19"]),
        ("month", "UTC", ["2026-10"]),
        ("session", "UTC", ["s1", "s2"]),
        ("feature", "UTC", ["search"]),
    ],
)
def test_spend_by_time_and_session(ledger: ClickHouse, by: str, zone: str, wanted: list[str]) -> None:
    """Both hours that the clock calls two in the night of the change stand apart."""
    at = datetime(2026, 10, 25, 0, 10, tzinfo=UTC)
    named = {"org_id": "night", "operation_name": "search", "cost_nano": 1_000_000_000}
    rows = [call(700 + number, at + number * HOUR, session_id=f"s{number + 1}", **named) for number in range(2)]
    insert(ledger, rows)
    asked = Asked(at - 24 * HOUR, at + 24 * HOUR, ZoneInfo(zone), {**NO_FILTER, "org_id": "night"})
    answered = questions.spend(ledger, asked, (by,))
    assert sorted(one[questions.BY[by]] for one in answered.rows) == wanted
    assert sum(one["known_nano"] for one in answered.rows) == 2_000_000_000


def test_what_a_policy_would_have_refused(ledger: ClickHouse) -> None:
    """0.10 USD a call against 0.15 a day: the third call of each local day is refused, for each user by himself."""
    zone = ZoneInfo("Asia/Tokyo")
    noon = NOW.astimezone(zone).replace(hour=12, minute=0, second=0) - timedelta(days=2)
    rows = []
    for number in range(4):
        for place, user in enumerate(("ann", "bob")):
            at = noon + timedelta(minutes=number) - place * timedelta(days=1)
            rows.append(call(800 + 10 * place + number, at, org_id="tried", user_id=user, cost_nano=100_000_000))
    rows.append(call(899, noon, org_id="tried", user_id="ann", cost_nano=0, status="BLOCKED"))
    rows.append(call(898, noon, org_id="tried", user_id="ann", cost_nano=10**12, billing_scope="USER"))
    insert(ledger, rows)
    policy = Policy(org_id="tried", applies="each_member", daily_limit_micro=150_000, timezone="Asia/Tokyo")
    (trial,) = try_policy(ledger, policy, NOW - timedelta(days=30), NOW)
    days = {one.who: one for one in trial.periods}
    assert {who: (one.calls, one.refused, one.spared_nano) for who, one in days.items()} == {
        "ann": (4, 2, 200_000_000),
        "bob": (4, 2, 200_000_000),
    }
    assert days["ann"].period == f"{noon:%Y-%m-%d}"
    assert days["ann"].first_refused == (noon + timedelta(minutes=2)).astimezone(UTC)
    pool = Policy(org_id="tried", limits=(Limit(period="month", measure="requests", amount=1_000_000),))
    (idle,) = try_policy(ledger, pool, NOW - timedelta(days=30), NOW)
    assert not idle.reached
    assert sum(one.calls for one in idle.periods) == 8


def test_what_cannot_be_tried_says_so(ledger: ClickHouse) -> None:
    rolling = Policy(org_id="tried", limits=(Limit(period="rolling", hours=24, amount=1),))
    group = Policy(org_id="tried", scope="group", name="g", applies="each_member", daily_limit_micro=1)
    for policy in (rolling, group):
        with pytest.raises(CannotTryError, match="try"):
            try_policy(ledger, policy, NOW - timedelta(days=1), NOW)
