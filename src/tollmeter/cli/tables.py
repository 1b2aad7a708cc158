"""Rows as text of a given width: a grid where it fits, fewer columns where that helps, else a block a row. Pure."""

import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from tollmeter.schemas.escapes import one_line

NONE = "—"
GAP = 2
WORDS = 24
"""A column of words may become as narrow as this before others are left out."""


class Table(NamedTuple):
    """The lines, whether the first two are the head, and the columns for which there was no room."""

    lines: list[str]
    headed: bool = False
    left_out: tuple[str, ...] = ()


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def fold(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` columns: between words, and within those that are longer."""
    lines, line = [], ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if columns_of(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = _pieces(word, width)
        lines += full
    return [*lines, line]


def layout(
    names: Sequence[str], rows: Sequence[Mapping[str, object]], spare: Sequence[str], width: int | None
) -> Table:
    """Return rows as a table; None for `width` means that every line may be as long as it is."""
    texts = {name: [_text(row.get(name)) for row in rows] for name in names}
    right = {name for name in names if all(_is_number(row.get(name)) for row in rows)}
    for left in range(len(spare) + 1):
        gone = tuple(name for name in names if name in spare[len(spare) - left :])
        kept = {name: texts[name] for name in names if name not in gone}
        widths = _widths(kept, width)
        if widths is not None:
            return Table(_grid(kept, widths, right), headed=True, left_out=gone)
    return Table(_blocks(texts, len(rows), width or 80))


def _text(value: object) -> str:
    return NONE if value is None else one_line(value)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))


def _widths(texts: Mapping[str, Sequence[str]], width: int | None) -> dict[str, int] | None:
    """Return the width of each column; None when they do not fit, not even with the widest column of words folded."""
    widths = {name: max(columns_of(text) for text in (name, *column)) for name, column in texts.items()}
    if width is None:
        return widths
    over = sum(widths.values()) + GAP * (len(widths) - 1) - width
    if over <= 0:
        return widths
    wordy = [name for name, column in texts.items() if any(" " in text for text in column)]
    widest = max(wordy, key=lambda name: widths[name], default="")
    if not wordy or widths[widest] - over < max(WORDS, columns_of(widest)):
        return None
    return widths | {widest: widths[widest] - over}


def _grid(texts: Mapping[str, Sequence[str]], widths: Mapping[str, int], right: set[str]) -> list[str]:
    rule = {name: "-" * width for name, width in widths.items()}
    lines = []
    for row in ({name: name for name in texts}, rule, *_turned(texts)):
        cells = {name: fold(text, widths[name]) for name, text in row.items()}
        for number in range(max(len(cell) for cell in cells.values())):
            parts = (_cell(cell, number, widths[name], name in right) for name, cell in cells.items())
            lines.append((" " * GAP).join(parts).rstrip())
    return lines


def _turned(texts: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]


def _cell(lines: Sequence[str], number: int, width: int, right: bool) -> str:
    text = lines[number] if number < len(lines) else ""
    room = " " * (width - columns_of(text))
    return room + text if right else text + room


def _blocks(texts: Mapping[str, Sequence[str]], count: int, width: int) -> list[str]:
    label = max(columns_of(name) for name in texts)
    lines = []
    for number, row in enumerate(_turned(texts), 1):
        lines += ["", *fold(f"{number} of {count}", width)]
        for name, text in row.items():
            head = f"  {name}{' ' * (label - columns_of(name))}  "
            if columns_of(head) + columns_of(text) <= width:
                lines.append(head + text)
            elif columns_of(head) + WORDS <= width and " " in text:
                first, *rest = fold(text, width - columns_of(head))
                lines += [head + first, *(" " * columns_of(head) + line for line in rest)]
            else:
                lines += [f"  {name}", *(f"    {line}" for line in fold(text, max(1, width - 4)))]
    return lines[1:]


def _pieces(word: str, width: int) -> list[str]:
    """Cut a word into pieces of at most `width` columns; the last may have room left."""
    pieces, piece = [], ""
    for letter in word:
        if piece and columns_of(piece + letter) > width:
            pieces.append(piece)
            piece = ""
        piece += letter
    return [*pieces, piece]
