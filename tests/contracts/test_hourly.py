"""The questions of the hour on the real engine: what the rows say is what was put in, and makes the alerts by hand."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tollmeter.schemas.alert import Alert
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.engine.runtime import Runtime
from tollmeter.streams.ledger.hourly import Hourly, alerts
from tollmeter.streams.rules.anomalies.hourly import FLOOR_NANO

pytestmark = pytest.mark.stack
HOUR = datetime(2026, 11, 20, 10, tzinfo=UTC)
USD = 10**9
COLUMNS = ("minute", "org_id", "api_key_id", "model", "calls", "unpriced", "cost_nano", "at_risk_nano", "computed_at")


def minute(key: str, hours_ago: int, usd: int, calls: int = 1, org: str = "acme", **more: int) -> tuple[object, ...]:
    """Return a row of the rollup in an hour before HOUR; `more`: minute, unpriced, at_risk."""
    at = HOUR - timedelta(hours=hours_ago) + timedelta(minutes=more.get("minute", 0))
    named = (at, org, key, "gpt-5", calls, more.get("unpriced", 0))
    return (*named, usd * USD, more.get("at_risk", 0) * USD, HOUR)


def test_an_hour_beside_its_season_and_keys_beside_their_peers(ledger_settings: Settings) -> None:
    client = connect(ledger_settings)
    rows = [
        minute("k", 0, 6),
        minute("k", 0, 3, minute=59, at_risk=1),
        minute("k", -1, 50),  # the next hour is none of it
        *(minute("k", 168 * week + shift, 1 + shift) for week in (1, 2, 3) for shift in (-1, 0, 1)),
        minute("k", 100, 70),  # another hour of the week
        minute("new", 0, 20),
        minute("small", 0, 4),
        *(minute(f"peer{n}", 3, 1, 100) for n in range(5)),
        minute("dear", 3, 8, 100),
        minute("dear", 60, 1, 100),
        minute("dear", 3, 0, 900, minute=1, unpriced=900),
        minute("dear", 3, 1, 1, org="other"),
    ]
    client.insert_rows("usage_minutes", COLUMNS, rows)
    hour = int(HOUR.timestamp()) // 3_600
    seasons = client.query(load("hour_of_week"), {"hour": f"{HOUR:%Y-%m-%d %H:%M:%S}", "floor": FLOOR_NANO})
    by_key = {row["api_key_id"]: row for row in seasons}
    assert set(by_key) == {"k", "new"}
    assert by_key["k"]["cost_nano"] == 10 * USD, "at risk counts, and the whole hour"
    # ages 167, 168, 169: the hour after the one a week ago was put in with shift -1
    assert list(by_key["k"]["past"]) == [0, USD, 2 * USD] * 3 + [0, 0, 0]
    assert (by_key["k"]["weeks"], by_key["new"]["weeks"]) == (3, 0)
    until = f"{HOUR + timedelta(hours=1):%Y-%m-%d %H:%M:%S}"
    peers = client.query(load("peer_days"), {"until": until})
    dear = next(row for row in peers if (row["org_id"], row["name"]) == ("acme", "dear"))
    assert {name: dear[name] for name in ("main", "cost_nano", "calls", "past_cost_nano", "past_calls")} == {
        "main": "gpt-5",
        "cost_nano": 8 * USD,
        "calls": 100,
        "past_cost_nano": USD,
        "past_calls": 100,
    }
    made = list(alerts(seasons, peers, hour))
    assert [(alert.kind, alert.severity, alert.org_id, alert.name) for alert in made] == [
        ("off_season", "warning", "acme", "k"),
        ("unlike_peers", "info", "acme", "dear"),
        ("unlike_peers", "info", "acme", "new"),  # 20 USD for its one call
    ]
    # median of [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0] = 0.5
    assert made[0].facts["usual_nano"] == USD // 2
    assert made[0].text == (
        "key k of acme spent 10.00 USD within this hour, where the same hour of the week was 0.50 USD in four weeks"
    )
    # peers pay 0.01 five times of eight: k, new and small pay more
    assert made[1].text == (
        "key dear of acme paid 0.0800 USD a call in a day, where 8 other keys that mostly use gpt-5 paid 0.0100: "
        "100 calls for 8.00 USD"
    )
    assert [alert.id for alert in made] == [alert.id for alert in alerts(seasons, peers, hour)]
    client.close()


def test_each_hour_is_asked_about_once_when_it_is_complete(ledger_settings: Settings) -> None:
    client = connect(ledger_settings)
    rows = [minute("late", hours_ago, usd, org="o2") for hours_ago, usd in ((168, 1), (336, 1), (504, 1), (0, 30))]
    client.insert_rows("usage_minutes", COLUMNS, rows)
    raised: list[Alert] = []

    class Says:
        async def say(self, alert: Alert) -> None:
            raised.append(alert)

    async def ask() -> list[int]:
        clock = [0.0]
        hourly = Hourly(Runtime(time=lambda: clock[0]), Says(), lambda: client)
        counts = []
        over_s = HOUR.timestamp() + 3_600
        for step, (at_s, ours) in enumerate(
            [(over_s + 899, True), (over_s + 900, False), (over_s + 900, True), (over_s + 990, True)]
        ):
            clock[0] = at_s
            hourly.step(step * 100.0, ours=ours)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
            counts.append(sum(one.name == "late" for one in raised))
        return counts

    assert asyncio.run(ask()) == [0, 0, 1, 1]
    (alert,) = [one for one in raised if one.name == "late"]
    assert (alert.kind, alert.facts["cost_nano"]) == ("off_season", 30 * USD)
    assert alert.received_at == HOUR + timedelta(hours=1)
    client.close()
