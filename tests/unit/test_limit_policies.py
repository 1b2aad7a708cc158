"""Effective limits, worked out by hand: the own policy, the strictest of organisation and groups, pools, nests."""

from typing import Any

import pytest

from tollmeter.schemas.policy import Limit, Member, Policy
from tollmeter.streams.rules.limits.policies import Effective, GroupCycleError, Groups, effective, pool_limits


def policy(scope: str = "org", name: str = "", applies: str = "each_member", **fields: Any) -> Policy:
    return Policy.model_validate(
        {"org_id": "acme", "scope": scope, "name": name, "applies": applies, "currency": "EUR"} | fields
    )


def limits(found: Effective) -> dict[str, tuple[int, str]]:
    return {f"{budget.period}/{budget.unit}": (budget.limit.amount, budget.policy_id) for budget in found.budgets}


ORG = policy(daily_limit_micro=5_000_000, monthly_limit_micro=50_000_000)
BLUE = policy("group", "blue", daily_limit_micro=2_000_000, warn_threshold_pct=60)
RED = policy("group", "red", monthly_limit_micro=20_000_000, warn_threshold_pct=90)
ANN = policy("user", "ann", "pool", monthly_limit_micro=90_000_000)
POOL = policy(applies="pool", daily_limit_micro=1_000_000, warn_threshold_pct=10)
ORG_ID, ANN_ID = "acme/org//each_member/EUR", "acme/user/ann/pool/EUR"
BLUE_ID, RED_ID = "acme/group/blue/each_member/EUR", "acme/group/red/each_member/EUR"

TABLE = [
    ("nothing", [], "ann", ["blue"], {}, 80),
    ("org alone", [ORG], "ann", [], {"day@UTC/EUR": (5_000_000, ORG_ID), "month@UTC/EUR": (50_000_000, ORG_ID)}, 80),
    (
        "strictest daily, strictest monthly, lowest warn",
        [ORG, BLUE, RED],
        "ann",
        ["red", "blue"],
        {"day@UTC/EUR": (2_000_000, BLUE_ID), "month@UTC/EUR": (20_000_000, RED_ID)},
        60,
    ),
    (
        "a group that is not the user's",
        [ORG, BLUE],
        "ann",
        ["red"],
        {"day@UTC/EUR": (5_000_000, ORG_ID), "month@UTC/EUR": (50_000_000, ORG_ID)},
        80,
    ),
    (
        "an own policy wins whole: also the limit that it lacks is gone",
        [ORG, BLUE, ANN],
        "ann",
        ["blue"],
        {"month@UTC/EUR": (90_000_000, ANN_ID)},
        80,
    ),
    ("somebody else's own policy", [BLUE, ANN], "bob", ["blue"], {"day@UTC/EUR": (2_000_000, BLUE_ID)}, 60),
    (
        "an own policy without limits frees from all",
        [ORG, policy("user", "ann", "pool", warn_threshold_pct=30)],
        "ann",
        [],
        {},
        30,
    ),
    (
        "a policy without limits still lowers the warn",
        [ORG, policy("group", "blue", warn_threshold_pct=5)],
        "ann",
        ["blue"],
        {"day@UTC/EUR": (5_000_000, ORG_ID), "month@UTC/EUR": (50_000_000, ORG_ID)},
        5,
    ),
    ("a pool is nobody's own limit", [POOL], "ann", [], {}, 80),
    ("no user, no own limit", [ORG], "", [], {}, 80),
    ("another organisation", [ORG.model_copy(update={"org_id": "umbra"})], "ann", [], {}, 80),
    (
        "other currency and zone are other kinds",
        [
            ORG,
            policy("group", "blue", daily_limit_micro=9_000_000, currency="USD"),
            policy("group", "red", daily_limit_micro=1_000_000, timezone="Asia/Kolkata"),
        ],
        "ann",
        ["blue", "red"],
        {
            "day@UTC/EUR": (5_000_000, ORG_ID),
            "month@UTC/EUR": (50_000_000, ORG_ID),
            "day@UTC/USD": (9_000_000, "acme/group/blue/each_member/USD"),
            "day@Asia/Kolkata/EUR": (1_000_000, RED_ID),
        },
        80,
    ),
    (
        "tokens are tokens in every currency",
        [
            policy("group", "blue", limits=[Limit(period="day", measure="tokens", amount=900)]),
            policy("group", "blue", currency="USD", limits=[Limit(period="day", measure="tokens", amount=500)]),
        ],
        "ann",
        ["blue"],
        {"day@UTC/tokens": (500, "acme/group/blue/each_member/USD")},
        80,
    ),
    (
        "equal amounts: the first policy id",
        [RED.model_copy(update={"name": "zed"}), RED],
        "ann",
        ["red", "zed"],
        {"month@UTC/EUR": (20_000_000, RED_ID)},
        90,
    ),
]


