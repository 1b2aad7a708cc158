"""`tollmeter reprice`: past calls at the present prices. `tollmeter whatif`: what they would have cost otherwise."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tollmeter.admin.reports.asked import Asked
from tollmeter.cli.ledger import reading
from tollmeter.cli.options import INSTANT, SPAN, Number
from tollmeter.cli.output import UserError, err, json_option, out, print_json, print_table
from tollmeter.cli.progress import bar
from tollmeter.cli.report_options import OPTIONS, asking
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.reprice import Instead, Summary, Wanted

RATE = 20_000.0
SHOWN = 40
MONEY, DOUBTS = ("before_nano", "after_nano", "difference_nano"), ("unpriced_before", "unpriced_after")
COLUMNS = ("day", "model", "org_id", "calls", "changed", "before", "after", "difference")


@click.command()
@click.option(
    "--from", "since", type=INSTANT, required=True, metavar="TIME", help="The first time that is priced again."
)
@click.option("--until", type=INSTANT, metavar="TIME", help="Up to this time [default: now].")
@click.option("--org", default="", help=OPTIONS["org_id"][1])
@click.option("--provider", default="", help=OPTIONS["provider"][1])
@click.option("--model", default="", help=OPTIONS["model"][1])
@click.option("--unpriced", is_flag=True, help="Only calls whose cost is not known.")
@click.option("--overrides", type=click.Path(dir_okay=False, path_type=Path), help="Price with this override file.")
@click.option("--book", default="", metavar="ID", help="Only with this price book; refuse another.")
@click.option("--dry-run", is_flag=True, help="Show what would change; send nothing.")
@click.option("--rate", type=Number(1, 1e6), default=RATE, show_default=True, help="Rows a second at most.")
@click.option("--reason", default="reprice", show_default=True, help="Kept on the log.")
@click.option("--wait", type=SPAN, default="30s", show_default=True, help="How long to wait for the ledger.")
@json_option
@click.pass_obj
def reprice(
    settings: Settings, /, dry_run: bool, rate: float, reason: str, wait: float, as_json: bool, **options: object
) -> None:
    """Price past calls again with the present price book; ledger, windows and budgets follow.

    What is as it shall be stays as it is: a run that was stopped is completed by the same command, and a second one
    changes nothing. --dry-run shows before and after by day, model and organisation.
    """
    from tollmeter.admin import reprice as past
    from tollmeter.admin.corrections import CorrectionError, await_stored, is_known
    from tollmeter.admin.sending import sending
    from tollmeter.cli.prices import expect_book, open_book
    from tollmeter.sinks.clickhouse.books import store_book
    from tollmeter.streams.price.book.publish import document

    if options["overrides"]:
        settings = settings.model_copy(update={"prices_file": str(options["overrides"])})
    wanted = _wanted(options)
    book = open_book(settings)
    expect_book(book, str(options["book"]))
    with reading(settings) as client:
        try:
            if not dry_run and not is_known(client, book.id):
                store_book(client, document(book)[1])  # whoever reads a corrected row finds the rule that priced it
            sender = nullcontext(None) if dry_run else sending(settings, reason)
            with bar("calls", past.count(client, wanted)) as progress, sender as send:
                pace = past.Pace(rate)
                summary, last = past.reprice(client, wanted, book.price, send, pace, progress.advance)
            stored = await_stored(client, last, wait).stored if last.revisions else not dry_run
        except CorrectionError as problem:
            raise UserError(f"{problem}: what was sent already counts once, run the command again") from None
    _tell(summary, {"price_book": book.id, "dry_run": dry_run, "stored": stored}, as_json=as_json)
    if not (dry_run or stored):
        err.print("sent, and not in the ledger yet: is the ledger worker running?")


def _wanted(options: dict[str, Any]) -> "Wanted":
    from tollmeter.admin.reprice import Wanted

    until = options["until"] or datetime.now(UTC)
    if options["since"] >= until:
        raise UserError(f"the period is empty: {options['since'].isoformat()} is not before {until.isoformat()}")
    filters = {name: options[name] for name in ("org", "provider", "model", "unpriced")}
    return Wanted(options["since"].astimezone(UTC), until.astimezone(UTC), **filters)


@click.command()
@click.option("--model", "models", multiple=True, metavar="A=B", help="Calls of model A had gone to B (or PROVIDER/B).")
@click.option("--tier", default="", help="All at this tier: batch, flex, priority ...")
@click.option("--cache-share", type=Number(0, 1), help="So much of the input had been read from a cache.")
@asking(since="30d", but=OPTIONS.keys() - {"org_id", "provider"})
@json_option
@click.pass_obj
def whatif(
    settings: Settings, /, asked: Asked, models: Sequence[str], tier: str, cache_share: float | None, as_json: bool
) -> None:
    """What the calls of a period would have cost with another model, tier or share of cached input.

    Tokens are taken as they were counted; another model may count the same text otherwise.
    """
    instead = _instead(models, tier, cache_share)
    from tollmeter.admin import reprice as past
    from tollmeter.cli.prices import open_book

    filters = asked.filters
    book = open_book(settings)
    wanted = past.Wanted(asked.since, asked.until, filters["org_id"], filters["provider"])
    with reading(settings) as client, bar("calls", past.count(client, wanted)) as progress:
        summary = past.what_if(client, wanted, book.price, instead, progress.advance)
    _tell(summary, {"price_book": book.id, "dry_run": True, "stored": False}, as_json=as_json)


def _instead(models: Sequence[str], tier: str, cache_share: float | None) -> "Instead":
    from tollmeter.admin.reprice import Instead

    found = {}
    for text in models:
        name, equals, other = text.partition("=")
        if not (name and equals and other):
            raise UserError(f"--model {text}: write A=B, or A=PROVIDER/B")
        provider, slash, model = other.partition("/")
        found[name.strip().lower()] = (provider, model) if slash else ("", other)
    if not (found or tier or cache_share is not None):
        raise UserError("say what had been otherwise: --model A=B, --tier NAME or --cache-share 0.5")
    return Instead(found, tier, cache_share)


def _totals(rows: Sequence[dict[str, Any]]) -> dict[str, int | None]:
    """Return the sums over rows; money is None where no row knows any."""
    found: dict[str, int | None] = {name: sum(row[name] for row in rows) for name in DOUBTS}
    for name in MONEY:
        known = [row[name] for row in rows if row[name] is not None]
        found[name] = sum(known) if known or not rows else None
    if found["before_nano"] is not None and found["after_nano"] is not None:
        found["difference_nano"] = found["after_nano"] - found["before_nano"]
    return found


def _tell(summary: "Summary", about: dict[str, Any], *, as_json: bool) -> None:
    rows = [{"model" if name == "model_id" else name: value for name, value in row.items()} for row in summary.rows()]
    totals = _totals(rows)
    if as_json:
        lines = [{**row, "day": f"{row['day']}"} for row in rows]
        print_json({**about, "calls": summary.calls, "changed": summary.changed, **totals, "rows": lines})
        return
    shown = [{**row, **{name.removesuffix("_nano"): nano_to_text(row[name]) for name in MONEY}} for row in rows]
    doubts = DOUBTS if any(totals[name] for name in DOUBTS) else ()
    print_table("Would change, USD" if about["dry_run"] else "Changed, USD", shown[:SHOWN], (*COLUMNS, *doubts))
    if len(rows) > SHOWN:
        out.print(f"{len(rows) - SHOWN} more rows: --json shows all")
    out.print(
        f"{summary.changed:,} of {summary.calls:,} calls; {nano_to_text(totals['before_nano'])} USD became "
        f"{nano_to_text(totals['after_nano'])} ({nano_to_text(totals['difference_nano'])}); "
        f"unknown cost: {totals['unpriced_before']:,} before, {totals['unpriced_after']:,} after"
    )
    out.print(f"price book {about['price_book']}", dim=True)
