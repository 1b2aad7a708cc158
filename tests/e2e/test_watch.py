"""WATCH under kill -9, with two workers: every window equals the ledger, every threshold alerts under one id."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.workers import Workers, alerts
from tollmeter.broker.policies import delete_policy, list_policies, set_policy
from tollmeter.producers.imports.publish import publish
from tollmeter.schemas.money import NANO_PER_USD
from tollmeter.schemas.policy import SCOPE_COLUMNS, Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire

pytestmark = pytest.mark.stack
SPAN_S = 900
LONGEST_S = {"minute": 60, "hour": 3_600, "day": 86_400, "month": 31 * 86_400}


@pytest.fixture
def line(line_settings: Settings) -> Settings:
    return line_settings.model_copy(update={"session_timeout_s": 6.0, "checkpoint_s": 0.5})


def windows(client: ClickHouse, level: str, kind: str) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Live totals of one level and kind of scope, as WATCH wrote them."""
    rows = client.query(
        "SELECT bucket, org_id, name, calls, input_tokens, output_tokens, cost_nano + byok_cost_nano AS cost, "
        "at_risk_nano AS risk FROM usage_windows FINAL "
        "WHERE level = {level:String} AND scope = {kind:String} AND calls > 0",
        {"level": level, "kind": kind},
    )
    return {(row["bucket"], row["org_id"], row["name"]): _sums(row) for row in rows}


def ledger(client: ClickHouse, level: str, kind: str) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """The same totals added up from the ledger by SQL."""
    start_of = {"minute": "toStartOfMinute", "hour": "toStartOfHour", "day": "toStartOfDay", "month": "toStartOfMonth"}
    column = SCOPE_COLUMNS[kind]
    name = "''" if kind == "org" else column
    rows = client.query(
        f"SELECT toDateTime({start_of[level]}(least(event_time, received_at)), 'UTC') AS bucket, "
        f"org_id, {name} AS name, count() AS calls, "
        "sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, "
        "sum(ifNull(cost_nano, 0)) AS cost, sum(if(billing_scope = 'USER', 0, ifNull(at_risk_nano, 0))) AS risk "
        f"FROM usage_events FINAL WHERE {column} != '' GROUP BY bucket, org_id, name"
    )
    return {(row["bucket"], row["org_id"], row["name"]): _sums(row) for row in rows}


def _sums(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(row[name]) for name in ("calls", "input_tokens", "output_tokens", "cost", "risk"))


@pytest.mark.parametrize("events", [6_000, pytest.param(12_000, marks=pytest.mark.nightly)])
def test_windows_and_alerts_survive_kill_9(
    line: Settings, workers: Workers, eventually: Callable[..., Any], events: int
) -> None:
    for stage in ("price", "ledger"):
        workers(stage)
    watchers = [workers("watch"), workers("watch")]
    acme = Policy(org_id="org-acme", daily_limit_micro=1_000_000, monthly_limit_micro=2_000_000)
    for policy in (acme, Policy(org_id="org-ember", scope="provider", name="openai", daily_limit_micro=50_000)):
        set_policy(line, policy)
    end_us = int(time.time() * 1_000_000)
    wire = Wire(company(11, 8), events, end_us - SPAN_S * 1_000_000, SPAN_S * 1_000_000)
    values = [value for _at, block in wire.blocks() for value in block]
    client = connect(line)
    third = len(values) // 3
    for number, piece in enumerate((values[:third], values[third : 2 * third], values[2 * third :])):
        asyncio.run(publish(line, [piece]))
        if number < 2:
            victim = watchers[number % 2].process
            eventually(lambda: client.query("SELECT count() AS n FROM watch_progress")[0]["n"] >= 2, 60)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            watchers[number % 2] = workers("watch")
    eventually(lambda: client.query("SELECT count() AS n FROM usage_events FINAL")[0]["n"] == wire.sent_events, 90)
    for level in ("minute", "hour", "day", "month"):
        for kind in SCOPE_COLUMNS:
            expected = ledger(client, level, kind)
            assert expected
            eventually(lambda: windows(client, level, kind) == expected, 60)  # noqa: B023
    _check_alerts(line, client, acme)
    client.close()


def _check_alerts(line: Settings, client: ClickHouse, policy: Policy) -> None:
    """Every threshold at or below the spend of the period alerted, under one id; none above it did."""
    ours = [event for event in alerts(line, "budget") if event["data"]["policy_id"] == policy.policy_id]
    assert policy.daily_limit_micro
    assert policy.monthly_limit_micro
    for level, limit_micro in (("day", policy.daily_limit_micro), ("month", policy.monthly_limit_micro)):
        for bucket, org, _ in ledger(client, level, "org"):
            if org != policy.org_id:
                continue
            row = client.query(
                "SELECT cost_nano + at_risk_nano AS spend FROM usage_windows FINAL "
                "WHERE level = {level:String} AND scope = 'org' AND org_id = {org:String} "
                "AND bucket = {bucket:DateTime}",
                {"level": level, "org": org, "bucket": bucket},
            )[0]
            due = {pct for pct in policy.alert_pcts if row["spend"] * 100 >= pct * limit_micro * 1_000}
            period = bucket.strftime("%Y-%m-%d" if level == "day" else "%Y-%m")
            events = [event for event in ours if event["data"]["period"] == period]
            assert {event["data"]["threshold_pct"] for event in events} == due
            assert len({event["id"] for event in events}) == len(due)
            assert row["spend"] > NANO_PER_USD // 10, "the company spends too little for this test to mean anything"


def test_a_policy_can_be_listed_replaced_and_deleted(line: Settings) -> None:
    first = Policy(org_id="a/b", scope="user", name="x%y", daily_limit_micro=5)
    set_policy(line, first)
    changed = first.model_copy(update={"daily_limit_micro": 7})
    set_policy(line, changed)
    assert list_policies(line) == [changed]
    delete_policy(line, first.org_id, first.policy_id)
    delete_policy(line, first.org_id, first.policy_id)
    assert list_policies(line) == []


def test_events_hours_and_weeks_late_reach_every_window(
    line: Settings, workers: Workers, eventually: Callable[..., Any]
) -> None:
    for stage in ("price", "ledger", "watch"):
        workers(stage)
    now_us = int(time.time() * 1_000_000)
    sent = 0
    for seed, hours_ago in ((3, 0), (4, 3), (5, 50), (6, 24 * 40)):
        end_us = now_us - hours_ago * 3_600_000_000
        wire = Wire(company(seed, 8), 500, end_us - 7_200_000_000, 7_200_000_000)
        asyncio.run(publish(line, [[value for _at, block in wire.blocks() for value in block]]))
        sent += wire.sent_events
    client = connect(line)
    eventually(lambda: client.query("SELECT count() AS n FROM usage_events FINAL")[0]["n"] == sent, 60)
    for level in ("minute", "hour", "day", "month"):
        for kind in SCOPE_COLUMNS:
            expected = ledger(client, level, kind)
            eventually(lambda: settled(level, windows(client, level, kind)) == settled(level, expected), 60)  # noqa: B023
    client.close()


def settled(level: str, totals: dict[tuple[Any, ...], tuple[int, ...]]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Leave out what lies within the last three hours: rows that are late there wait until their hour is sealed."""
    edge = time.time() - 3 * 3_600
    return {key: values for key, values in totals.items() if key[0].timestamp() + LONGEST_S[level] < edge}
