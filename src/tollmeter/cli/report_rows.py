"""Rows of a report for people, for machines and for spreadsheets; what is not known stands beside every sum."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import wraps
from typing import Any, Literal
from zoneinfo import ZoneInfo

import click

from tollmeter.cli.csv_text import csv_text
from tollmeter.cli.ledger import plain
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.report_options import Asked
from tollmeter.schemas.money import NANO_PER_USD

Row = dict[str, Any]
Form = Literal["table", "json", "csv"]
PLACES = 4
DOUBTS = ("unpriced", "usd_at_risk")


def form_option(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command --json and --csv; it gets them as `form`."""

    @wraps(command)
    def run(*args: object, as_json: bool, as_csv: bool, **rest: object) -> object:
        if as_json and as_csv:
            raise UserError("one form at a time: --json or --csv")
        return command(*args, form="json" if as_json else "csv" if as_csv else "table", **rest)

    csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, safe to open in a spreadsheet.")
    return csv_option(json_option(run))


def pick(row: Mapping[str, object], columns: Sequence[str]) -> Row:
    return {name: row[name] for name in columns}


def document(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> list[Row]:
    """Return rows as JSON carries them; where a cost is unknown, with how many calls that are and their risk."""
    return [plain(pick(row, [*columns, *(DOUBTS if row["unpriced"] else ())])) for row in rows]


def show(
    title: str,
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[str],
    asked: Asked,
    total: dict[str, Any],
    form: Form,
    spare: Sequence[str] = (),
) -> None:
    """Print rows; for people a line with the whole period, and what in it is not known."""
    if form == "json":
        print_json(document(rows, columns))
        return
    if form == "csv":
        names = [*columns, *DOUBTS]
        click.echo(csv_text(names, [plain(pick(row, names)) for row in rows]), nl=False)
        return
    doubts = DOUBTS if any(row["unpriced"] for row in rows) else ()
    shown = [_readable(pick(_small(row), [*columns, *doubts]), asked.zone) for row in rows]
    print_table(title, shown, spare=spare)
    if rows:
        cost = usd(total["total_nano"])
        out.print(f"total: {'unknown' if cost is None else cost} USD in {total['calls']:,} calls, {asked.said()}")
        if total["unpriced"]:
            risk = f", at most about {usd(total['risk_nano'])} USD" if total["risk_nano"] else ""
            out.print(f"not in it: {total['unpriced']:,} calls of unknown cost{risk}")


def usd(nano: int | None, places: int = PLACES, rounding: str = ROUND_HALF_EVEN) -> str | None:
    """Return nano-USD as USD with so many decimals; what is there but would read 0 is "<0.01"."""
    if nano is None:
        return None
    unit = Decimal(1).scaleb(-places)
    amount = (Decimal(int(nano)) / NANO_PER_USD).quantize(unit, rounding)
    return f"<{unit}" if nano > 0 and amount == 0 else f"{amount}"


def _small(row: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the row with sums that say "<0.0001" where they would read 0."""
    if "total_nano" not in row:
        return row
    risk = row["risk_nano"] or (None if row["unpriced"] else 0)
    return {**row, "usd_est": usd(row["total_nano"]), "usd_at_risk": usd(risk)}


def _readable(row: Row, zone: ZoneInfo) -> Row:
    return {name: _said(name, value, zone) for name, value in row.items()}


def _said(name: str, value: Any, zone: ZoneInfo) -> object:
    if isinstance(value, datetime):
        local = value.astimezone(zone)
        return f"{local:%Y-%m-%d %H:%M:%S}{'Z' if zone.key == 'UTC' else local.strftime('%z')}"
    if isinstance(value, date):
        return value.isoformat()
    if name == "unpriced":
        return int(value)
    return f"{value:f}" if isinstance(value, Decimal) else value
