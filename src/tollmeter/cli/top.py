"""`tollmeter top`: what is being spent right now, by anything, from the log itself: also with ClickHouse away."""

import asyncio
import shutil
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from tollmeter.broker.client import BrokerError
from tollmeter.broker.layout import ProvisionError
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.tables import layout
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings
from tollmeter.streams.rules.windows.dimensions import DIMENSIONS, KEPT_S, STEP_S

if TYPE_CHECKING:
    from tollmeter.admin.tail import Tail
    from tollmeter.streams.rules.windows.recent import View

SORTS = {"cost": "cost_nano", "calls": "calls", "tokens": "output_tokens", "refused": "refused", "hour": "hour_nano"}
KEYS = {
    "k": "key",
    "u": "user",
    "m": "model",
    "i": "ip",
    "p": "provider",
    "o": "org",
    "g": "group",
    "a": "agent",
    "s": "service",
    "f": "feature",
    "e": "session",
}
"""What a key press shows."""
_SORT_KEYS = dict(zip("12345", SORTS, strict=True))
COLUMNS = (
    *("name", "org", "usd_per_min", "usd", "usd_hour", "calls_per_min", "tokens", "refused", "unpriced"),
    "usd_at_risk",
)
_SPARE = ("org", "tokens", "usd_at_risk", "usd_hour")
LATE_S = 60.0
"""Beyond it the age is pointed out: the line is behind."""


class Shown:
    """What is looked at; key presses change it."""

    def __init__(self, by: str, sort: str, window_s: int, org: str, rows: int) -> None:
        self.by, self.sort, self.window_s, self.org, self.rows = by, sort, window_s, org, rows
        self.ended = False

    def press(self, key: str) -> None:
        """Obey a key; others are nothing."""
        self.by, self.sort = KEYS.get(key, self.by), _SORT_KEYS.get(key, self.sort)
        self.ended = self.ended or key in ("q", "\x03")

    def view(self, source: "Tail", now_s: float) -> "View":
        """Return the sums of now."""
        return source.recent.top(
            self.by, now_s, self.window_s, orgs=[self.org] if self.org else [], sort=SORTS[self.sort]
        )


