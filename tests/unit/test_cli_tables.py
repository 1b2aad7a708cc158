"""Tables fit the terminal, lose nothing without saying so, and cannot be told what to do by names from outside."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.terminals import CODES, in_pipe, in_terminal, widest
from tollmeter.cli.tables import columns_of, fold, layout
from tollmeter.schemas.escapes import one_line

ROWS = [
    {"model": "gpt-4o", "calls": 12, "usd": Decimal("0.0450"), "why": "the smallest limit of three for each member"},
    {"model": "claude-sonnet-4-5", "calls": 7, "usd": None, "why": "the only one"},
]
NAMES = ["model", "calls", "usd", "why"]


def test_a_grid_where_there_is_room() -> None:
    assert layout(NAMES, ROWS, (), None).lines == [
        "model              calls     usd  why",
        "-----------------  -----  ------  -------------------------------------------",
        "gpt-4o                12  0.0450  the smallest limit of three for each member",
        "claude-sonnet-4-5      7       —  the only one",
    ]


def test_words_are_folded_first() -> None:
    assert layout(NAMES, ROWS, (), 64).lines[2:] == [
        "gpt-4o                12  0.0450  the smallest limit of three",
        "                                  for each member",
        "claude-sonnet-4-5      7       —  the only one",
    ]


def test_then_spare_columns_are_left_out_and_named() -> None:
    table = layout(NAMES, ROWS, ("calls", "why"), 40)
    assert table.left_out == ("why",)
    assert table.lines[0] == "model              calls     usd"


def test_else_a_block_a_row() -> None:
    assert layout(NAMES, ROWS, (), 30).lines == [
        "1 of 2",
        "  model  gpt-4o",
        "  calls  12",
        "  usd    0.0450",
        "  why",
        "    the smallest limit of",
        "    three for each member",
        "",
        "2 of 2",
        "  model  claude-sonnet-4-5",
        "  calls  7",
        "  usd    —",
        "  why    the only one",
    ]


WORDS = st.text(st.sampled_from("abcdef   -_.1é名前…\x1b\n\u202e"), max_size=60)


@given(
    rows=st.lists(st.tuples(WORDS, WORDS, st.none() | st.integers(), WORDS), min_size=1, max_size=4),
    width=st.integers(20, 120),
    spare=st.sets(st.sampled_from("acd")),
)
def test_no_line_is_wider_and_no_text_is_lost(
    rows: list[tuple[str, str, int | None, str]], width: int, spare: set[str]
) -> None:
    given_rows = [dict(zip("abcd", row, strict=True)) for row in rows]
    table = layout("abcd", given_rows, sorted(spare), width)
    assert all(columns_of(line) <= width for line in table.lines)
    assert set(table.left_out) <= spare
    shown = sorted("".join(table.lines))
    for row in given_rows:
        for name, value in row.items():
            if name not in table.left_out:
                for letter in one_line("—" if value is None else str(value)).replace(" ", ""):
                    assert letter in shown


@given(text=WORDS, width=st.integers(2, 50))
def test_folding_keeps_every_letter_in_order(text: str, width: int) -> None:
    text = one_line(text)
    lines = fold(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(columns_of(line) <= width for line in lines)


@given(st.text())
def test_a_terminal_has_nothing_to_obey(text: str) -> None:
    shown = one_line(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gpt\x1b[31m-4o", "gpt\\x1b[31m-4o"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b2J", "\\x9b2J"),
        ("\ud800x", "\\ud800x"),
        ("abc\u202etxt", "abc\\u202etxt"),
        ("[red]名前[/red]", "[red]名前[/red]"),
    ],
)
def test_what_comes_from_outside_is_spelled_out(text: str, shown: str) -> None:
    assert one_line(text) == shown


@pytest.mark.parametrize("width", [80, 40])
def test_a_real_table_in_a_narrow_terminal(width: int) -> None:
    coloured = in_terminal(width, "prices", "show", "gpt-4o", NO_COLOR="1" if width == 40 else "")
    assert bool(CODES.search(coloured)) == (width == 80), "colour is for terminals that want it"
    shown = CODES.sub("", coloured)
    table, rules, _ = shown.partition("\n  openai/gpt-4o")
    assert rules
    assert widest(table) <= width
    assert {"2.5", "10", "input", "output"} <= set(table.split())


def test_a_pipe_is_plain_and_not_broken() -> None:
    text = in_pipe("prices", "show", "gpt-4o", COLUMNS="20", PYTHONIOENCODING="latin-1").stdout.decode()
    assert "\x1b" not in text
    assert "\\u2014" in text, "an absent price, where there is no dash to print"
    head = next(line for line in text.splitlines() if line.startswith("provider"))
    assert {"tier", "input", "output"} <= set(head.split())
