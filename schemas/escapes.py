"""Text from outside on its way out, one function a way: whoever shows it obeys none of it. Pure, and never raises.

What cannot be seen and what turns the writing direction is spelled out everywhere, so that two names that differ look
different; beyond that each way has signs of its own, which lose their meaning there.
"""

import json
import re
from collections.abc import Mapping
from html import escape

MOST_CHARS = 2_000
"""Characters of one value that people are shown; JSON and CSV, which programs read, hold all of it."""
_UNSEEN_CLASS = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Control characters, marks of direction, characters without width or ink, tags, halves of characters."""
_UNSEEN = re.compile(f"[{_UNSEEN_CLASS}]")
_UNSEEN_IN_LINES = re.compile(f"(?!\n)[{_UNSEEN_CLASS}]")
_OBEYED = re.compile("(?!\n)[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks of direction, halves of characters."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula in one spreadsheet or another, also in full width."""
_BEGINS_FORMULA = re.compile(f"[\\s{_UNSEEN_CLASS}]*[{re.escape(''.join(FORMULA))}]")
_APART = "\u200b"
_CALLING = re.compile(
    r"(?<=@)(?=\S)|(?<=<)(?=[!@#&/?:\w])|(?<=\])(?=[(\[:])|(?<=:)(?=//)|(?<=\bwww)(?=\.)|(?<=\{)(?=[{%#])"
)
"""Where a mention, a tag, a link or a template of a chat begins to mean something."""


def one_line(text: object, most: int = MOST_CHARS) -> str:
    """Return a value as one line for a terminal, a log, a subject: at most so many characters, nothing it may obey."""
    return _UNSEEN.sub(_spelled, _cut(str(text), most))


def many_lines(text: object, most: int = 10 * MOST_CHARS) -> str:
    """Return a text of several lines, as a page, a mail and a traceback have: ends of lines stay."""
    return _UNSEEN_IN_LINES.sub(_spelled, _cut(str(text).replace("\r\n", "\n"), most))


def json_text(document: object, *, compact: bool = False) -> str:
    """Return a value as one line of JSON that a terminal shows and whatever reads it takes back as it was.

    `compact` has no blanks and its names in order: the same bytes for the same value.
    """
    separators = (",", ":") if compact else None
    text = json.dumps(document, ensure_ascii=False, default=str, separators=separators, sort_keys=compact)
    return escaped_json(text)


def escaped_json(text: str) -> str:
    """Return JSON that says the same without a character that is not seen."""
    return _UNSEEN.sub(_json_escape, text)


def html(text: object) -> str:
    """Return a value as text of a page, or of an attribute in quotes."""
    return escape(many_lines(text, MOST_CHARS))


def csv_cell(text: str) -> str:
    """Return a cell that a spreadsheet only reads: an apostrophe stands before what it would take for a formula."""
    seen = text if text.isprintable() else _OBEYED.sub(_spelled, text)
    return f"'{seen}" if begins_formula(text) else seen


def begins_formula(text: str) -> bool:
    """Tell whether a spreadsheet may take a cell for a formula, whatever blanks stand before it."""
    return _BEGINS_FORMULA.match(text) is not None


def csv_name(text: str) -> str:
    """Return a name for a CSV that we read again: as `csv_cell`, and so that `csv_name_of` gives the same name back."""
    return f"'{text}" if text.startswith("'") or begins_formula(text) else text


def csv_name_of(cell: str) -> str:
    """Return the name that `csv_name` made a cell of; a cell that others wrote is the name itself."""
    rest = cell.removeprefix("'")
    return rest if csv_name(rest) == cell else cell


def header_value(text: object) -> str:
    """Return a value as one header of HTTP holds it: ASCII that is seen, the rest spelled out."""
    return one_line(text).encode("ascii", "backslashreplace").decode()


def seen_values(document: object) -> object:
    """Return rows and lists with every text in them spelled out; for who reads them as words, as assistants do."""
    if isinstance(document, str):
        return many_lines(document, MOST_CHARS)
    if isinstance(document, Mapping):
        return {one_line(name): seen_values(value) for name, value in document.items()}
    return [seen_values(value) for value in document] if isinstance(document, list | tuple) else document


def chat_text(text: str, most: int) -> str:
    """Return a text for a chat, whichever: mentions, tags, links and templates are taken apart by a mark without width.

    What further signs mean in one chat (emphasis, entities) is escaped by who knows its syntax.
    """
    return _CALLING.sub(_APART, many_lines(text, most))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _spelled(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
