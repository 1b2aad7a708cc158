"""What a board is: panels with one question each, and where a reader goes from there. Values, without Grafana."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["stat", "table", "series", "bars"]
USD, COUNT, TOKENS, SECONDS, PERCENT = "currencyUSD", "short", "locale", "s", "percent"
UNITS = {
    **dict.fromkeys(
        ("calls", "unpriced", "refused", "keys", "users", "addresses", "sessions", "by subscription"), COUNT
    ),
    **dict.fromkeys(("input", "output", "tokens", "fresh input", "cached input", "written to cache"), TOKENS),
    **dict.fromkeys(("hour", "input for one output"), "none"),
}
"""The unit of a column by its name; what begins with USD is money, and all others have the unit of their panel."""
_COLUMN = re.compile(r'AS "([^"]+)"')


@dataclass(frozen=True, slots=True)
class Panel:
    """One question, and how its answer is drawn.

    `sql` answers one row for a stat, rows for a table or bars, and a column `time` with numbers beside it for a series.
    Columns that people see are named in double quotes, `decimals` holds for money.
    `warn`: from which value on a stat is amber and red. `columns`: variable that a click on a column of a table sets.
    """

    kind: Kind
    title: str
    about: str
    sql: str
    unit: str
    width: int = 12
    height: int = 8
    decimals: int = 2
    warn: tuple[float, float] | None = None
    deeper: str = ""
    """uid of the board that shows more of it."""
    columns: Mapping[str, str] = field(default_factory=dict)
    empty: str = "no data"

    def units(self) -> dict[str, str]:
        """Return the columns that have another unit than the panel."""
        named = {name: USD if name.startswith("USD") else UNITS.get(name, self.unit) for name in self.shown()}
        return {name: unit for name, unit in named.items() if unit != self.unit}

    def shown(self) -> list[str]:
        """Return the columns that the SQL names for people."""
        return list(dict.fromkeys(_COLUMN.findall(self.sql)))


@dataclass(frozen=True, slots=True)
class Board:
    """Panels in reading order, 24 columns wide; `variables` are the filters that its panels obey."""

    uid: str
    title: str
    about: str
    since: str
    panels: tuple[Panel, ...]
    variables: tuple[str, ...]


def pages(board: Board) -> list[tuple[int, int]]:
    """Return the place (x, y) of each panel: left to right, a new line where the next one does not fit."""
    places = []
    x = y = tallest = 0
    for panel in board.panels:
        if x + panel.width > 24:
            x, y, tallest = 0, y + tallest, 0
        places.append((x, y))
        x, tallest = x + panel.width, max(tallest, panel.height)
    return places
