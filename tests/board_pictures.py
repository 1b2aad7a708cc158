"""A picture of each board without a Grafana: drawn here, from the board's JSON and the answers to its queries.

Grafana draws the same its own way; what stands in these pictures is what its panels would be given.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from tests.browser import picture
from tests.grafana import Range, expanded
from tollmeter.sinks.clickhouse.client import ClickHouse

BOARDS = Path(__file__).parents[1] / "dashboards" / "grafana" / "boards"
ROW_PX, LINES, SERIES = 30, {"table": 22, "bargauge": 26}, 8
COLOURS = ("#2f7d4f", "#b3541e", "#2b5fa8", "#8a2be2", "#946c00", "#0f766e", "#a3161b", "#555")
STYLE = """body { font: 12px system-ui, sans-serif; margin: 12px; background: #f4f5f5; width: 1256px; color: #1a1f1c; }
h1 { font-size: 17px; margin: 0; } p { margin: 2px 0 8px; color: #55605a; }
main { display: grid; grid-template-columns: repeat(24, 1fr); grid-auto-rows: 30px; gap: 6px; }
section { background: #fff; border: 1px solid #d9ded9; border-radius: 3px; padding: 5px 8px; overflow: hidden; }
h2 { font-size: 12px; margin: 0 0 4px; } table { border-collapse: collapse; width: 100%; } td, th { text-align: left; }
td, th { white-space: nowrap; padding: 1px 8px 1px 0; border-top: 1px solid #eee; } .n { text-align: right; }
.stat { display: flex; gap: 22px; } b { font-size: 21px; display: block; } svg { width: 100%; }
.bar { background: #2f7d4f; height: 9px; }"""


def boards() -> Iterator[dict[str, Any]]:
    """Give the boards as they are committed."""
    for file in sorted(BOARDS.glob("*.json")):
        yield json.loads(file.read_text(encoding="utf-8"))


def drawn(board: dict[str, Any], reader: ClickHouse, over: Range) -> str:
    """Return a board as a page."""
    panels = "".join(_panel(panel, reader, over) for panel in board["panels"])
    return (
        f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style><h1>{escape(board["title"])}</h1>'
        "<p>Drawn by tests.board_pictures from the board's JSON and the answers to its queries, without a Grafana.</p>"
        f"<main>{panels}</main>"
    )


def take(page: Any, reader: ClickHouse, over: Range, folder: Path) -> list[Path]:
    """Take a picture of the upper part of each board, and return the files."""
    page.set_viewport_size({"width": 1280, "height": 760})
    page.goto("about:blank")  # a page of the server allows no style in what is set in its place
    found = []
    for board in boards():
        page.set_content(drawn(board, reader, over))
        found.append(folder / f"{board['uid'].replace('tollmeter', 'grafana')}.webp")
        picture(page, found[-1], quality=40)
    return found


def _panel(panel: dict[str, Any], reader: ClickHouse, over: Range) -> str:
    place, rows = panel["gridPos"], []
    for target in panel["targets"]:
        rows += reader.query(expanded(target["rawSql"], over, {"zone": "UTC"}))
    draw = {"stat": _stat, "table": _table, "bargauge": _bars, "timeseries": _series}[panel["type"]]
    inside = draw(panel, rows) if rows else escape(panel["fieldConfig"]["defaults"].get("noValue", "no data"))
    at = f"grid-column: {place['x'] + 1} / span {place['w']}; grid-row: {place['y'] + 1} / span {place['h']}"
    return f'<section style="{at}"><h2>{escape(panel["title"])}</h2>{inside}</section>'


def _units(panel: dict[str, Any], column: str) -> tuple[str, int]:
    """Return unit and decimals of a column: the panel's, or what an override says."""
    said = {"unit": "none", "decimals": 2} | panel["fieldConfig"]["defaults"]
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == column:
            said |= {one["id"]: one["value"] for one in override["properties"]}
    return str(said["unit"]), int(said["decimals"])


def _text(panel: dict[str, Any], column: str, value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, str) or not isinstance(value, int | float):
        return escape(str(value))
    unit, decimals = _units(panel, column)
    if unit == "currencyUSD":
        return f"${value:,.{decimals}f}"
    return f"{value:,.1f}{' s' if unit == 's' else ' %' if unit == 'percent' else ''}".replace(".0", "")


def _stat(panel: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    shown = [f"<span><b>{_text(panel, name, value)}</b>{escape(name)}</span>" for name, value in rows[0].items()]
    return f'<div class="stat">{"".join(shown)}</div>'


def _table(panel: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    most = (panel["gridPos"]["h"] * ROW_PX - 45) // LINES["table"]
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(panel, name, value)}</td>" for name, value in row.items()) for row in rows[:most]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _bars(panel: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    most = (panel["gridPos"]["h"] * ROW_PX - 30) // LINES["bargauge"]
    found = [_split(row) for row in rows[:most]]
    longest = max((value for _, numbers in found for value in list(numbers.values())[:1]), default=0) or 1
    shown = []
    for name, numbers in found:
        column, value = next(iter(numbers.items()))
        width = 100 * max(0, value) / longest
        text = _text(panel, column, value)
        shown.append(f'<div>{escape(name or column)} {text}<div class="bar" style="width: {width:.1f}%"></div></div>')
    return "".join(shown)


def _series(panel: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name, numbers = _split({key: value for key, value in row.items() if key != "time"})
        for column, value in numbers.items():
            lines.setdefault(name or column, []).append((row["time"].timestamp(), value))
    times = [at for points in lines.values() for at, _ in points]
    first, span = min(times), (max(times) - min(times)) or 1
    high = max(value for points in lines.values() for _, value in points) or 1
    dearest = sorted(lines, key=lambda name: -sum(value for _, value in lines[name]))[:SERIES]
    drawn_lines, names = [], []
    for name, colour in zip(dearest, COLOURS, strict=False):
        places = [(1000 * (at - first) / span, 195 - 190 * value / high) for at, value in sorted(lines[name])]
        if len(places) == 1:  # a line of one point would not show
            places = [(x + step, y) for x, y in places for step in (-3, 3)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn_lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        names.append(f'<span style="color: {colour}">■ {escape(name)}</span>')
    tall = panel["gridPos"]["h"] * ROW_PX - 60
    box = f'<svg viewBox="0 0 1000 200" preserveAspectRatio="none" style="height: {tall}px">'
    return f"{box}{''.join(drawn_lines)}</svg>{' '.join(names)}"


def _split(row: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """Return the names of a row as one, and its numbers."""
    numbers = {name: float(value) for name, value in row.items() if _is_number(value)}
    names = [str(value) for value in row.values() if isinstance(value, str) and value]
    return " ".join(names), numbers or {"": 0.0}


def _is_number(value: object) -> bool:
    if value is None or isinstance(value, bool | str | datetime):
        return False
    return re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?", str(value)) is not None
