"""Policies and members on the real log and in ClickHouse: what was set is read back, the refused leaves no trace."""

import asyncio
import json
import time
from typing import Any, Literal

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tollmeter.admin import access, model_rules
from tollmeter.admin.cost_policies import delete_cost_policy, get_cost_policy, upsert_cost_policy
from tollmeter.broker import policies
from tollmeter.broker.policies import PolicyError, Rules, read_rules
from tollmeter.schemas import topics
from tollmeter.schemas.policy import Adjustment, Limit, Member, Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import connect

pytestmark = pytest.mark.stack

ORG = Policy(
    org_id="acme",
    applies="each_member",
    currency="EUR",
    timezone="Europe/Berlin",
    daily_limit_micro=1_000_000,
    limits=(Limit(period="rolling", hours=24, measure="tokens", amount=5_000),),
    alert_remaining_micro=9,
)
ANN = Member(org_id="acme", name="ann", groups=("web",))
WEB = Member(org_id="acme", kind="group", name="web", groups=("dev",))


async def controls(settings: Settings, org: str) -> list[Any]:
    """Every control record in the organisation's partition, and of any other partition none."""
    topic = settings.topic(topics.PRICED)
    tps = [TopicPartition(topic, number) for number in range(settings.partitions_priced)]
    consumer = AIOKafkaConsumer(**settings.kafka_options(), enable_auto_commit=False)
    await consumer.start()
    found: list[Any] = []
    try:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                assert tp.partition == topics.org_partition(org, settings.partitions_priced)
                found += [json.loads(record.value)["body"] for record in records]
    finally:
        await consumer.stop()
    return found


def test_changes_reach_the_compacted_topic_and_the_organisation_s_partition(line_settings: Settings) -> None:
    changes = [policies.member_set(ANN), policies.member_set(WEB), policies.policy_set(ORG)]
    policies.write(line_settings, changes)
    rules = read_rules(line_settings)
    assert rules.policies == {ORG.policy_id: ORG}
    assert rules.groups.of("acme", "ann") == ("dev", "web")

    policies.write(
        line_settings,
        [
            policies.policy_delete("acme", ORG.policy_id),
            policies.member_delete("acme", ANN.member_id),
            policies.member_delete("acme", "acme/user/nobody"),
        ],
    )
    rules = read_rules(line_settings)
    assert rules.policies == {}
    assert rules.groups.members == (WEB,)
    found = asyncio.run(controls(line_settings, "acme"))
    assert [body["type"] for body in found] == [
        "member_set",
        "member_set",
        "policy_set",
        "policy_delete",
        "member_delete",
        "member_delete",
    ]
    assert Policy.model_validate(found[2]["policy"]) == ORG
    assert Member.model_validate(found[0]["member"]) == ANN
    assert (found[3]["policy_id"], found[4]["member_id"]) == (ORG.policy_id, "acme/user/ann")


def test_a_group_inside_itself_is_refused_and_nothing_is_written(line_settings: Settings) -> None:
    policies.write(line_settings, [policies.member_set(WEB)])
    ring = Member(org_id="acme", kind="group", name="dev", groups=("web",))
    with pytest.raises(PolicyError, match="group dev of acme contains itself: dev → web → dev"):
        policies.write(line_settings, [policies.member_set(ANN), policies.member_set(ring)])
    assert read_rules(line_settings).groups.members == (WEB,)
    assert len(asyncio.run(controls(line_settings, "acme"))) == 1
    # in one command with the step that opens the ring it is none
    policies.write(line_settings, [policies.member_delete("acme", WEB.member_id), policies.member_set(ring)])
    assert read_rules(line_settings).groups.members == (ring,)


NEWER = json.dumps({"org_id": "acme", "per_moon_phase": 1}).encode()
UNREADABLE = {
    b"policy:acme/org//pool/USD": NEWER,
    b"policy:\xff/user/x": b"not json",
    b"member:acme/user/eve": NEWER,
    b"models:acme/org/": b"[]",
    b"block:acme/user/eve": NEWER,
    b"rate:acme/user/eve": b"",
}


