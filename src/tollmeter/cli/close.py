"""`tollmeter close`: the month's statement, frozen; later changes as adjustments; as text, JSON, CSV or a page."""

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tollmeter.admin.close import told
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.cli.ledger import reading
from tollmeter.cli.options import MONTH
from tollmeter.cli.output import UserError, err, json_option, out, print_json, print_table
from tollmeter.schemas.escapes import html
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.close import Statement

NAMES = ("org_id", "provider", "model", "api_key_id", "billing_scope")
COUNTS = ("calls", "input_tokens", "output_tokens", "unpriced", "estimated", "corrected")
MONEY = ("cost_nano", "cost_eur_nano", "cost_rub_nano", "at_risk_nano", "estimated_nano")
BESIDE = ("name", "quantity", "amount_nano", "currency")
"""A line with a name is a cost beside the calls, in its own currency, too."""
COLUMNS = ("month", *NAMES, *COUNTS, *MONEY, "without_eur", "without_rub", *BESIDE)


@click.command()
@click.argument("month", type=MONTH)
@click.option("--org", default="", help="The statement of this organisation [default: of all together].")
@click.option("--reopen", is_flag=True, help="Take the close back; the next close makes a new statement.")
@click.option("--reason", default="", help="Why; kept with the statement.")
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it as CSV, too.")
@click.option("--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write it as a page, too.")
@json_option
@click.pass_obj
def close(
    settings: Settings,
    /,
    month: date,
    org: str,
    reopen: bool,
    reason: str,
    csv_file: Path | None,
    html_file: Path | None,
    as_json: bool,
) -> None:
    """Freeze the statement of MONTH (2026-11, days of UTC), or show the one that stands.

    What arrives or is corrected later changes no statement: it is an adjustment in the next month's. The hash is taken
    over the whole statement, which holds hashes over the calls it stands on.
    """
    from tollmeter.admin import close as closing

    now = datetime.now(UTC)
    changes: list[dict[str, Any]] | None = []
    with reading(settings) as client:
        try:
            if reopen:
                made, fresh = closing.reopen(client, month, org, now, reason), True
            else:
                made, fresh = closing.close(client, month, org, now, reason, _stored_until(settings))
                changes = [] if fresh else closing.drift(client, made, org, now)
        except closing.CloseError as problem:
            raise UserError(str(problem)) from None
    _write(made, csv_file, html_file)
    if as_json:
        head = {"state": made.state, "closed_now": fresh and not reopen, "hash": made.hash}
        print_json({**made.content, **head, "reason": made.reason, "not_booked_yet": changes})
        return
    _tell(made, changes, fresh=fresh)


def _stored_until(settings: Settings) -> datetime | None:
    """Return until when all that was sent is stored, None where the broker does not say."""
    from tollmeter.admin.line_health import stored_until
    from tollmeter.admin.verify.position import LogUnreadableError

    try:
        return asyncio.run(stored_until(settings))
    except LogUnreadableError:
        return None


def _tell(made: "Statement", changes: list[dict[str, Any]] | None, *, fresh: bool) -> None:
    if made.state != "closed":
        out.print(f"{made.month} is open again: {made.reason}")
        return
    content = made.content
    shown = [{**row, "usd": nano_to_text(told(row)["cost_nano"])} for row in content["rows"]]
    print_table(f"statement {made.month}, number {made.number}", shown, (*NAMES, "calls", "usd"))
    out.print(_sums(content["totals"]))
    for text in _doubts(content):
        out.print(text)
    for row in content["adjustments"]:
        where = " ".join(row[name] for name in NAMES if row[name])
        out.print(
            f"adjustment of {row['month']}: {nano_to_text(told(row)['cost_nano'])} USD, {row['calls']:+} calls, {where}"
        )
    for text in _beside(content):
        out.print(text)
    out.print(f"sha256 {made.hash}")
    if not fresh:
        err.print(f"closed {content['closed_at']}; this is the statement as it was frozen")
    if changes is None:
        err.print("what has changed since then is not known: calls of that age may have been deleted")
    elif changes:
        usd = nano_to_text(sum(row["cost_nano"] for row in changes))
        err.print(f"since then {len(changes)} lines have changed by {usd} USD: adjustments of the next statement")


def _sums(totals: dict[str, int]) -> str:
    usd, eur, rub = (nano_to_text(told(totals)[name]) for name in MONEY[:3])
    return f"{totals['calls']:,} calls: {usd} USD, {eur} EUR, {rub} RUB"


