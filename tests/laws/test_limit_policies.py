"""Resolution equals an oracle written in another way, in any order of the policies."""

import random

from tests.policy_sets import answer, compare, random_set


def test_three_thousand_policy_sets_against_the_oracle() -> None:
    for seed in range(3_000):
        compare(seed)


def test_the_order_of_policies_changes_nothing() -> None:
    rng = random.Random(7)
    for _ in range(500):
        policies, members = random_set(rng)
        before = answer(policies, members, "ann")
        rng.shuffle(policies)
        assert answer(policies, members, "ann") == before


def test_the_sets_hold_what_is_to_be_told_apart() -> None:
    """Own policies, every reason to lose, nested groups: all occur, so that the comparison says something."""
    rng = random.Random(1)
    sets = [random_set(rng) for _ in range(500)]
    reasons = {reason for policies, members in sets for *_, reason in answer(policies, members, "ann")[2]}
    assert reasons == {"own_policy", "smaller_limit", "equal_limit"}
    assert any(member.kind == "group" for _, members in sets for member in members)
