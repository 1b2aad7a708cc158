"""Random policy sets and an oracle that resolves them in another way: by asking, limit by limit, who could beat it.

`python -m tests.policy_sets 1000000` compares so many sets and prints the count; a difference ends it.
"""

import random
import sys
from collections.abc import Sequence

from tollmeter.schemas.policy import Limit, Member, Policy
from tollmeter.streams.rules.limits.policies import Groups, effective, lost_defaults, pool_limits

ORGS, USERS, GROUPS = ("acme", "umbra"), ("ann", "bob"), ("g1", "g2", "g3", "g4")
ZONES = ("UTC", "Asia/Kolkata")
LIMITS = [
    Limit(period=period, measure=measure, amount=amount, hours=24 if period == "rolling" else None)
    for period in ("day", "week", "month", "rolling")
    for measure in ("money", "tokens", "requests")
    for amount in (1_000_000, 2_000_000, 3_000_000)
]
Answer = tuple[list[tuple[str, str, int, str, str]], int, list[tuple[str, str, str, str]]]


def random_policy(rng: random.Random) -> Policy:
    scope = rng.choice(("org", "org", "group", "group", "group", "user", "api_key", "provider"))
    names = {
        "org": ("",),
        "group": GROUPS,
        "user": (*USERS, ""),
        "api_key": ("k1", "k2", ""),
        "provider": ("openai",),
    }[scope]
    name = rng.choice(names)
    applies = rng.choice(("each_member", "each_member", "pool")) if scope in ("org", "group") else "pool"
    if scope in ("user", "api_key") and not name:  # the default
        applies = "each_member"
    limits = {limit.key: limit for limit in rng.sample(LIMITS, rng.choice((0, 0, 1, 2)))}
    plain = "day/money" not in limits and "month/money" not in limits
    return Policy.model_construct(  # built unchecked: a million sets are many policies, and each is sound by its making
        org_id=rng.choice(("acme", "acme", "acme", "umbra")),
        scope=scope,
        name=name,
        applies=applies,
        daily_limit_micro=rng.choice((None, 1_000_000, 2_000_000)) if plain else None,
        monthly_limit_micro=rng.choice((None, 5_000_000, 9_000_000)) if plain else None,
        limits=tuple(limits.values()),
        currency=rng.choice(("EUR", "EUR", "USD")),
        timezone=rng.choice(ZONES),
        warn_threshold_pct=rng.choice((50, 70, 80)),
        alert_pcts=(50, 100),
        alert_remaining_micro=None,
    )


def random_set(rng: random.Random) -> tuple[list[Policy], list[Member]]:
    """Return policies (ids distinct, in any order) and a membership whose groups nest from higher to lower numbers."""
    policies = {policy.policy_id: policy for policy in (random_policy(rng) for _ in range(rng.randrange(8)))}
    members = [
        Member.model_construct(org_id="acme", kind="user", name=user, groups=rng.sample(GROUPS, rng.randrange(3)))
        for user in USERS
    ]
    members += [
        Member.model_construct(org_id="acme", kind="group", name=group, groups=(rng.choice(GROUPS[:place]),))
        for place, group in enumerate(GROUPS)
        if place and rng.random() < 0.4
    ]
    chosen = list(policies.values())
    rng.shuffle(chosen)
    return chosen, members


def groups_by_rounds(members: Sequence[Member], user: str) -> set[str]:
    """Oracle of the closure: add the groups around what is known until a round adds nothing."""
    known = {group for member in members if (member.kind, member.name) == ("user", user) for group in member.groups}
    for _ in members:
        known |= {
            group for member in members if member.kind == "group" and member.name in known for group in member.groups
        }
    return known


def facts(policy: Policy) -> list[tuple[str, str, int]]:
    """Return (period with zone, unit, amount) of each limit, from the fields alone."""
    found = [(f"day@{policy.timezone}", policy.currency, policy.daily_limit_micro)]
    found += [(f"month@{policy.timezone}", policy.currency, policy.monthly_limit_micro)]
    for limit in policy.limits:
        window = f"rolling{limit.hours}h" if limit.hours else limit.period
        unit = {"money": policy.currency, "tokens": "tokens", "requests": "requests"}[limit.measure]
        found.append((f"{window}@{policy.timezone}", unit, limit.amount))
    scale = {"tokens": 1, "requests": 1}
    return [(period, unit, amount * scale.get(unit, 1_000)) for period, unit, amount in found if amount is not None]


