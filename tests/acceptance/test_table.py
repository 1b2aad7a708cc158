"""The table of rows is whole: each has a test, each test a row, and docs/features.md says what it says."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.checks import Check, Lacking
from tests.acceptance.conftest import judge
from tests.acceptance.page import FILE, page
from tests.acceptance.rows import ROWS, Row

HERE = Path(__file__).parent
COUNTS = {"U": 8, "A": 13, "B": 4, "C": 11, "D": 10, "E": 5, "P": 17, "Q": 10}


def test_each_row_has_one_test() -> None:
    tests = Counter(
        node.name.removeprefix("test_").upper()
        for file in HERE.glob("test_?.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )
    assert set(tests.values()) == {1}
    assert set(tests) == {row.code for row in ROWS}
    assert Counter(row.code[0] for row in ROWS) == COUNTS


def test_the_page_says_what_the_table_says() -> None:
    assert FILE.read_text(encoding="utf-8") == page(ROWS), "run python -m tests.acceptance --docs"


def checked(**steps: str) -> Check:
    """A check whose steps ended so."""
    check = Check("X1")
    for words, result in steps.items():
        with check.step(words):
            if result == "unchecked":
                raise Lacking("no Docker")
            assert result == "holds"
    return check


def test_states() -> None:
    assert checked(a="holds", b="holds").state == "works"
    assert checked(a="fails", b="fails").state == "missing"
    assert checked(a="holds", b="fails", c="unchecked").state == "partly: missing: b; c (not checked: no Docker)"
    assert checked().state == "missing"


ENDS = [
    ("as declared", {"a": "holds"}, Row("X1", "x"), None),
    ("broken", {"a": "fails", "b": "holds"}, Row("X1", "x"), pytest.fail.Exception),
    ("a gap", {"a": "holds", "b": "fails"}, Row("X1", "x", gaps=("b",)), pytest.xfail.Exception),
    ("all missing", {"a": "fails"}, Row("X1", "x", missing=True), pytest.xfail.Exception),
    ("better", {"a": "holds", "b": "holds"}, Row("X1", "x", gaps=("b",)), pytest.fail.Exception),
    ("better than missing", {"a": "holds", "b": "fails"}, Row("X1", "x", missing=True), pytest.fail.Exception),
    ("a gap that has no step", {"a": "holds"}, Row("X1", "x", gaps=("b",)), pytest.fail.Exception),
    ("not checked", {"a": "holds", "b": "unchecked"}, Row("X1", "x", gaps=("b",)), pytest.skip.Exception),
    ("not checked, not declared", {"a": "holds", "b": "unchecked"}, Row("X1", "x"), pytest.skip.Exception),
]


@pytest.mark.parametrize(("steps", "row", "ends"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
def test_a_row_ends_as_it_deserves(steps: dict[str, str], row: Row, ends: type[BaseException] | None) -> None:
    if ends is None:
        judge(checked(**steps), row)
        return
    with pytest.raises(ends):
        judge(checked(**steps), row)
