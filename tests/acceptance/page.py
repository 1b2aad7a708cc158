"""docs/features.md from the table of rows."""

from collections.abc import Sequence
from pathlib import Path

from tests.acceptance.checks import MISSING, WORKS
from tests.acceptance.rows import GROUPS, Row

FILE = Path(__file__).parents[2] / "docs" / "features.md"

_HEAD = """# What works

{works} of {all} rows work, {partly} work in part, {missing} are not built. Each row has a test of its name in
`tests/acceptance/`, which meets a running stack as its user does and compares with values worked out by hand. A row
whose state differs from this table, for the worse or for the better, makes the suite red. `python -m tests.acceptance
--json` runs them all; `python -m tests.acceptance --docs` writes this page.
"""


def page(rows: Sequence[Row]) -> str:
    """Return the page."""
    states = [row.state for row in rows]
    works, missing = states.count(WORKS), states.count(MISSING)
    parts = [_HEAD.format(works=works, all=len(rows), partly=len(rows) - works - missing, missing=missing)]
    for letter, title in GROUPS.items():
        lines = [f"\n## {title}\n", "| row | what | state |", "|---|---|---|"]
        lines += [f"| {row.code} | {row.words} | {row.state} |" for row in rows if row.code[0] == letter]
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)
