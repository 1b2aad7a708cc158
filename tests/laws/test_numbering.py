"""Laws of the arrays beneath the fold: sums by key and codes of texts are those of a plain dict, at any size."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollmeter.streams.rules.windows.scopes import FEW_ROWS, Scopes
from tollmeter.streams.rules.windows.totals import sum_by_key

keys_near = st.integers(10**9, 10**9 + 300)
keys_far = st.integers(-(2**40), 2**40)
"""The narrow ones are sorted as two bytes each; at 65,535 apart they still are, a step further they are not."""
keys_at_the_edge = st.sampled_from((5, 5 + 65_535, 5 + 65_536, 70_000))


@given(st.lists(keys_near) | st.lists(keys_far) | st.lists(keys_at_the_edge))
def test_sums_by_key_are_those_of_a_dict(keys: list[int]) -> None:
    rows = np.arange(2 * len(keys), dtype=np.int64).reshape(-1, 2)
    expected: dict[int, list[int]] = {}
    for key, (one, two) in zip(keys, rows.tolist(), strict=True):
        total = expected.setdefault(key, [0, 0])
        total[0] += one
        total[1] += two
    distinct, sums = sum_by_key(np.array(keys, dtype=np.int64), rows)
    assert dict(zip(distinct.tolist(), sums.tolist(), strict=True)) == expected
    assert distinct.tolist() == sorted(expected)


@pytest.mark.parametrize("others", [0, 5_000], ids=["a dictionary of its own", "a dictionary shared with others"])
def test_a_long_column_with_a_dictionary_has_the_codes_of_its_texts(others: int) -> None:
    categories = pl.Categories.random()
    kept = pl.Series([f"other-{number}" for number in range(others)], dtype=pl.Categorical(categories))
    texts = [f"name-{number * number % 977}" for number in range(FEW_ROWS * 3)]
    column = pl.Series(texts, dtype=pl.Categorical(categories))
    assert kept.len() == others
    plain, coded = Scopes(), Scopes()
    names_of = [coded.text(code) for code in coded.text_codes(column).tolist()]
    assert names_of == texts
    assert [plain.text(code) for code in plain.text_codes(pl.Series(texts)).tolist()] == texts
    orgs = np.full(len(texts), int(coded.text_codes(pl.Series(["acme"]))[0]), dtype=np.int64)
    found = coded.distinct(column, orgs, "user")
    for at in np.flatnonzero(found.numbers < 0).tolist():
        coded.enter(found, at)
    assert [coded.names[number] for number in found.numbers[found.where].tolist()] == [
        ("acme", "user", text) for text in texts
    ]


@given(
    st.integers(1, 40),
    st.integers(1, 400),
    st.integers(0, 30_000),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 399), st.booleans()), min_size=1, max_size=300),
)
def test_names_that_are_remembered_or_not_are_told_apart_by_organisation(
    orgs: int, names: int, remembered: int, drawn: list[tuple[int, int, bool]]
) -> None:
    """Codes that lie close are told apart by an array, others by sorting; both say the same of every row."""
    scopes = Scopes()
    scopes.text_codes(pl.Series([f"other-{number}" for number in range(remembered)], dtype=pl.String))
    scopes.text_codes(pl.Series([f"known-{number}" for number in range(names)]))
    rows = [(f"org-{org % orgs}", f"{'known' if known else 'new'}-{name % names}") for org, name, known in drawn]
    found = scopes.distinct(
        pl.Series([name for _, name in rows]), scopes.text_codes(pl.Series([org for org, _ in rows])), "user"
    )
    assert [rows[at] for at in found.first[found.where].tolist()] == rows
    assert found.first.size == len(set(rows))
    for at in range(found.numbers.size):
        scopes.enter(found, at)
    assert [scopes.names[number] for number in found.numbers[found.where].tolist()] == [
        (org, "user", name) for org, name in rows
    ]