def oracle(policies: Sequence[Policy], members: Sequence[Member], user: str) -> Answer:
    groups = groups_by_rounds(members, user)
    ours = [policy for policy in policies if policy.org_id == "acme"]
    shared = [
        policy
        for policy in ours
        if policy.applies == "each_member"
        and (policy.scope == "org" or (policy.scope, policy.name) == ("user", "") or policy.name in groups)
    ]
    own = [policy for policy in ours if (policy.scope, policy.name) == ("user", user)]
    deciding = own or shared
    candidates = [
        (amount, policy.policy_id, period, unit) for policy in deciding for period, unit, amount in facts(policy)
    ]
    binding, lost = [], []
    for amount, policy_id, period, unit in candidates:
        better = [
            rival for rival in candidates if rival[2:] == (period, unit) and rival < (amount, policy_id, period, unit)
        ]
        if better:
            lost.append((policy_id, period, unit, "equal_limit" if min(better)[0] == amount else "smaller_limit"))
        else:
            binding.append((period, unit, amount, policy_id, user))
    if own:
        lost += [
            (policy.policy_id, period, unit, "own_policy") for policy in shared for period, unit, _ in facts(policy)
        ]
    warns = [policy.warn_threshold_pct for policy in deciding]
    return sorted(binding), min(warns) if warns else 80, sorted(lost)


def answer(policies: Sequence[Policy], members: Sequence[Member], user: str) -> Answer:
    found = effective(policies, "acme", user, Groups(members).of("acme", user))
    warn = found.warn_threshold_pct
    assert all(warn in budget.thresholds for budget in found.budgets)
    return (
        [(budget.period, budget.unit, budget.amount, budget.policy_id, budget.name) for budget in found.budgets],
        warn,
        sorted((entry.budget.policy_id, *entry.budget.kind, entry.reason) for entry in found.lost),
    )


def pool_oracle(policies: Sequence[Policy], scopes: set[tuple[str, str]]) -> list[tuple[str, str, str, int, str]]:
    """What holds for these scopes, by asking of each policy and scope; keys may have a default."""
    found = []
    for kind, name in scopes | {("org", "")}:
        ours = [policy for policy in policies if (policy.org_id, policy.scope) == ("acme", kind)]
        own = [policy for policy in ours if policy.name == name and policy.applies == "pool"]
        if kind == "api_key" and not own:
            own = [policy for policy in ours if not policy.name]
        found += [(policy.policy_id, *fact, name) for policy in own for fact in facts(policy)]
    return sorted(found)


def compare(seed: int) -> None:
    """Fail with the seed when resolution and oracle differ on its set."""
    rng = random.Random(seed)
    policies, members = random_set(rng)
    for user in USERS:
        assert answer(policies, members, user) == oracle(policies, members, user), seed
    key = rng.choice(("k1", "k3"))
    scopes = {("group", rng.choice(GROUPS)), ("api_key", key), ("provider", rng.choice(("openai", "google")))}
    bound = pool_limits(policies, "acme", scopes)
    found = [(budget.policy_id, *budget.kind, budget.amount, budget.name) for budget in bound]
    assert sorted(found) == pool_oracle(policies, scopes), seed
    own = [one for one in policies if (one.org_id, one.scope, one.name) == ("acme", "api_key", key)]
    default = [one for one in policies if (one.org_id, one.scope, one.name) == ("acme", "api_key", "")]
    beaten = [(one.policy_id, *fact) for one in default for fact in facts(one)] if own else []
    lost = lost_defaults(policies, "acme", scopes)
    assert sorted((one.budget.policy_id, *one.budget.kind, one.budget.amount) for one in lost) == sorted(beaten), seed


if __name__ == "__main__":
    count = int(sys.argv[1])
    for seed in range(count):
        compare(seed)
    print(f"{count:,} policy sets: equal")