def looking(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options of what is looked at; it gets them as `shown`."""

    @wraps(command)
    def run(*args: object, by: str, sort: str, window: float, org: str, rows: int, **rest: object) -> object:
        if not STEP_S <= window <= KEPT_S:
            raise click.BadParameter(f"{window:g} s: between {STEP_S} s and an hour", param_hint="--window")
        return command(*args, shown=Shown(by, sort, int(window), org, rows), **rest)

    found: Callable[..., object] = run
    for option in (
        click.option(
            "--top", "rows", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many rows."
        ),
        click.option("--org", default="", help="Only this organisation."),
        click.option("--window", type=SPAN, default="5m", help="Sums of so much time, an hour at most [default: 5m]."),
        click.option(
            "--sort", type=click.Choice(list(SORTS)), default="cost", help="What comes first [default: cost]."
        ),
        click.option("--by", type=click.Choice(list(DIMENSIONS)), default="key", help="What a row is [default: key]."),
    ):
        found = option(found)
    return found


@click.command()
@looking
@click.option("--once", is_flag=True, help="Print what is now, and end; it is so without a terminal, too.")
@json_option
@click.pass_obj
def top(settings: Settings, shown: Shown, once: bool, as_json: bool) -> None:
    """Spend of this moment by key, user, model, address ..., read from the log: also with ClickHouse away.

    While it runs: k u m i p o g a s f e change what a row is, 1 to 5 what comes first, q ends it.
    """
    try:
        if once or as_json or not (out.is_terminal and sys.stdin.isatty()):
            asyncio.run(_once(settings, shown, as_json))
        else:
            with _keys():
                asyncio.run(_live(settings, shown))
    except (BrokerError, ProvisionError) as error:
        raise UserError(str(error)) from None


async def _once(settings: Settings, shown: Shown, as_json: bool) -> None:
    from tollmeter.admin.tail import tail

    async with tail(settings) as source:
        await source.catch_up()
        now_s = time.time()
        view = shown.view(source, now_s)
    if as_json:
        print_json(document(view, shown.rows, now_s, source.unreadable))
        return
    print_table(_title(view, now_s), lines(view, shown.rows), COLUMNS, spare=_SPARE)
    out.print(said(view, now_s, source.unreadable))


def document(view: "View", count: int, now_s: float, unreadable: int = 0) -> dict[str, Any]:
    """Return a view for machines: amounts in nano-USD, sums of `window_s`; `as_of` null while nothing was heard."""
    age_s = None if view.as_of_ms is None else round(max(0.0, now_s - view.as_of_ms / 1000), 3)
    as_of = None if view.as_of_ms is None else datetime.fromtimestamp(view.as_of_ms / 1000, UTC).isoformat()
    return {
        "by": view.by,
        "window_s": view.window_s,
        "as_of": as_of,
        "age_s": age_s,
        "total": dict(view.total),
        "rows": [dict(row) for row in view.rows[:count]],
        "more": max(0, len(view.rows) - count),
        "unreadable_records": unreadable,
    }


def lines(view: "View", count: int) -> list[dict[str, object]]:
    """Return a view for people; what is beyond `count` rows is one row, so that the sum is whole."""
    rest = view.rows[count:]
    rows = [_line(row["name"] or "(none)", row["org"], row, view.window_s) for row in view.rows[:count]]
    if rest:
        summed = {name: sum(row[name] for row in rest) for name in view.total}
        rows.append(_line(f"({len(rest)} others)", "", summed, view.window_s))
    return rows


def _line(name: str, org: str, row: dict[str, int], window_s: int) -> dict[str, object]:
    minutes = window_s / 60
    unknown = row["unpriced"] and not row["cost_nano"]
    hour = None if row["hour_unpriced"] and not row["hour_nano"] else row["hour_nano"]
    risk = None if row["unpriced"] and not row["at_risk_nano"] else row["at_risk_nano"]
    return {
        "name": name,
        "org": org,
        "usd_per_min": None if unknown else nano_to_text(round(row["cost_nano"] / minutes), 4),
        "usd": None if unknown else nano_to_text(row["cost_nano"], 4),
        "usd_hour": nano_to_text(hour, 4),
        "calls_per_min": f"{row['calls'] / minutes:.1f}",
        "tokens": row["input_tokens"] + row["output_tokens"],
        "refused": row["refused"],
        "unpriced": row["unpriced"],
        "usd_at_risk": nano_to_text(risk, 4),
    }


def said(view: "View", now_s: float, unreadable: int) -> str:
    """Return the totals, what is not in them, and how old they are."""
    minutes, total = view.window_s / 60, view.total
    unpriced = total["unpriced"]
    rate = None if unpriced and not total["cost_nano"] else round(total["cost_nano"] / minutes)
    risk = None if unpriced and not total["at_risk_nano"] else total["at_risk_nano"]
    text = (
        f"{nano_to_text(rate, 4)} USD a minute; not in it: {unpriced} calls "
        f"without a known price, {nano_to_text(risk, 4)} USD at risk; {_age(view, now_s)}"
    )
    return f"{text}; {unreadable} records could not be read" if unreadable else text


def _age(view: "View", now_s: float) -> str:
    if view.as_of_ms is None:
        return "nothing was heard of within an hour: is `tollmeter worker price` running?"
    age_s = max(0.0, now_s - view.as_of_ms / 1000)
    return f"{age_s:.0f} s old" + (": THE LINE IS BEHIND" if age_s > LATE_S else "")


def _title(view: "View", now_s: float) -> str:
    at = datetime.fromtimestamp(now_s, UTC)
    return f"spend by {view.by}, the last {view.window_s} s before {at:%Y-%m-%d %H:%M:%S} UTC"


async def _live(settings: Settings, shown: Shown) -> None:
    from tollmeter.admin.tail import tail

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: shown.press(sys.stdin.read(1)))
    async with tail(settings) as source:
        while not shown.ended:
            _draw(shown, source)
            await source.step(500)


def _draw(shown: Shown, source: "Tail") -> None:
    """Write the whole screen anew, cut to its size."""
    now_s = time.time()
    view = shown.view(source, now_s)
    width, height = shutil.get_terminal_size()
    table = layout(list(COLUMNS), lines(view, min(shown.rows, max(1, height - 6))), _SPARE, width)
    text = [_title(view, now_s), said(view, now_s, source.unreadable), "", *table.lines[: height - 4]]
    click.clear()
    for number, line in enumerate(text):
        out.print(line[: width * 2], bold=number in (0, 3))


@contextmanager
def _keys() -> Iterator[None]:
    """Give key presses one by one, and leave the terminal as it was."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