def test_records_that_cannot_be_read_stop_nobody_are_named_and_can_go(line_settings: Settings) -> None:
    async def send() -> None:
        producer = AIOKafkaProducer(**line_settings.kafka_options())
        await producer.start()
        try:
            for key, value in UNREADABLE.items():
                await producer.send_and_wait(line_settings.topic(topics.POLICIES), value, key=key)
        finally:
            await producer.stop()

    web = Policy(org_id="acme", scope="group", name="web", daily_limit_micro=1)
    policies.write(line_settings, [policies.member_set(ANN), policies.policy_set(web)])
    asyncio.run(send())
    rules = read_rules(line_settings)
    assert (list(rules.policies), rules.groups.members) == ([web.policy_id], (ANN,))
    named = {one.key: one for one in rules.unreadable}
    assert named.keys() == {key.decode("utf-8", "backslashreplace") for key in UNREADABLE}
    assert named["policy:acme/org//pool/USD"].org_id == "acme"
    assert "per_moon_phase" in named["policy:acme/org//pool/USD"].why
    assert (access.blocks(line_settings), access.rate_limits(line_settings)) == ([], [])
    assert model_rules.model_rules(line_settings) == []

    for wrong, said in ((f"policy:{web.policy_id}", "can be read"), ("policy:nobody", "is no record")):
        with pytest.raises(PolicyError, match=said):
            policies.discard(line_settings, wrong)
    for key in named:
        policies.discard(line_settings, key)
    assert policies.unread(line_settings) == []
    assert list(read_rules(line_settings).policies) == [web.policy_id]
    told = asyncio.run(controls(line_settings, "acme"))
    assert {"type": "policy_delete", "policy_id": "acme/org//pool/USD"} in told, "WATCH is told of the policy"
    assert {"type": "member_delete", "member_id": "acme/user/eve"} in told, "and of the member"


def test_nothing_set_up_is_one_clear_error(line_settings: Settings) -> None:
    with pytest.raises(PolicyError, match="setup"):
        read_rules(line_settings.model_copy(update={"topic_prefix": "nobody-set-this-up."}))


def test_no_broker_is_one_clear_error() -> None:
    with pytest.raises(PolicyError, match=r"127\.0\.0\.1:9 .*set TOLLMETER_KAFKA"):
        policies.set_policy(Settings(kafka="127.0.0.1:9"), ORG)
    with pytest.raises(PolicyError, match=r"127\.0\.0\.1:9 .*set TOLLMETER_KAFKA"):
        read_rules(Settings(kafka="127.0.0.1:9"))


def test_cost_policies_as_clients_know_them(line_settings: Settings) -> None:
    """None: no limits, warn 80; zero and less become absent and 80; what lies beyond the fields is kept."""
    nothing = get_cost_policy(line_settings, "acme")
    assert (nothing.daily_limit_micro, nothing.monthly_limit_micro, nothing.warn_threshold_pct) == (None, None, 80)
    assert (nothing.currency, nothing.applies) == ("EUR", "each_member")

    upsert_cost_policy(
        line_settings, "acme", "org", daily_limit_micro_eur=0, monthly_limit_micro_eur=-1, warn_threshold_pct=-5
    )
    assert get_cost_policy(line_settings, "acme") == nothing
    policies.set_policy(line_settings, ORG)
    mended = upsert_cost_policy(line_settings, "acme", "org", monthly_limit_micro_eur=7, warn_threshold_pct=65)
    expected = ORG.model_copy(update={"daily_limit_micro": None, "monthly_limit_micro": 7, "warn_threshold_pct": 65})
    assert mended == get_cost_policy(line_settings, "acme") == expected

    scopes: tuple[tuple[Literal["group", "user"], str], ...] = (("group", "blue"), ("user", "ann"))
    for scope, name in scopes:
        upsert_cost_policy(line_settings, "acme", scope, name, daily_limit_micro_eur=5)
        assert get_cost_policy(line_settings, "acme", scope, name).daily_limit_micro == 5
    assert sorted(read_rules(line_settings).policies) == [
        "acme/group/blue/each_member/EUR",
        "acme/org//each_member/EUR",
        "acme/user/ann/pool/EUR",
    ]
    for scope, name in (*scopes, *scopes):
        delete_cost_policy(line_settings, "acme", scope, name)
    with pytest.raises(PolicyError, match=r"^cannot delete org policy$"):
        delete_cost_policy(line_settings, "acme", "org")
    assert list(read_rules(line_settings).policies) == ["acme/org//each_member/EUR"]
    with pytest.raises(PolicyError, match="warn_threshold_pct: Input should be less than or equal to 100"):
        upsert_cost_policy(line_settings, "acme", "org", warn_threshold_pct=500)
    with pytest.raises(PolicyError, match="name says which group"):
        upsert_cost_policy(line_settings, "acme", "user")


