"""What differs between a bill and the ledger is found and named rightly, by money, and adds up to the last digit."""

import random
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bills import FETCHED, FIRST, KINDS, RATES, Call, November, Place, costs_page, november, usage_page
from tests.effort import examples
from tollmeter.admin.bills.reading import parse
from tollmeter.streams.rules.bills.cells import Cell, Ours, sides
from tollmeter.streams.rules.bills.compare import Compared, compare
from tollmeter.streams.rules.bills.lines import TOKENS, Line
from tollmeter.streams.rules.bills.names import key_names, model_names, renamed
from tollmeter.streams.rules.bills.naming import Question

FOUND, FALSE = Decimal("0.98"), Decimal("0.01")
OPEN_FROM = (FETCHED - timedelta(hours=48)).date()


def ours(made: November) -> dict[Cell, Ours]:
    """Return the ledger's cells, added up call by call: the query's own sums are compared with these elsewhere."""
    cells: dict[Cell, Ours] = {}
    for call in made.ours:
        cell = Cell(call.key, call.model, call.day)
        cells[cell] = cells.get(cell, Ours()).plus(one_call(call))
    return cells


def one_call(call: Call) -> Ours:
    nothing = (0, 0, 0, 0)
    failed = call.status == "ERROR" and any(call.tokens)
    loose = call.status in ("ERROR", "CANCELLED") or call.usage in ("ESTIMATED", "NONE")
    return Ours(
        1,
        call.tokens,
        (*(count * rate for count, rate in zip(call.tokens, RATES[call.model], strict=True)), 0),
        0,
        int(failed),
        call.tokens if failed else nothing,
        int(loose),
        call.tokens if loose else nothing,
        call.tokens,
        call.tokens if call.at.hour == 0 else nothing,
        call.tokens if call.at.hour == 23 else nothing,
    )


def compared(made: November, usage: dict[str, Any], costs: dict[str, Any]) -> Compared:
    """Compare as the command does, with the bill through its readers."""
    bills = [parse([("usage.json", usage)]), parse([("costs.json", costs)])]
    own = ours(made)
    models = model_names((line for bill in bills for line in bill.lines), RATES, lambda name: name)
    lines = {f"default/{bill.source}": renamed(bill.lines, models, {}) for bill in bills}
    keys, _ = key_names((line for found in lines.values() for line in found), own, {})
    lines = {name: renamed(found, {}, keys) for name, found in lines.items()}
    covered = {f"default/{bill.source}": frozenset(bill.days) for bill in bills}
    amounts = [line.amount.normalize() for found in lines.values() for line in found if line.amount is not None]
    unit = min(Decimal(1).scaleb(min(int(amount.as_tuple().exponent), 0)) for amount in amounts)
    known = frozenset(cell.key for cell in own)

    def rate(model: str, meter: str, _: date) -> Decimal:
        return Decimal(RATES[model][TOKENS.index(meter)]) / 10**9

    return compare(sides(lines, covered, own), Question(OPEN_FROM, known, rate, unit))


def by_place(found: Compared) -> dict[Place, Decimal]:
    sums: dict[Place, Decimal] = defaultdict(Decimal)
    for one in found.differences:
        sums[one.kind, one.cell.day, one.cell.key] += one.usd
    return sums


def judge(made: November, found: Compared) -> tuple[Decimal, dict[Place, Decimal]]:
    """Return the share of the money of all differences that is named rightly, and what is named falsely."""
    told = by_place(found)
    right, whole = Decimal(0), Decimal(0)
    false: dict[Place, Decimal] = {}
    for place in {*made.truth, *told}:
        truth, said = made.truth.get(place, Decimal(0)), told.get(place, Decimal(0))
        common = min(abs(truth), abs(said)) if truth * said > 0 else Decimal(0)
        right, whole = right + common, whole + abs(truth)
        if abs(said) > common:
            false[place] = abs(said) - common
    return (right / whole if whole else Decimal(1)), false


@given(seed=st.integers(0, 2**32))
@settings(max_examples=examples(30))
def test_every_difference_is_found_and_named(seed: int) -> None:
    made = november(seed)
    usage, costs = usage_page(made), costs_page(made)
    found = compared(made, usage, costs)
    share, false = judge(made, found)
    assert share >= FOUND, f"{share:.4f} named rightly; falsely {sorted(false.items(), key=lambda one: -one[1])[:5]}"
    assert max(false.values(), default=Decimal(0)) <= FALSE * found.billed
    dear = {place[0] for place, usd in made.truth.items() if abs(usd) > FALSE * found.billed}
    assert dear <= {one.kind for one in found.differences}


@given(seed=st.integers(0, 2**32), kinds=st.sets(st.sampled_from(KINDS)))
@settings(max_examples=examples(20))
def test_all_differences_add_up_to_what_is_billed_and_not_ours(seed: int, kinds: set[str]) -> None:
    made = november(seed, tuple(sorted(kinds)), calls=1_500)
    usage, costs = usage_page(made), costs_page(made)
    found = compared(made, usage, costs)
    billed = sum((line["amount"]["value"] for bucket in costs["data"] for line in bucket["results"]), Decimal(0))
    own = sum((Decimal(call.nano) / 10**9 for call in made.ours), Decimal(0))
    assert (found.billed, found.ours) == (billed, own)
    assert abs(sum((one.usd for one in found.differences), Decimal(0)) - (billed - own)) < Decimal("1e-12")
    assert 0 <= found.matched <= min(billed, own) + Decimal("1e-12") or billed < 0 or min(kinds) == "fee"


@pytest.mark.parametrize("seed", range(3))
def test_without_differences_there_is_none(seed: int) -> None:
    made = november(seed, ())
    found = compared(made, usage_page(made), costs_page(made))
    assert found.differences == []
    assert found.matched == found.billed == found.ours


def test_the_month_has_every_kind() -> None:
    kinds: set[str] = set()
    for seed in range(5):
        made = november(seed)
        costs_page(made)
        kinds |= {place[0] for place, usd in made.truth.items() if usd}
    assert kinds == set(KINDS)
    assert FIRST.day == 1


@given(seed=st.integers(0, 2**32), days=st.integers(1, 31), noise=st.sampled_from([0.03, 0.1, 0.4]))
@settings(max_examples=examples(100), deadline=None)
def test_a_strangers_key_that_spends_about_as_much_is_not_taken_for_ours(seed: int, days: int, noise: float) -> None:
    """Ours is on no bill; the other key has the same model and about the same money on each day."""
    chance = random.Random(seed)
    own, lines = {}, []
    for number in range(days):
        day = FIRST + timedelta(days=number)
        tokens = (chance.randrange(10**5, 10**7), 0, 0, chance.randrange(10**4, 10**6))
        nano = tuple(count * rate for count, rate in zip(tokens, RATES["gpt-4o"], strict=True))
        own[Cell("ours", "gpt-4o", day)] = Ours(9, tokens, (*nano, 0))
        factor = 1 + noise * chance.choice((-1, 1)) * chance.uniform(0.4, 1)
        usd = Decimal(sum(nano)) / 10**9 * Decimal(factor)
        lines.append(Line(day=day, model="gpt-4o", key_ref="key_stranger", meter=TOKENS[0], amount=usd, amount_usd=usd))
    assert key_names(lines, own, {}) == ({}, [])
