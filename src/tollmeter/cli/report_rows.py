"""Rows of a report for people, for machines and for spreadsheets; what is not known stands beside every sum."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import wraps
from typing import Any, Literal
from zoneinfo import ZoneInfo

import click

from tollmeter.admin.reports import questions
from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.admin.reports.questions import Answered
from tollmeter.admin.reports.rows import DOUBTS, NAMES, REFUSED, SUBSCRIBED, Row, document, pick, plain, usd
from tollmeter.cli.output import UserError, err, json_option, out, print_json, print_table

Form = Literal["table", "json", "csv"]


def form_option(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command --json and --csv; it gets them as `form`."""

    @wraps(command)
    def run(*args: object, as_json: bool, as_csv: bool, **rest: object) -> object:
        if as_json and as_csv:
            raise UserError("one form at a time: --json or --csv")
        return command(*args, form="json" if as_json else "csv" if as_csv else "table", **rest)

    csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, safe to open in a spreadsheet.")
    return csv_option(json_option(run))


def show(
    title: str, answered: Answered, columns: Sequence[str], asked: Asked, form: Form, spare: Sequence[str] = ()
) -> None:
    """Print a report; for people with lines on the whole period: what is not known of it, and how old it is."""
    rows, now = answered.rows, datetime.now(UTC)
    if form == "json":
        print_json(questions.document(answered, asked, document(rows, columns), now))
        return
    if form == "csv":
        tell_kept(answered.kept, asked.zone)
        apart, owners = REFUSED if "calls" in columns else (), NAMES if "api_key_id" in columns else ()
        names = [*columns, *apart, *DOUBTS, *owners]
        click.echo(csv_text(names, [plain(pick(row, names)) for row in rows]), nl=False)
        return
    doubts = DOUBTS if any(row["unpriced"] or row.get("usd_at_risk") for row in rows) else ()
    refused = REFUSED if any(row.get("refused") for row in rows) else ()
    labels = ("label",) if "label" not in columns and any(row.get("label") for row in rows) else ()
    paid = SUBSCRIBED if any(row.get("subscription_calls") for row in rows) else ()
    shown = [_readable(pick(_small(row), [*columns, *refused, *doubts, *paid, *labels]), asked.zone) for row in rows]
    print_table(title, shown, spare=spare)
    for reason in answered.why_none:
        out.print(reason)
    _tell_totals(answered, asked, now)


def tell_kept(kept: datetime | None, zone: ZoneInfo) -> None:
    """Say on stderr from when on calls are kept, where a period begins before it."""
    if kept is not None:
        local = kept.astimezone(zone)
        err.print(f"calls before {local:%Y-%m-%d %H:%M} {zone.key} are deleted for their age: they are missing here")


def _tell_totals(answered: Answered, asked: Asked, now: datetime) -> None:
    total, age_s = answered.total, answered.totals(now)["age_s"]
    cost = usd(total["total_nano"])
    calls = f"{total['calls']:,} calls" + (f" ({total['refused']:,} of them refused)" if total["refused"] else "")
    out.print(f"total: {'unknown' if cost is None else cost} USD in {calls}, {asked.said()}")
    tell_kept(answered.kept, asked.zone)
    if total["unpriced"]:
        risk = f", at most about {usd(total['risk_nano'])} USD" if total["risk_nano"] else ""
        out.print(f"not in it: {total['unpriced']:,} calls of unknown cost{risk}")
    elif total["risk_nano"]:
        out.print(f"not in it: at most about {usd(total['risk_nano'])} USD of calls whose price is not wholly known")
    if total["subscription_calls"]:
        worth = f", worth {usd(total['value_nano'])} USD by the list" if total["value_nano"] else ""
        out.print(f"not in it: {total['subscription_calls']:,} calls that subscriptions pay{worth}")
    age = "no event has come yet" if age_s is None else f"the newest event came {timedelta(seconds=age_s)} ago"
    out.print(f"{total['estimated']:,} estimated, {total['corrected']:,} corrected; age: {age}")
    rates = " to ".join(dict.fromkeys(f"{at}" for at in (total["fx_from"], total["fx_until"]) if at))
    books = f"priced by {', '.join(total['price_books'])}" if total["price_books"] else ""
    if books or rates:
        out.print("; ".join(filter(None, (books, rates and f"exchange rates of {rates}"))))


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