def _doubts(content: dict[str, Any]) -> list[str]:
    totals = content["totals"]
    books, rates = ", ".join(content["price_books"]), f"{content['fx_first']} to {content['fx_last']}"
    said = [f"price books {books or 'none'}; exchange rates of {rates if content['fx_first'] else 'no day'}"]
    if kept := content.get("calls_kept_from"):
        so = "the month may lack some" if kept > content["month"] else "months of before are not looked at for changes"
        said.append(f"calls made before {kept} may have been deleted for their age: {so}")
    if content.get("stored_until") is None:
        said.append("whether all that was sent had been stored is not known: the broker did not answer")
    if own := sum(row["cost_nano"] for row in content["rows"] if row["billing_scope"] == "USER"):
        said.append(f"of it paid by users themselves, by keys of their own: {nano_to_text(own)} USD")
    if totals["unpriced"]:
        risk = nano_to_text(totals["at_risk_nano"])
        said.append(f"not in it: {totals['unpriced']:,} calls of unknown cost, at risk {risk} USD")
    elif totals["at_risk_nano"]:
        risk = nano_to_text(totals["at_risk_nano"])
        said.append(f"not in it: at risk {risk} USD, of calls whose price is not wholly known")
    if totals["estimated"]:
        said.append(f"estimated usage: {totals['estimated']:,} calls, {nano_to_text(totals['estimated_nano'])} USD")
    lacking = ((name, totals[f"without_{name}"]) for name in ("eur", "rub"))
    return said + [f"without a rate in {name.upper()}: {calls:,} calls" for name, calls in lacking if calls]


def _beside(content: dict[str, Any]) -> list[str]:
    """Return a line for each cost that no call shows, and for each that has changed since it was booked."""
    said = []
    for row in content.get("cost_lines", ()):
        usd = "" if row["currency"] == "USD" else f", {nano_to_text(row['cost_nano'], 2)} USD"
        amount = f"{nano_to_text(row['amount_nano'], 2)} {row['currency']}{usd}"
        said.append(f"beside the calls: {row['name']} of {row['provider']}, {row['quantity']:,} a month: {amount}")
    for row in content.get("cost_line_adjustments", ()):
        amount = f"{nano_to_text(row['amount_nano'], 2)} {row['currency']}"
        said.append(f"adjustment of {row['month']}, beside the calls: {row['name']} of {row['provider']}: {amount}")
    return said


def _write(made: "Statement", csv_file: Path | None, html_file: Path | None) -> None:
    lines = [told({"month": made.month, **row}) for row in made.content["rows"]]
    lines += [told(row) for row in made.content["adjustments"]]
    lines += [{"month": made.month, **row} for row in made.content.get("cost_lines", ())]
    lines += made.content.get("cost_line_adjustments", ())
    try:
        if csv_file is not None:
            csv_file.write_text(csv_text(COLUMNS, lines), encoding="utf-8")
        if html_file is not None:
            html_file.write_text(page(made), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from None


def page(made: "Statement") -> str:
    """Return the statement as a page by itself: no script, nothing loaded, every text escaped."""
    content = made.content
    names = (*NAMES, "calls", "unpriced", "estimated")
    head = "".join(f"<th>{html(name)}</th>" for name in (*names, "USD", "EUR", "RUB"))

    def line(row: dict[str, Any]) -> str:
        money = (nano_to_text(told(row)[name]) for name in MONEY[:3])
        return f"<tr>{''.join(f'<td>{html(text)}</td>' for text in (*(row[name] for name in names), *money))}</tr>"

    notes = "".join(f"<p>{html(text)}</p>" for text in (_sums(content["totals"]), *_doubts(content), *_beside(content)))
    changes = "".join(line(row) for row in content["adjustments"])
    later = f"<h2>Adjustments of earlier months</h2><table><tr>{head}</tr>{changes}</table>" if changes else ""
    title = html(f"Statement {made.month}, number {made.number}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{border:1px solid #ccc;padding:3px 8px;text-align:left}</style>"
        f"<h1>{title}</h1><p>Days of UTC; closed {html(content['closed_at'])}</p>{notes}"
        f"<table><tr>{head}</tr>{''.join(line(row) for row in content['rows'])}</table>{later}"
        f"<p>sha256 <code>{made.hash}</code></p></html>\n"
    )
