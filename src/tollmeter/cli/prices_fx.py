"""`tollmeter prices fx`: exchange rates, how old they are, new ones from a bank, and what waited for them filled in."""

from datetime import UTC, datetime
from pathlib import Path

import click

from tollmeter.admin.price_rows import plain_amount
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import reading
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import Finding, UserError, err, json_option, out, print_json, print_table
from tollmeter.schemas.money import NANO_PER_USD
from tollmeter.settings import Settings
from tollmeter.streams.price.book.fx import FxError
from tollmeter.streams.price.book.fx_banks import BANKS, fetch_bank, merge, read_bank, store
from tollmeter.streams.price.book.fx_history import newest, shipped_cells, stale_lines
from tollmeter.streams.price.book.publish import fx_rows

wait_option = click.option(
    "--wait", type=SPAN, default="30s", show_default=True, help="How long to wait for the ledger."
)


@click.group(cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def fx(context: click.Context, as_json: bool) -> None:
    """The newest exchange rates, and how old they are; --json has all. Amounts take the last one before the call."""
    if context.invoked_subcommand:
        return
    from tollmeter.cli.prices import open_book

    book, settings, today = open_book(context.obj), context.obj, datetime.now(UTC).date()
    if as_json:
        print_json([{**row, "day": str(row["day"])} for row in fx_rows(book)])
        return
    shown = [
        {
            "currency": rate.currency,
            "day": str(rate.day),
            "age, days": (today - rate.day).days,
            "for 1 USD": plain_amount(rate.per_usd_nano, NANO_PER_USD),
            "source": rate.source,
        }
        for rate in newest(book.fx, today).values()
        if rate is not None
    ]
    print_table("newest exchange rates", shown)
    for text in stale_lines(book.fx, today, settings.fx_max_age_days):
        err.print(text)


@fx.command("update")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--from", "bank", type=click.Choice([*BANKS]), help="Fetch them from the bank: EUR ecb, RUB cbr.")
@wait_option
@json_option
@click.pass_obj
def update_fx(settings: Settings, files: tuple[Path, ...], bank: str | None, wait: float, as_json: bool) -> None:
    """Take over rates from FILES of the ECB (eurofxref, CSV or XML) or the Bank of Russia (XML), or from the bank.

    They go into the file of TOLLMETER_FX_FILE (of a stack of `up` its own), where a day's rate stays once it is there;
    exit code 1 when a file says otherwise. Amounts that were unknown for want of a rate are filled in by corrections,
    the others stay; PRICE takes the new rates over by itself.
    """
    if not settings.fx_file:
        raise UserError("no file keeps the rates: set TOLLMETER_FX_FILE to one, also for the workers; it may be new")
    if not files and bank is None:
        raise UserError("name a bank's FILE, or say --from ecb or --from cbr")
    target = Path(settings.fx_file)
    try:
        new = [cells for file in files for cells in read_bank(file)]
        new += fetch_bank(bank, datetime.now(UTC).date()) if bank is not None else []
        merged = merge(target, new, shipped_cells())
        store(target, merged.cells)
    except FxError as error:
        raise UserError(*str(error).splitlines()) from None
    if not as_json:
        out.print(f"{merged.added} rates are new in {target}, {merged.known} were there")
    try:
        filled: int | None = _fill(settings, wait)
    except UserError as away:
        filled = None
        err.print(f"what waits for these rates is filled in by the line itself, once an hour: {away}")
    if as_json:
        counts = {"added": merged.added, "known": merged.known, "conflicts": merged.conflicts}
        print_json({**counts, "file": str(target), "filled": filled})
    elif filled is not None:
        out.print(_said(filled))
    if merged.conflicts:
        raise Finding(*merged.conflicts)


@fx.command("fill")
@wait_option
@json_option
@click.pass_obj
def fill_fx(settings: Settings, wait: float, as_json: bool) -> None:
    """Fill in amounts that were unknown for want of a rate, by corrections; `update` and the line do so by themselves.

    What has an amount keeps it, and so does the price in USD. A second run changes nothing.
    """
    filled = _fill(settings, wait)
    if as_json:
        print_json({"filled": filled})
    else:
        out.print(_said(filled))


def _fill(settings: Settings, wait_s: float) -> int:
    """Return how many calls got an amount. Raises `UserError` when ledger or broker do not answer."""
    from tollmeter.admin.corrections import CorrectionError, await_stored
    from tollmeter.admin.late_rates import REASON, fill
    from tollmeter.admin.sending import sending
    from tollmeter.cli.prices import open_book
    from tollmeter.cli.progress import bar

    book = open_book(settings)
    try:
        with reading(settings) as client, bar("calls that waited for a rate", None) as progress:
            with sending(settings, REASON) as send:
                found = fill(client, book, send, progress.advance)
            if found.last.revisions and not await_stored(client, found.last, wait_s).stored:
                err.print("sent, and not in the ledger yet: is the ledger worker running?")
    except CorrectionError as problem:
        raise UserError(str(problem)) from None
    return found.calls


def _said(filled: int) -> str:
    return f"{filled:,} calls that waited for a rate have their amounts now" if filled else "no call waited for a rate"