def test_views_tell_policies_from_members(ledger_settings: Settings) -> None:
    client = connect(ledger_settings)
    old = (
        '{"org_id":"acme","scope":"user","name":"bob",'
        '"daily_limit_micro":null,"monthly_limit_micro":7,"currency":"USD"}'
    )
    rows = [
        (2, ORG.policy_id, 5, 0, ORG.model_dump_json()),
        (2, "acme/user/bob/pool/USD", 6, 0, old),
        (2, "member:acme/group/web", 7, 0, WEB.model_dump_json()),
        (2, "member:acme/user/gone", 7, 0, ANN.model_dump_json()),
        (2, "member:acme/user/gone", 8, 1, ""),
        (2, "acme/user/gone/pool/USD", 8, 1, ""),
    ]
    client.insert_rows("watch_policies", ("priced_partition", "policy_id", "stamp", "deleted", "policy"), rows)
    found = client.query("SELECT * EXCEPT (policy, written_at) FROM policies ORDER BY policy_id")
    assert [dict(row) for row in found] == [
        {
            "policy_id": ORG.policy_id,
            "org_id": "acme",
            "scope": "org",
            "name": "",
            "applies": "each_member",
            "currency": "EUR",
            "timezone": "Europe/Berlin",
            "daily_limit_micro": 1_000_000,
            "monthly_limit_micro": None,
            "limits": [{"period": "rolling", "measure": "tokens", "amount": 5_000, "hours": 24}],
            "warn_threshold_pct": 80,
            "alert_pcts": [20, 50, 80, 100],
            "alert_remaining_micro": 9,
        },
        {
            "policy_id": "acme/user/bob/pool/USD",
            "org_id": "acme",
            "scope": "user",
            "name": "bob",
            "applies": "pool",
            "currency": "USD",
            "timezone": "UTC",
            "daily_limit_micro": None,
            "monthly_limit_micro": 7,
            "limits": [],
            "warn_threshold_pct": 80,
            "alert_pcts": [],
            "alert_remaining_micro": None,
        },
    ]
    members = client.query("SELECT * EXCEPT written_at FROM members")
    assert [dict(row) for row in members] == [{"org_id": "acme", "kind": "group", "name": "web", "groups": ["dev"]}]
    client.close()


def test_the_view_of_budgets_has_the_amounts_that_hold_now(ledger_settings: Settings) -> None:
    now = round(time.time() * 1_000)
    hour = 3_600_000

    def otherwise(limit: str, until_ms: int = now + hour, **what: int) -> Adjustment:
        return Adjustment(limit=limit, since_ms=now - hour, until_ms=until_ms, by="ops", reason="launch", **what)

    policy = Policy(
        org_id="raised",
        daily_limit_micro=2_000_000,
        monthly_limit_micro=5_000_000,
        limits=(Limit(period="rolling", measure="tokens", amount=1_000, hours=24),),
        adjustments=(
            otherwise("day/money", amount=3_000_000),
            otherwise("day/money", amount=4_000_000),
            otherwise("day/money", added=7),
            otherwise("month/money", now - 1, amount=9_000_000),  # over
            otherwise("rolling24h/tokens", amount=1_500),
        ),
    )
    client = connect(ledger_settings)
    client.insert_rows(
        "watch_policies",
        ("priced_partition", "policy_id", "stamp", "deleted", "policy"),
        [(2, policy.policy_id, 1, 0, policy.model_dump_json())],
    )
    found = client.query("SELECT period, unit, amount FROM budget_use WHERE org_id = 'raised'")
    assert {(row["period"], row["unit"]): row["amount"] for row in found} == {
        ("day", "USD"): 4_000_007_000,
        ("month", "USD"): 5_000_000_000,
        ("rolling24h", "tokens"): 1_500,
    }
    client.close()


def test_no_rules_are_no_rules() -> None:
    assert Rules().policies == {}
    assert Rules().groups.of("acme", "ann") == ()
