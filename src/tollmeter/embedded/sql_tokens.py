"""A SQL text becomes tokens and is written anew from them: what is judged is what is run, whatever the quoting was.

Comments are dropped, heredocs become strings, names in quotes are decoded and quoted again in one way. What no token
begins with (quotes and blanks from word processors, `$`, `;` between statements, NUL) is refused, never passed over.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

MAX_CHARACTERS = 64 << 10


class Kind(Enum):
    """What a token is."""

    WORD = "word"
    NAME = "quoted name"
    STRING = "string"
    NUMBER = "number"
    SIGN = "sign"


@dataclass(frozen=True, slots=True)
class Token:
    """`text` is what is run; `value` is the name of a word or a quoted name without its quoting, else `text`."""

    kind: Kind
    text: str
    value: str
    gap: bool
    """Whether blanks or a comment stood before it."""

    @property
    def word(self) -> str:
        """The word in capitals when it may be a keyword, else nothing."""
        return self.value.upper() if self.kind is Kind.WORD else ""

    @property
    def named(self) -> bool:
        """Whether it may name a function, a table or a column."""
        return self.kind is Kind.WORD or self.kind is Kind.NAME


class NotTokens(ValueError):  # noqa: N818 -- says what the text is
    """The text cannot be cut into tokens; the message says where and why."""


_NEXT = re.compile(
    r"""
    (?P<gap>[ \t\n\r\f\v]+|--[^\n]*|//[^\n]*|\#[ !][^\n]*)
    |(?P<comment>/\*)
    |(?P<string>'(?:[^'\\]|\\(?s:.)|'')*'(?!'))
    |`(?P<back>(?:[^`\\]|\\(?s:.)|``)*)`(?!`)
    |"(?P<double>(?:[^"\\]|\\(?s:.)|"")*)"(?!")
    |\$(?P<tag>[A-Za-z0-9_]*)\$(?P<heredoc>(?s:.*?))\$(?P=tag)\$
    |(?P<number>(?:0[xX][0-9a-fA-F]+|0[bB][01]+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w$]))
    |(?P<bits>[xX]'[0-9a-fA-F]*'|[bB]'[01]*')
    |(?P<word>(?![bBxX]')[A-Za-z_][A-Za-z0-9_]*(?![\w$]))
    |(?P<sign>->|::|\|\||<=>|<=|>=|<>|==|!=|[()\[\]{},.*+\-/%=<>:?;])
    """,
    re.VERBOSE | re.ASCII,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "0": "\0", "a": "\a", "v": "\v", "e": "\x1b"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


def tokens(text: str) -> list[Token]:
    """Return the tokens of one statement, a `;` at its end left out. Raises `NotTokens`."""
    if len(text) > MAX_CHARACTERS:
        raise NotTokens(f"a statement of more than {MAX_CHARACTERS} characters")
    if "\0" in text:
        raise NotTokens("a NUL character")
    found: list[Token] = []
    place, gap = 0, False
    while place < len(text):
        match = _NEXT.match(text, place)
        if match is None:
            raise NotTokens(f"{text[place : place + 20]!r} at character {place}")
        place = match.end()
        if match.lastgroup == "comment":
            place, gap = _behind_comment(text, place), True
        elif match.lastgroup == "gap":
            gap = True
        else:
            found.append(_token(match, gap))
            gap = False
    while found and found[-1].text == ";":
        found.pop()
    if any(token.text == ";" and token.kind is Kind.SIGN for token in found):
        raise NotTokens("several statements")
    return found


def _behind_comment(text: str, place: int) -> int:
    """Return the place behind a comment that has begun; one may stand in another. Raises `NotTokens`."""
    depth = 1
    for mark in _COMMENT_MARK.finditer(text, place):
        depth += 1 if mark.group() == "/*" else -1
        if not depth:
            return mark.end()
    raise NotTokens("a comment without its end")


def write(found: Sequence[Token]) -> str:
    """Return the statement that the tokens make, apart where they were apart and around everything quoted."""
    return "".join(_written(found)).strip()


def _written(found: Iterable[Token]) -> Iterable[str]:
    quoted = False
    for token in found:
        now = token.kind in (Kind.NAME, Kind.STRING)
        yield " " if token.gap or quoted or now else ""
        yield token.text
        quoted = now


def _token(match: re.Match[str], gap: bool) -> Token:
    group, text = match.lastgroup, match.group()
    if group == "back" or group == "double":
        name = _decoded(match.group(group), "`" if group == "back" else '"')
        if _UNPRINTABLE.search(name) or not name:
            raise NotTokens(f"a name with a character that cannot be shown: {name[:40]!r}")
        return Token(Kind.NAME, quoted_name(name), name, gap)
    if group == "heredoc":
        return Token(Kind.STRING, literal(match.group(group)), "", gap)
    if group == "string" or group == "bits":
        return Token(Kind.STRING, text, "", gap)
    kind = {"number": Kind.NUMBER, "word": Kind.WORD, "sign": Kind.SIGN}[group or ""]
    return Token(kind, text, text, gap)


def _decoded(inner: str, quote: str) -> str:
    r"""Undo the escapes of a quoted name: `\xHH` is a byte, an unknown escape keeps its backslash."""
    raw = bytearray()
    place = 0
    for match in _ESCAPE.finditer(inner):
        raw += inner[place : match.start()].replace(quote * 2, quote).encode("utf-8", "surrogatepass")
        place = match.end()
        raw += bytes([int(match[1], 16)]) if match[1] else _unescaped(match[2]).encode("utf-8", "surrogatepass")
    raw += inner[place:].replace(quote * 2, quote).encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "replace")


def _unescaped(character: str) -> str:
    if character in _CONTROLS:
        return _CONTROLS[character]
    if character == "N":
        return ""
    return character if character in "\\'\"`/=" or character < " " else "\\" + character


def quoted_name(name: str) -> str:
    """Return a name as SQL has it in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """Return a SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
