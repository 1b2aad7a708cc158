"""`tollmeter bills cost`: costs that no call shows; they stand in statements, the journal and FOCUS files."""

from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

import click

from tollmeter.admin import registry
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import reading
from tollmeter.cli.options import MONTH
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.registry_options import doing
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings

CURRENCIES = ("USD", "EUR", "RUB")
COLUMNS = ("org_id", "name", "provider", "cost_centre", "quantity", "each", "currency", "amount", "usd", "fx_date")
MOST_NANO = 10**16
_name, _org = click.argument("name"), click.option("--org", default=None, help="Organisation [default: TOLLMETER_ORG].")


@click.group(cls=Group)
def cost() -> None:
    """Costs of each month that no call shows: subscriptions, seats, fees, credits."""


@cost.command("set")
@_name
@_org
@click.option("--provider", required=True, help="Who bills it: openai, anthropic, ...")
@click.option("--amount", required=True, help="What one costs a month, such as 30 or 19.99; a credit is negative.")
@click.option("--currency", type=click.Choice(CURRENCIES), default="USD", show_default=True)
@click.option("--seats", type=click.IntRange(1, 10**7), default=1, show_default=True, help="So many of them.")
@click.option("--from", "since", type=MONTH, required=True, metavar="YYYY-MM", help="The first month (UTC).")
@click.option("--until", type=MONTH, metavar="YYYY-MM", help="The last month [default: on and on].")
@click.option("--cost-centre", default="", help="Where it is booked.")
@json_option
@click.pass_obj
def set_(
    settings: Settings,
    /,
    name: str,
    org: str | None,
    provider: str,
    amount: str,
    currency: str,
    seats: int,
    since: date,
    until: date | None,
    cost_centre: str,
    as_json: bool,
) -> None:
    """Book NAME with each month's statement, in place of any line of that name.

    Seats that change get a line of another name from that month on: closed months keep what they were.
    """
    if until is not None and until < since:
        raise UserError(f"--until {until:%Y-%m} is before --from {since:%Y-%m}")
    fields = {
        "org_id": settings.org if org is None else org,
        "name": name,
        "provider": provider.strip().lower(),
        "quantity": seats,
        "unit_nano": _nano(amount),
        "currency": currency,
        "since": f"{since:%Y-%m}",
        "until": f"{until:%Y-%m}" if until else None,
        "cost_centre": cost_centre,
    }
    with doing():
        made = registry.put_cost_line(settings, fields)
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        each = nano_to_text(made.unit_nano, 2)
        out.print(f"{made.name}: {made.quantity:,} x {each} {made.currency} a month from {made.since} on")


def _nano(text: str) -> int:
    """Return an amount in nano-units. Raises `UserError`."""
    try:
        nano = Decimal(text) * 10**9
    except InvalidOperation:
        nano = Decimal("nan")
    if not nano.is_finite() or not 0 < abs(nano) <= MOST_NANO or nano != int(nano):
        raise UserError(f"--amount {text}: write an amount with at most nine decimals, such as 30, 19.99 or -50")
    return int(nano)


@cost.command("list")
@click.option("--month", type=MONTH, metavar="YYYY-MM", help="The month whose amounts are shown [default: this one].")
@click.option("--org", default="", help="Only this organisation.")
@json_option
@click.pass_obj
def list_(settings: Settings, month: date | None, org: str, as_json: bool) -> None:
    """List what a month costs beside its calls, and the sum in USD; --json has nano-units."""
    from tollmeter.admin import cost_lines

    today = datetime.now(UTC).date()
    name = f"{month or today:%Y-%m}"
    with reading(settings) as client:
        rows = cost_lines.of_month(client, name, org, today)
    total = cost_lines.totals(rows)
    if as_json:
        print_json({"month": name, "zone": "UTC", "rows": rows, "totals": total})
        return
    print_table(f"costs of {name} without calls", [_shown(row) for row in rows], COLUMNS)
    unknown = f"; of {total['without_usd']} lines the value in USD is not known" if total["without_usd"] else ""
    out.print(f"{nano_to_text(total['cost_nano'], 2)} USD{unknown}")


def _shown(row: dict[str, object]) -> dict[str, object]:
    def text(name: str) -> str:
        value = row[name]
        return nano_to_text(value if isinstance(value, int) else None, 2)

    return {**row, "each": text("unit_nano"), "amount": text("amount_nano"), "usd": text("cost_nano")}


@cost.command()
@_name
@_org
@click.pass_obj
def delete(settings: Settings, name: str, org: str | None) -> None:
    """Take a line away, from past months that are not closed, too; an absent one is no error."""
    with doing():
        registry.delete_cost_line(settings, settings.org if org is None else org, name)
    out.print(f"{name} is gone")
