"""Days added up from hours are what all their rows add up to, and a day that was another sum is not added up at all."""

import random
from collections import defaultdict

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tollmeter.streams.rules.windows.larger import added_up
from tollmeter.streams.rules.windows.totals import MEASURES

SCHEMA = {"bucket": pl.Int64, "scope": pl.String, "name": pl.String, **dict.fromkeys(MEASURES, pl.Int64)}
Cells = dict[tuple[int, str, str], tuple[int, ...]]


def frame(cells: Cells) -> pl.DataFrame:
    return pl.DataFrame([(*key, *values) for key, values in cells.items()], schema=SCHEMA, orient="row")


def cells_of(rows: pl.DataFrame) -> Cells:
    return {(one[0], one[1], one[2]): one[3:] for one in rows.rows() if any(one[3:])}


def by_day(hours: Cells) -> Cells:
    found: dict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for (hour, scope, name), values in hours.items():
        day = found[hour // 24, scope, name]
        for place, value in enumerate(values):
            day[place] += value
    return {key: tuple(values) for key, values in found.items()}


def some(rng: random.Random, hours: list[int]) -> Cells:
    keys = [(hour, scope, name) for hour in hours for scope, name in (("org", ""), ("user", "a"), ("user", "b"))]
    chosen = [key for key in keys if rng.random() < 0.6]
    return {key: tuple(rng.randrange(-3, 9) for _ in MEASURES) for key in chosen}


@given(st.integers(0, 10**9))
@settings(max_examples=examples(40), deadline=None)
def test_a_day_is_the_sum_of_its_hours(seed: int) -> None:
    rng = random.Random(seed)
    hours = list(range(48, 48 + 72))
    before = some(rng, hours)
    again = set(rng.sample(hours, rng.randrange(1, 9)))
    made = some(rng, sorted(again))
    live = by_day(before)
    harmed = set()
    if live and rng.random() < 0.5:
        day, scope, name = rng.choice(sorted(live))
        harmed = {day}
        live[day, scope, name] = tuple(value + 1 for value in live[day, scope, name])
    found, wrong = added_up(lambda hour: hour // 24, frame(live), frame(before), frame(made), again)
    after = {key: values for key, values in before.items() if key[0] not in again} | made
    assert wrong == harmed
    assert cells_of(found) == {
        key: values for key, values in by_day(after).items() if any(values) and key[0] not in harmed
    }
