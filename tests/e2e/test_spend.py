"""usage.spend equals the ledger: for scopes whose totals begin with a policy, late rows, and after kill -9."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.workers import Workers, read
from tollmeter.broker.policies import set_policy
from tollmeter.producers.imports.publish import publish
from tollmeter.schemas import topics
from tollmeter.schemas.policy import Limit, Policy
from tollmeter.schemas.spend import AsOf, Spend
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire

pytestmark = pytest.mark.stack
ORG = "org-acme"


@pytest.fixture
def line(line_settings: Settings) -> Settings:
    return line_settings.model_copy(update={"session_timeout_s": 6.0, "checkpoint_s": 0.5})


def told(settings: Settings) -> tuple[dict[str, Spend], dict[str, AsOf]]:
    """What a reader of usage.spend knows: per key the row with the highest stamp."""
    rows: dict[str, Spend] = {}
    ends: dict[str, AsOf] = {}
    for record in read(settings, topics.SPEND, 1):
        key = record.key.decode()
        if key.startswith("as_of/"):
            ends[key] = AsOf.model_validate_json(record.value)
        elif record.value is None:
            rows.pop(key, None)
        else:
            row = Spend.model_validate_json(record.value)
            if key not in rows or row.stamp >= rows[key].stamp:
                rows[key] = row
    return rows, ends


def of_ledger(client: ClickHouse, row: Spend) -> int:
    """What the ledger says about the scope and period of a spend row."""
    named = {
        "org": "1",
        "user": "user_id = {name:String}",
        "tag": "has(tags, (splitByChar('=', {name:String})[1], splitByChar('=', {name:String})[2]))",
    }
    counted = {
        "EUR": "ifNull(cost_eur_nano, 0) + ifNull(at_risk_eur_nano, 0)",
        "USD": "ifNull(cost_nano, 0) + ifNull(at_risk_nano, 0)",
        "tokens": "input_tokens + output_tokens",
    }
    found = client.query(
        f"SELECT sum({counted[row.unit]}) AS used FROM usage_events FINAL "
        "WHERE org_id = {org:String} AND billing_scope != 'USER' "
        "AND least(event_time, toDateTime64(received_at, 6, 'UTC')) >= toDateTime64({from:Int64}, 6, 'UTC') "
        f"AND least(event_time, toDateTime64(received_at, 6, 'UTC')) < toDateTime64({{until:Int64}}, 6, 'UTC') AND {named[row.scope]}",  # noqa: E501
        {"org": row.org_id, "name": row.name, "from": row.starts_s, "until": row.ends_s},
    )
    return int(found[0]["used"])


def test_spend_equals_the_ledger(line: Settings, workers: Workers, eventually: Callable[..., Any]) -> None:
    for stage in ("price", "ledger"):
        workers(stage)
    watch = workers("watch")
    people = company(11, 8)
    client = connect(line)
    sent = 0
    now_us = int(time.time() * 1_000_000)
    for number, hours_ago in enumerate((0, 3, 0, 0)):  # what is three hours old is late
        if number == 1:
            eventually(lambda: client.query("SELECT count() AS n FROM usage_events FINAL")[0]["n"] == sent, 60)  # noqa: B023
            for policy in _policies(_tag(client)):
                set_policy(line, policy)
        if number == 3:
            watch.process.kill()
            watch.process.wait()
            watch = workers("watch")
        end_us = now_us - hours_ago * 3_600_000_000 - (4 - number) * 60_000_000
        wire = Wire(people, 2_000, end_us - 60_000_000, 60_000_000)
        asyncio.run(publish(line, [[value for _at, block in wire.blocks() for value in block]]))
        sent += wire.sent_events
    eventually(lambda: client.query("SELECT count() AS n FROM usage_events FINAL")[0]["n"] == sent, 60)

    def equal() -> bool:
        rows, ends = told(line)
        assert len(ends) == 4
        kinds = {(row.scope, row.period) for row in rows.values()}
        assert kinds == {
            ("org", "week@Asia/Kolkata"),
            ("org", "rolling240h@UTC"),
            ("user", "month@Asia/Tokyo"),
            ("tag", "month@UTC"),
        }
        wrong = {key: (row.spent, of_ledger(client, row)) for key, row in rows.items()}
        wrong = {key: pair for key, pair in wrong.items() if pair[0] != pair[1]}
        assert not wrong, json.dumps(wrong)
        return sum(row.spent for row in rows.values()) > 0

    eventually(equal, 90, 1.0)
    client.close()


def _tag(client: ClickHouse) -> str:
    found = client.query(
        "SELECT concat(tag.1, '=', tag.2) AS name FROM usage_events ARRAY JOIN tags AS tag "
        "WHERE org_id = {org:String} ORDER BY name LIMIT 1",
        {"org": ORG},
    )
    return str(found[0]["name"])


def _policies(tag: str) -> list[Policy]:
    return [
        Policy(org_id=ORG, limits=(Limit(period="week", amount=5_000_000),), timezone="Asia/Kolkata"),
        Policy(org_id=ORG, limits=(Limit(period="rolling", amount=9_000_000, hours=240),), currency="EUR"),
        Policy(
            org_id=ORG,
            applies="each_member",
            timezone="Asia/Tokyo",
            limits=(Limit(period="month", measure="tokens", amount=10**6),),
        ),
        Policy(org_id=ORG, scope="tag", name=tag, monthly_limit_micro=7_000_000),
    ]
