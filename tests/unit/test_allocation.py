"""Shares of a cost that nobody can be named for: whole, in proportion, the same in any order; worked out by hand."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollmeter.admin.cost_lines import changes, totals
from tollmeter.cli.allocate import shared
from tollmeter.streams.rules.bills.allocation import allocate


@pytest.mark.parametrize(
    ("weights", "nano", "shares"),
    [
        pytest.param({"a": 1, "b": 3}, 100, {"a": 25, "b": 75}, id="proportion"),
        pytest.param({"a": 1, "b": 1, "c": 1}, 100, {"a": 34, "b": 33, "c": 33}, id="remainder-by-name"),
        pytest.param({"a": 2, "b": 5}, 10, {"a": 3, "b": 7}, id="remainder-to-the-largest-fraction"),
        pytest.param({"a": 0, "b": 0}, 5, {"a": 3, "b": 2}, id="no-weight-at-all"),
        pytest.param({"a": 0, "b": 9}, 5, {"a": 0, "b": 5}, id="none-for-who-used-nothing"),
        pytest.param({"a": 1, "b": 1, "c": 1}, -100, {"a": -34, "b": -33, "c": -33}, id="a-credit"),
        pytest.param({}, 7, {}, id="nobody"),
    ],
)
def test_shares(weights: dict[str, int], nano: int, shares: dict[str, int]) -> None:
    assert allocate(weights, nano) == shares


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="below zero"):
        allocate({"a": -1}, 5)


@given(
    st.dictionaries(st.text(max_size=3), st.integers(0, 10**18), min_size=1, max_size=12),
    st.integers(-(10**18), 10**18),
    st.randoms(),
)
def test_shares_add_up_and_are_within_one_of_the_exact_ones(weights: dict[str, int], nano: int, rng: object) -> None:
    shares = allocate(weights, nano)
    assert sum(shares.values()) == nano
    total = sum(weights.values())
    exact = {
        name: Fraction(nano * weight, total) if total else Fraction(nano, len(weights))
        for name, weight in weights.items()
    }
    assert all(abs(shares[name] - exact[name]) < 1 for name in weights)
    shuffled = list(weights.items())
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert allocate(dict(shuffled), nano) == shares


def test_what_names_nobody_is_shared_by_those_who_are_named() -> None:
    found = [
        {"name": "", "calls": 4, "direct_nano": 100, "unpriced": 1},
        {"name": "chat", "calls": 2, "direct_nano": 300, "unpriced": 0},
        {"name": "search", "calls": 9, "direct_nano": 100, "unpriced": 2},
    ]
    document = shared(found, 60)
    rows = [(row["name"], row["direct_nano"], row["share_nano"], row["total_nano"]) for row in document["rows"]]
    assert rows == [("chat", 300, 120, 420), ("search", 100, 40, 140)]
    assert (document["total_nano"], document["shared_nano"], document["unpriced"]) == (560, 160, 3)
    alone = shared(found[:1], 60)
    assert [(row["name"], row["total_nano"]) for row in alone["rows"]] == [("(nobody)", 160)]
    assert shared([], 0) == {"rows": [], "shared_nano": 0, "added_nano": 0, "total_nano": 0, "unpriced": 0}


def line(name: str, amount: int, usd: int | None, currency: str = "USD") -> dict[str, object]:
    return {"org_id": "a", "provider": "p", "name": name, "currency": currency, "amount_nano": amount, "cost_nano": usd}


def test_costs_without_calls_add_up_and_their_changes_are_booked_once() -> None:
    before = [line("seats", 300, 300), line("plan", 20, None, "EUR")]
    assert totals(before) == {"lines": 2, "cost_nano": 300, "without_usd": 1}
    now = [line("seats", 360, 360), line("new", 5, 5)]
    found = changes(now, before)
    assert [(row["name"], row["amount_nano"], row["cost_nano"]) for row in found] == [
        ("new", 5, 5),
        ("plan", -20, None),
        ("seats", 60, 60),
    ]
    assert changes(now, [*before, *found]) == []
