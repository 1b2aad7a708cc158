"""The view of budgets against resolution in plain Python: whoever used something of a limit has the one that binds."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from tollmeter.cli.policy_used import used
from tollmeter.schemas.policy import Adjustment, Limit, Member, Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.streams.rules.limits.adjusted import in_force
from tollmeter.streams.rules.limits.policies import Budget, Groups, effective, pool_limits

pytestmark = pytest.mark.stack

NOW_MS = round(time.time() * 1_000)
TOKENS = Limit(period="month", measure="tokens", amount=1_000)
A_MONTH = Limit(period="month", amount=6_000_000)
BERLIN = "Europe/Berlin"
RAISED = Adjustment(limit="day/money", amount=900_000, since_ms=1, until_ms=NOW_MS + 10**7, by="ops", reason="launch")
POLICIES = (
    Policy(org_id="acme", daily_limit_micro=50_000_000),
    Policy(org_id="acme", applies="each_member", daily_limit_micro=2_000_000, limits=(TOKENS,), warn_threshold_pct=60),
    Policy(org_id="acme", applies="each_member", currency="EUR", daily_limit_micro=3_000_000),
    Policy(org_id="acme", scope="group", name="dev", applies="each_member", daily_limit_micro=700_000),
    Policy(
        org_id="acme",
        scope="group",
        name="web",
        applies="each_member",
        daily_limit_micro=1_000_000,
        timezone="Europe/Berlin",
    ),
    Policy(org_id="acme", scope="group", name="web", daily_limit_micro=9_000_000),
    Policy(
        org_id="acme", scope="user", applies="each_member", daily_limit_micro=5_000_000, monthly_limit_micro=6_000_000
    ),
    Policy(org_id="acme", scope="user", name="own", daily_limit_micro=9_000_000),
    Policy(org_id="acme", scope="user", name="free"),
    Policy(org_id="acme", scope="api_key", applies="each_member", daily_limit_micro=100_000),
    Policy(org_id="acme", scope="api_key", name="k-own", daily_limit_micro=200_000),
    Policy(org_id="acme", scope="session", applies="each_member", daily_limit_micro=10_000),
    Policy(org_id="other", applies="each_member", daily_limit_micro=500_000, adjustments=(RAISED,)),
)
MEMBERS = (
    Member(org_id="acme", name="ann", groups=("web",)),
    Member(org_id="acme", name="own", groups=("dev",)),
    Member(org_id="acme", kind="group", name="web", groups=("dev",)),
    Member(org_id="acme", kind="group", name="dev", groups=("web",)),  # a cycle: nobody waits for it
)
USED: dict[str, dict[str, tuple[str, ...]]] = {
    "acme": {
        "org": ("",),
        "group": ("web",),
        "user": ("ann", "own", "free", "guest"),
        "api_key": ("k-own", "k-any"),
        "session": ("s1",),
    },
    "other": {"org": ("",), "user": ("ann",)},
    "limitless": {"org": ("",), "user": ("ann",)},
}
"""Who spent 500,000 micro-USD today."""


def seed(client: ClickHouse) -> None:
    rules = [(rule.policy_id if isinstance(rule, Policy) else rule.member_id, rule) for rule in (*POLICIES, *MEMBERS)]
    client.insert_rows(
        "watch_policies",
        ("priced_partition", "policy_id", "stamp", "deleted", "policy"),
        [(1, key, 1, 0, rule.model_dump_json()) for key, rule in rules],
    )
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    buckets = {"day": today, "month": today.replace(day=1), "day@Europe/Berlin": datetime.now(UTC)}
    client.insert_rows(
        "usage_windows",
        ("level", "bucket", "org_id", "scope", "name", "calls", "input_tokens", "cost_nano", "spend_eur_nano"),
        [
            (level, bucket, org, scope, name, 1, 700, 500_000_000, 450_000_000)
            for level, bucket in buckets.items()
            for org, scopes in USED.items()
            for scope, names in scopes.items()
            for name in names
        ],
    )


def bound() -> list[Budget]:
    """Every limit of a pool, and of each who used something the limits that bind him, by the rules of the guard."""
    groups, policies = Groups(MEMBERS), in_force(POLICIES, NOW_MS)
    found: list[Budget] = []
    for org, scopes in USED.items():
        named = {(policy.scope, policy.name) for policy in policies if policy.org_id == org and policy.name}
        seen = {(kind, name) for kind, names in scopes.items() for name in names if name}
        found += pool_limits(policies, org, named | seen)
        for user in scopes["user"]:
            found += effective(policies, org, user, groups.of(org, user)).budgets
    return found


@pytest.fixture(scope="module")
def seeded(ledger_settings: Settings) -> Settings:
    client = connect(ledger_settings)
    seed(client)
    client.close()
    return ledger_settings


def test_everybody_who_used_some_of_a_limit_has_the_one_that_binds(seeded: Settings) -> None:
    client = connect(seeded)
    rows = client.query("SELECT * FROM budget_use")
    client.close()
    columns = ("org_id", "scope", "name", "applies", "period", "timezone", "unit", "amount", "policy_id")
    assert sorted(tuple(row[name] for name in columns) for row in rows) == sorted(
        (
            *(one.org_id, one.scope, one.name, one.applies, one.limit.window, one.timezone),
            *(one.unit, one.amount, one.policy_id),
        )
        for one in bound()
    )
    by_unit = {"USD": 500_000_000, "EUR": 450_000_000, "tokens": 700}
    for row in rows:
        assert row["used"] == by_unit[row["unit"]]
        assert row["starts"] <= datetime.now(UTC) < row["ends"] <= row["starts"] + timedelta(days=31, hours=1)


def test_the_lowest_warning_of_those_that_decide_holds(seeded: Settings) -> None:
    client = connect(seeded)
    rows = client.query(
        "SELECT DISTINCT name, warn_threshold_pct FROM budget_use WHERE scope = 'user' AND org_id = 'acme'"
    )
    client.close()
    assert {row["name"]: row["warn_threshold_pct"] for row in rows} == {"ann": 60, "own": 80, "guest": 60}


def test_the_command_lists_the_fullest_first(seeded: Settings) -> None:
    found = CliRunner().invoke(used, ["--org", "acme", "--user", "ann", "--json"], obj=seeded)
    assert found.exit_code == 0, found.output
    rows = json.loads(found.output)
    assert [(row["unit"], row["policy_id"]) for row in rows][:2] == [
        ("USD", "acme/group/dev/each_member/USD"),  # 0.50 of 0.70
        ("tokens", "acme/org//each_member/USD"),  # 700 of 1,000
    ]
    shares = [row["used"] / row["amount"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    table = CliRunner().invoke(used, ["--top", "1"], obj=seeded)
    assert "session s1" in table.output
    assert "5000" in table.output  # 0.50 of 0.01
