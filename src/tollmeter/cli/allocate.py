"""`tollmeter report allocate`: what a shared key costs each feature, user, group or tag; what names none is shared."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from tollmeter.admin.kept import kept_within
from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.rows import plain
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.report_options import THIS_MONTH, asking
from tollmeter.cli.report_rows import tell_kept
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.bills.allocation import allocate as shares_of

FIXED = ("feature", "user", "group")
Row = dict[str, Any]


@click.command()
@click.option("--by", required=True, metavar="feature|user|group|tag:NAME", help="Who shares.")
@click.option("--add", "added", default="0", help="USD that are shared, too: seats, a subscription, a fee of the bill.")
@asking(since=THIS_MONTH)
@json_option
@click.pass_obj
def allocate(settings: Settings, /, asked: Asked, by: str, added: str, as_json: bool) -> None:
    """Share the cost of a key (--key, --label) among those who used it, to the nano-USD.

    What calls say themselves is theirs. The cost of calls that name nobody, and --add, is shared in proportion to that;
    all together is what the calls cost, and what was added. Calls of unknown cost are in no amount and are counted.
    """
    kind, _, tag = by.partition(":")
    if by not in FIXED and (kind != "tag" or not tag):
        raise UserError(f"--by {by}: write feature, user, group or tag:NAME")
    with reading(settings) as client:
        found = client.query(load("allocation"), {**asked.parameters(), "by": kind, "tag_key": tag})
        kept = kept_within(client, asked.since, datetime.now(UTC))
    extra = _nano(added)
    document = shared(found, extra)
    if as_json:
        print_json(plain({**asked.document(), "by": by, **document, "calls_kept_from": kept}))
        return
    names = ("direct_nano", "share_nano", "total_nano")
    rows = [
        {**row, **{name.removesuffix("_nano"): nano_to_text(row[name]) for name in names}} for row in document["rows"]
    ]
    print_table(f"cost by {by}, USD", rows, ("name", "calls", "direct", "share", "total", "unpriced"))
    shared_text = nano_to_text(document["shared_nano"])
    tell_kept(kept, asked.zone)
    out.print(f"{nano_to_text(document['total_nano'])} USD in all, of it shared {shared_text}; {asked.said()}")
    if document["unpriced"]:
        out.print(f"not in it: {document['unpriced']:,} calls of unknown cost")


def shared(found: list[Row], added_nano: int) -> Row:
    """Return who bears what: rows of `allocation`, of which the one without a name is shared with what is added."""
    named = [row for row in found if row["name"]]
    nameless = sum(row["direct_nano"] for row in found if not row["name"])
    amount = nameless + added_nano
    shares = shares_of({row["name"]: max(0, row["direct_nano"]) for row in named}, amount)
    if not named and amount:
        named, shares = [{"name": "(nobody)", "calls": 0, "direct_nano": 0, "unpriced": 0}], {"(nobody)": amount}
    rows = [
        {
            "name": row["name"],
            "calls": row["calls"],
            "direct_nano": row["direct_nano"],
            "share_nano": shares[row["name"]],
            "total_nano": row["direct_nano"] + shares[row["name"]],
            "unpriced": row["unpriced"],
        }
        for row in named
    ]
    rows.sort(key=lambda row: (-row["total_nano"], row["name"]))
    return {
        "rows": rows,
        "shared_nano": amount,
        "added_nano": added_nano,
        "total_nano": sum(row["direct_nano"] for row in found) + added_nano,
        "unpriced": sum(row["unpriced"] for row in found),
    }


def _nano(text: str) -> int:
    try:
        nano = Decimal(text) * 10**9
    except InvalidOperation:
        nano = Decimal("nan")
    if not nano.is_finite() or nano != int(nano):
        raise UserError(f"--add {text}: write USD with at most nine decimals, such as 360 or 19.99")
    return int(nano)