@pytest.mark.parametrize(
    ("policies", "user", "groups", "expected", "warn"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_effective(
    policies: list[Policy], user: str, groups: list[str], expected: dict[str, tuple[int, str]], warn: int
) -> None:
    found = effective(policies, "acme", user, groups)
    assert limits(found) == expected
    assert found.warn_threshold_pct == warn
    assert all((budget.scope, budget.name) == ("user", user) for budget in found.budgets)


def test_who_lost_and_why() -> None:
    found = effective([ORG, BLUE, RED], "acme", "ann", ["blue", "red"])
    assert [(entry.budget.policy_id, entry.budget.period, entry.reason, entry.to) for entry in found.lost] == [
        (ORG_ID, "day@UTC", "smaller_limit", BLUE_ID),
        (ORG_ID, "month@UTC", "smaller_limit", RED_ID),
    ]
    assert found.warn_policy_id == BLUE_ID
    own = effective([ORG, ANN], "acme", "ann", [])
    assert {(entry.budget.policy_id, entry.reason, entry.to) for entry in own.lost} == {(ORG_ID, "own_policy", ANN_ID)}


def test_thresholds_are_the_deciding_policy_s_and_the_lowest_warn() -> None:
    decides = policy("group", "blue", daily_limit_micro=1, alert_pcts=(25, 100))
    (budget,) = effective([decides, policy(warn_threshold_pct=60)], "acme", "ann", ["blue"]).budgets
    assert budget.thresholds == (25, 60, 100)
    assert budget.amount == 1_000  # nano-EUR


def test_pools_hold_each_for_itself() -> None:
    key = policy("api_key", "k1", "pool", daily_limit_micro=9_000_000, alert_remaining_micro=5)
    tokens = policy("tag", "team=blue", "pool", limits=[Limit(period="week", measure="tokens", amount=7)])
    group = policy("group", "blue", "pool", daily_limit_micro=3_000_000)
    everything = [key, tokens, group, POOL, ORG, BLUE, ANN]
    found = pool_limits(everything, "acme", {("api_key", "k1"), ("tag", "team=blue"), ("user", "ann")})
    assert [(budget.scope, budget.name, budget.period, budget.unit, budget.amount) for budget in found] == [
        ("api_key", "k1", "day@UTC", "EUR", 9_000_000_000),
        ("org", "", "day@UTC", "EUR", 1_000_000_000),
        ("tag", "team=blue", "week@UTC", "tokens", 7),
    ]
    assert [budget.alert_remaining_micro for budget in found] == [5, None, None]
    assert pool_limits(everything, "umbra", {("api_key", "k1")}) == ()


def members(**groups: tuple[str, ...]) -> list[Member]:
    return [Member(org_id="acme", kind="group", name=name, groups=inside) for name, inside in groups.items()]


def test_groups_nest() -> None:
    found = Groups([Member(org_id="acme", name="ann", groups=("web",)), *members(web=("dev",), dev=("all", "eu"))])
    assert found.of("acme", "ann") == ("all", "dev", "eu", "web")
    assert found.of("umbra", "ann") == found.of("acme", "bob") == ()
    assert found.knows("acme", "ann")
    assert not found.knows("acme", "web")  # a group is no user
    assert found.closure("acme", ["dev", "guests"]) == ("all", "dev", "eu", "guests")


def test_a_change_of_the_membership_shows_at_once() -> None:
    ann = Member(org_id="acme", name="ann", groups=("web",))
    found = Groups([ann])
    assert found.of("acme", "ann") == ("web",)
    found.put(members(web=("dev",))[0])
    assert found.of("acme", "ann") == ("dev", "web")
    found.delete(ann.member_id)
    found.delete(ann.member_id)
    assert found.of("acme", "ann") == ()
    assert [member.name for member in found.members] == ["web"]


@pytest.mark.parametrize(
    ("nest", "way"),
    [
        ({"a": ("b",), "b": ("c",), "c": ("a",)}, "a → b → c → a"),
        ({"a": ("b", "c"), "c": ("d",), "d": ("c",)}, "c → d → c"),
    ],
    ids=["all three", "behind another"],
)
def test_a_group_inside_itself_is_named(nest: dict[str, tuple[str, ...]], way: str) -> None:
    found = Groups(members(**nest))
    with pytest.raises(GroupCycleError, match=f"group . of acme contains itself: {way}$"):
        found.check()
    assert found.closure("acme", ["a"])  # and yet whoever reads gets an answer


def test_a_diamond_is_no_cycle_and_depth_is_no_matter() -> None:
    Groups(members(a=("b", "c"), b=("d",), c=("d",))).check()
    ladder = {f"{side}{n}": (f"a{n + 1}", f"b{n + 1}") for n in range(60) for side in "ab"}
    Groups(members(**ladder)).check()  # 2^60 ways up, each group is looked at once
    deep = Groups([Member(org_id="acme", kind="group", name=f"g{n}", groups=(f"g{n + 1}",)) for n in range(5_000)])
    deep.check()
    assert len(deep.closure("acme", ["g0"])) == 5_001
