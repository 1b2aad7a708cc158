"""`tollmeter policy used`: every limit in its current period, the fullest first, those of each member among them."""

from typing import get_args

import click

from tollmeter.admin.policy_text import amount_text
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import json_option, out, print_json, print_table
from tollmeter.cli.policy_options import doing
from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import Currency
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load

MONEY = get_args(Currency)
_TIMES = ("starts", "ends")


@click.command()
@click.option("--org", default="", help="One organisation; default: all.")
@click.option("--user", default="", help="The limits of one user for himself.")
@click.option("--top", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many, the fullest.")
@json_option
@click.pass_obj
def used(settings: Settings, org: str, user: str, top: int, as_json: bool) -> None:
    """Show what is used of every limit in its current period, by WATCH's live totals, the fullest first.

    A limit of each member, or a default, has a row for each user, key, agent, session or run that has used some of it:
    the limit that binds him, whichever policy sets it.
    """
    with doing(), reading(settings) as ledger:
        rows = ledger.query(load("budget_list"), {"org_id": org, "user_id": user, "top": top})
    if as_json:
        print_json([{**row, **{name: f"{row[name]:%Y-%m-%dT%H:%M:%SZ}" for name in _TIMES}} for row in rows])
    elif rows:
        print_table("limits", [_shown(row) for row in rows], spare=("timezone", "policy"))
    else:
        out.print("no limit: tollmeter policy set")


def _shown(row: dict[str, object]) -> dict[str, object]:
    unit = str(row["unit"])
    return {
        "org": row["org_id"],
        "whose": f"{row['scope']} {row['name']}".strip(),
        "applies": row["applies"],
        "period": row["period"],
        "timezone": row["timezone"],
        "unit": unit,
        "limit": _amount(row["amount"], unit),
        "used": _amount(row["used"], unit),
        "%": 100 * int(str(row["used"])) // int(str(row["amount"])),
        "policy": row["policy_id"],
    }


def _amount(amount: object, unit: str) -> str:
    """Return an amount for people; money is rounded up to micro-units."""
    number = int(str(amount))
    return amount_text(-(-number // NANO_PER_MICRO)) if unit in MONEY else f"{number:,}"
