"""What notify asks of ClickHouse: causes in time or not at all, the copy of states, the daily report."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.alert_events import alert, event
from tests.patience import Patience, share
from tests.priced_rows import insert, row
from tollmeter.admin.forget import Person, left
from tollmeter.broker.policies import set_policy
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.notify.causes import ANSWER_S, PAUSE_S, Ledger
from tollmeter.streams.notify.daily import Daily
from tollmeter.streams.notify.dispatcher import Dispatcher
from tollmeter.streams.notify.evidence import Call, Cause, Causes
from tollmeter.streams.notify.notice import Delivery, Notice, reopened
from tollmeter.streams.notify.routes import Report, Routes
from tollmeter.streams.notify.states import COLUMNS, States
from tollmeter.streams.notify.states import row as state_row

KEY = "0123456789ab3f2a"
BUSY_S = 600.0
"""How long a busy machine may take to answer."""


def notice(**facts: Any) -> Notice:
    made = alert("spend_spike", at=datetime.now(UTC), window="hour", **facts)
    return Notice(id=made.id, event=event(made), opened_s=time.time())


@pytest.mark.stack
def test_causes_and_the_usual_hour(ledger_settings: Settings) -> None:
    client = connect(ledger_settings)
    now = datetime.now(UTC)
    common = {
        "event_time": now,
        "received_at": now,
        "org_id": "acme",
        "api_key_id": KEY,
        "model_used": "gpt-5",
        "status": "OK",
        "price_status": "PRICED",
    }
    insert(
        client,
        [
            row(1, **common, client_ip="10.1.2.3", cost_nano=3_813_000_000, cost_input_nano=3_813_000_000),
            row(2, **common, client_ip="10.9.9.9", cost_nano=287_000_000, cost_output_nano=287_000_000),
            row(3, **common | {"api_key_id": "other"}, client_ip="10.1.2.3", cost_nano=10**10, cost_input_nano=10**10),
        ],
    )
    columns = ("minute", "org_id", "api_key_id", "calls", "cost_nano", "computed_at")
    past = [now - timedelta(hours=hours) for hours in (3, 30)]
    client.insert_rows(
        "usage_minutes",
        columns,
        [
            (past[0].replace(microsecond=0), "acme", KEY, 1, 300_000_000, now),
            (past[1].replace(microsecond=0), "acme", KEY, 1, 382_000_000, now),
        ],
    )
    found = asyncio.run(Ledger(ledger_settings, time.monotonic, BUSY_S).causes(notice(cost_nano=4_100_000_000)))
    calls = (
        Call(now, 3_813_000_000, "gpt-5", "10.1.2.3", ""),
        Call(now, 287_000_000, "gpt-5", "10.9.9.9", ""),
    )
    causes = (Cause(93, "gpt-5 input from 10.1.2.3"),)
    assert found == Causes(causes, 341_000_000, calls, (("other", 10**10),))
    client.close()


@pytest.mark.stack
@pytest.mark.parametrize(
    ("scope", "name", "tops"),
    [
        ("org", "", 2),
        ("group", "g", 1),
        ("user", "u", 1),
        ("agent", "a", 1),
        ("model", "m", 1),
        ("provider", "p", 1),
        ("client_ip", "10.1.1.1", 1),
        ("tag", "team=blue", 1),
        ("tag", "team=red", 0),
        ("pipeline", "x", 0),
    ],
)
def test_causes_of_each_kind_of_scope(ledger_settings: Settings, scope: str, name: str, tops: int) -> None:
    client = connect(ledger_settings)
    now = datetime.now(UTC)
    common = {"event_time": now, "received_at": now, "org_id": "scopes", "cost_nano": 50, "cost_input_nano": 50}
    named = {"group_id": "g", "user_id": "u", "agent": "a", "model": "m", "provider": "p", "client_ip": "10.1.1.1"}
    tags = [{"key": "team", "value": "blue"}]
    insert(client, [row(10, **common, **named, model_used="one", tags=tags), row(11, **common, model_used="two")])
    made = alert("budget", org="scopes", scope=scope, name=name, at=now, window="day")
    found = asyncio.run(
        Ledger(ledger_settings, time.monotonic, BUSY_S).causes(
            Notice(id=made.id, event=event(made), opened_s=time.time())
        )
    )
    assert len(found.top) == tops
    client.close()


def test_without_clickhouse_alerts_wait_for_nothing() -> None:
    now = [100.0]
    ledger = Ledger(Settings(clickhouse="http://127.0.0.1:1"), lambda: now[0])
    started = time.monotonic()
    assert asyncio.run(ledger.causes(notice())) == Causes()
    assert (time.monotonic() - started) * share() < ANSWER_S + 1
    assert ledger._not_before == 100 + PAUSE_S, "the next alerts do not even ask"


@pytest.mark.stack
def test_states_are_copied_and_the_newest_row_wins(ledger_settings: Settings, eventually: Callable[..., Any]) -> None:
    client = connect(ledger_settings)
    opened = notice().model_copy(
        update={"deliveries": (Delivery(consumer="ops", since_s=0, attempts=2, error="it is away"),)}
    )

    async def copy(*states: Notice) -> None:
        made = States(ledger_settings)
        for state in states:
            made.changed([state])
            await made.flush()
            while made._waiting or made._writing:
                await made.flush()
                await asyncio.sleep(0)

    asyncio.run(copy(opened, opened.model_copy(update={"state": "resolved", "resolved_s": time.time()})))
    (found,) = client.query(
        "SELECT state, told, resolved_at FROM alert_states FINAL WHERE id = {id:String}", {"id": opened.id}
    )
    assert (found["state"], found["told"]) == ("resolved", "ops: pending (2 attempts: it is away)")
    assert found["resolved_at"] is not None
    over = opened.model_copy(update={"state": "resolved", "resolved_s": time.time()})
    asyncio.run(copy(over, reopened(over, time.time()), over))
    (found,) = client.query("SELECT state FROM alert_states FINAL WHERE startsWith(id, {id:String})", {"id": opened.id})
    assert found["state"] == "open", "the alert is listed as its last opening is"
    client.close()


@pytest.mark.stack
def test_who_is_forgotten_is_not_in_the_texts_that_people_got(ledger_settings: Settings) -> None:
    client = connect(ledger_settings)
    now_s = time.time()
    own, theirs = (alert("fan_out", org=org, scope="user", name="ann@x", at=datetime.now(UTC)) for org in ("o1", "o2"))
    said = [
        Notice(id=one.id, event=event(one), opened_s=now_s, title="user ann@x", body="user ann@x of it\nann@x joann@x")
        for one in (own, theirs)
    ]
    client.insert_rows(
        "alerts", ("event", "appended_at"), [(one.wire().decode(), one.received_at) for one in (own, theirs)]
    )
    client.insert_rows("alert_states", COLUMNS, [state_row(one, time.time()) for one in said])
    who = Person("user", "ann@x", "o1")
    assert left(client, who)["texts that people got"] == 1
    client.command(load("forget_states"), who.parameters())
    assert left(client, who)["texts that people got"] == 0
    rows = {row["id"]: row for row in client.query("SELECT id, title, body FROM alert_states")}
    assert (rows[own.id]["title"], rows[own.id]["body"]) == (
        "user (forgotten)",
        "user (forgotten) of it\n(forgotten) joann@x",
    )
    assert rows[theirs.id]["body"] == said[1].body, "of another organisation"
    client.close()


@pytest.mark.stack
def test_the_daily_report_is_made_once(line_settings: Settings) -> None:
    routes = Routes.model_validate(
        {"consumers": {"a": {"type": "log"}}, "routes": [{"match": {"kind": "report"}, "to": "a"}]}
    )
    set_policy(line_settings, Policy(org_id="acme", scope="provider", name="openai", monthly_limit_micro=10_000_000))
    report = Report.model_construct(at=datetime.now(UTC).time().replace(second=0), timezone="UTC", enabled=True)

    async def make(dispatcher: Dispatcher) -> Notice | None:
        daily = Daily(line_settings, report, lambda names: [f"provider {name} answers" for name in names])
        patience = Patience(20)
        while not patience.ended():
            found = daily.due(dispatcher, time.time())
            if found is not None or daily._making is None:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError("no report in time")

    dispatcher = Dispatcher(routes, old_s=1)
    made = asyncio.run(make(dispatcher))
    assert made is not None
    assert made.body.split("\n")[-2] == "provider openai answers"
    assert made.title == "[report] OK provider openai of acme: 0 calls, 0 tokens, $0.00 spent, $10.00 remaining"
    assert [delivery.consumer for delivery in made.deliveries] == ["a"]
    dispatcher.add(made)
    assert asyncio.run(make(dispatcher)) is None, "not twice, also by another instance"
