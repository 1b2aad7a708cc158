"""`tollmeter bills`: what providers bill, taken from their files, and what of it is known."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tollmeter.admin.reports.rows import plain
from tollmeter.cli.bills_cost import cost
from tollmeter.cli.bills_key import key
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import reading
from tollmeter.cli.options import INSTANT, SPAN
from tollmeter.cli.output import UserError, err, json_option, out, print_json, print_table
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.bills.store import Stored
    from tollmeter.streams.rules.bills.lines import Bill


@click.group(cls=Group)
def bills() -> None:
    """Providers' bills: usage and cost reports beside which the ledger is held."""


bills.add_command(key)
bills.add_command(cost)


@contextmanager
def refusing() -> Iterator[None]:
    """Say in one line why a bill was not taken."""
    from tollmeter.streams.rules.bills.lines import BillError

    try:
        yield
    except BillError as problem:
        raise UserError(str(problem)) from None


class Since(click.ParamType):
    """A day of UTC: by its date, or so many days back."""

    name = "since"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        text = str(value)
        if "-" in text:
            return INSTANT.of(text, UTC, param, ctx).astimezone(UTC).date()
        return (datetime.now(UTC) - timedelta(seconds=SPAN.convert(text, param, ctx))).date()


SINCE = Since()


@bills.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE...")
@click.option("--provider", default="", help="Whose bill it is, where the file does not say (with --map).")
@click.option("--account", default="", help="The account that pays, where several are imported.")
@click.option("--map", "mapped", multiple=True, metavar="FIELD=COLUMN", help="What a column of any other CSV is.")
@click.option("--currency", default="", help="Of its amounts, where no column says it [default: USD].")
@click.option("--decimal", type=click.Choice(("comma", "point")), help="How its amounts are written.")
@click.option("--fetched", type=INSTANT, help="When the bill was fetched [default: the age of the newest file].")
@click.option("--dry-run", is_flag=True, help="Read and say what is in it; store nothing.")
@json_option
@click.pass_obj
def import_bill(
    settings: Settings,
    /,
    files: Sequence[Path],
    provider: str,
    account: str,
    mapped: Sequence[str],
    currency: str,
    decimal: str | None,
    fetched: datetime | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take a provider's report from its FILEs: all pages of one report together.

    Known are OpenAI usage and costs, Anthropic usage and cost reports, AWS CUR 2.0 (Parquet, CSV), the Google billing
    export, the Azure cost export and OpenRouter's activity; any other CSV with --provider and --map day=COLUMN
    --map amount=COLUMN ... A later import replaces the days that it has. What cannot be read changes nothing.
    """
    with refusing():
        from tollmeter.admin.bills import mapped as mapping
        from tollmeter.admin.bills.reading import read

        columns = mapping.mapping(mapped, currency.strip(), decimal or "") if mapped else None
        if columns is None and (currency or decimal):
            raise UserError("--currency and --decimal are of a CSV with --map: other files say it themselves")
        bill = in_usd(settings, read(files, provider.strip().lower(), columns))
    now = datetime.now(UTC)
    newest = datetime.fromtimestamp(max(file.stat().st_mtime for file in files), UTC)
    keep(settings, bill, account.strip(), files[0].name, fetched or min(now, newest), dry_run=dry_run, as_json=as_json)


PROVIDERS = ("openai", "anthropic", "openrouter")


@bills.command()
@click.argument("provider", type=click.Choice(PROVIDERS))
@click.option("--since", type=SINCE, default="35d", show_default=True, help="How far back, or from which day on.")
@click.option("--account", default="", help="The account that pays, where several are imported.")
@click.option(
    "--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read the key from here."
)
@click.option("--address", default="", help="Ask here instead of the provider, such as a proxy of yours.")
@json_option
@click.pass_obj
def fetch(
    settings: Settings, /, provider: str, since: date, account: str, key_file: Path | None, address: str, as_json: bool
) -> None:
    """Fetch a provider's reports of usage and costs, and take them as `bills import` does.

    The key is read from OPENAI_ADMIN_KEY, ANTHROPIC_ADMIN_KEY or OPENROUTER_MANAGEMENT_KEY, or from a file. Whole days
    of UTC up to yesterday, all pages; 429 and 5xx are tried again. Reports before one that fails are kept.
    """
    from tollmeter.admin.bills.fetch import SOURCES
    from tollmeter.admin.bills.fetch import fetch as pages_of
    from tollmeter.admin.bills.reading import parse

    source, now = SOURCES[provider], datetime.now(UTC)
    key = key_file.read_text(encoding="utf-8").strip() if key_file else os.environ.get(source.key_variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(f"no key: set {source.key_variable}, or name a file with --key-file")
    if since >= now.date():
        raise UserError(f"{since} is not over: reports come by whole days of UTC")
    with refusing():
        for pages in pages_of(source, key, since, now.date(), address):
            bill = in_usd(settings, parse(pages))
            keep(settings, bill, account.strip(), pages[0][0].partition(",")[0], now, dry_run=False, as_json=as_json)


def keep(
    settings: Settings, bill: "Bill", account: str, file: str, fetched_at: datetime, *, dry_run: bool, as_json: bool
) -> None:
    """Store a bill and say what it changed."""
    from tollmeter.admin.bills.store import Stored, account_of, replace

    with refusing(), reading(settings) as client:
        whose = account_of(client, bill, account)
        if dry_run:
            found = Stored(bill.provider, whose, bill.source, tuple(bill.days), lines=len(bill.lines))
        else:
            found = replace(client, bill, whose, file, fetched_at)
    _tell(bill, found, dry_run=dry_run, as_json=as_json)


def in_usd(settings: Settings, bill: "Bill") -> "Bill":
    """Return the bill with the value in USD of each amount, by the rate of its day. Raises `BillError`."""
    from dataclasses import replace as changed

    from tollmeter.streams.rules.bills.lines import EXACT, BillError, rounded
    from tollmeter.streams.rules.pricing.fx import CURRENCIES, Rates
    from tollmeter.streams.rules.pricing.rates import day_number

    lacking = [line for line in bill.lines if line.amount is not None and line.amount_usd is None]
    if not lacking:
        return bill
    if unknown := sorted({line.currency for line in lacking} - set(CURRENCIES)):
        known = ", ".join(("USD", *CURRENCIES))
        raise BillError(
            f"amounts in {unknown[0]}, whose rate is not known: {known} are, or a bill that states its rate"
        )
    from tollmeter.cli.prices import open_book

    fx = open_book(settings).fx
    rates = {name: Rates([rate for rate in fx if rate.currency == name]) for name in CURRENCIES}

    def usd(currency: str, amount: Decimal, day: date) -> Decimal | None:
        at = rates[currency].at(day_number(day))
        if at is None or day_number(day) - at[0] > settings.fx_max_age_days:
            raise BillError(f"no {currency} rate for {day}: 'tollmeter prices fx update' takes the banks' rates")
        return rounded(EXACT.divide(EXACT.multiply(amount, Decimal(10**9)), Decimal(at[1])))

    lines = tuple(
        line._replace(amount_usd=usd(line.currency, line.amount, line.day))
        if line.amount is not None and line.amount_usd is None
        else line
        for line in bill.lines
    )
    return changed(bill, lines=lines)


def _tell(bill: "Bill", found: "Stored", *, dry_run: bool, as_json: bool) -> None:
    days = sorted(bill.days)
    amounts: dict[str, Decimal] = {}
    for line in bill.lines:
        if line.amount is not None:
            amounts[line.currency] = amounts.get(line.currency, Decimal(0)) + line.amount
    groups: dict[str, Any] = {name: len(getattr(found, name)) for name in ("new", "replaced", "unchanged", "kept")}
    if as_json:
        head = {"provider": found.provider, "account": found.account, "source": found.source}
        span = {"first_day": f"{days[0]}", "last_day": f"{days[-1]}", "lines": len(bill.lines)}
        money = {currency: f"{amount:f}" for currency, amount in amounts.items()}
        print_json({**head, **span, "amounts": money, "days": groups, "dry_run": dry_run})
        return
    money_text = ", ".join(f"{amount:,.2f} {currency}" for currency, amount in amounts.items()) or "no amounts"
    out.print(
        f"{found.source} of account {found.account}: {days[0]} to {days[-1]}, {len(bill.lines):,} lines, {money_text}"
    )
    words = ", ".join(f"{count} {name}" for name, count in groups.items() if count)
    out.print(f"days: {words}{' (dry run: nothing stored)' if dry_run else ''}")
    partly = [day for day, whole in bill.days.items() if not whole]
    if partly:
        err.print(f"only a part of {', '.join(f'{day}' for day in partly)}: not compared until the whole day is there")


@bills.command("list")
@json_option
@click.pass_obj
def list_bills(settings: Settings, as_json: bool) -> None:
    """What bills are known: by provider, account, source and month."""
    from tollmeter.admin.bills.store import days

    with reading(settings) as client:
        found = days(client)
    months: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in found:
        name = (row["provider"], row["account"], row["source"], f"{row['day']:%Y-%m}")
        months.setdefault(name, []).append(row)
    rows = [
        {
            **dict(zip(("provider", "account", "source", "month"), name, strict=True)),
            "days": sum(row["is_whole"] for row in group),
            "lines": sum(row["lines"] for row in group),
            "fetched_at": max(row["fetched_at"] for row in group).replace(microsecond=0),
        }
        for name, group in months.items()
    ]
    if as_json:
        print_json([plain(row) for row in rows])
    else:
        print_table("bills", [plain(row) for row in rows])
