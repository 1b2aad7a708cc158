"""`tollmeter report changes`: what is different from the same hours before."""

from datetime import UTC, datetime

import click

from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.changes import AGAINST, changes
from tollmeter.admin.reports.questions import BY
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import json_option, out, print_json, print_table
from tollmeter.cli.report_options import Columns, asking
from tollmeter.cli.report_rows import tell_kept
from tollmeter.settings import Settings


@click.command("changes")
@click.option("--by", type=Columns(), default="model,key", show_default=True, help=f"Of: {', '.join(BY)}.")
@click.option(
    "--against",
    type=click.Choice(list(AGAINST)),
    default="day",
    show_default=True,
    help="The same hours a day or a week ago, or as long a time just before.",
)
@click.option("--top", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many rows.")
@asking(since="1h")
@json_option
@click.pass_obj
def report_changes(
    settings: Settings, asked: Asked, by: tuple[str, ...], against: str, top: int, as_json: bool
) -> None:
    """What changed: the biggest movers against the same hours before, what is new, who fell silent."""
    now = datetime.now(UTC)
    with reading(settings) as ledger:
        found = changes(ledger, asked, by, against, top, now)
    if as_json:
        print_json(found)
        return
    rows = [
        {name: round(value, 4) if name.startswith("usd") and value else value for name, value in row.items()}
        for row in found["movers"]
    ]
    for row in rows:
        del row["more_nano"]
    print_table(f"spend against {found['against']['from']}", rows, spare=("usd_at_risk", "calls_before", "unpriced"))
    if found["new"]:
        print_table("new within 30 days", found["new"], spare=("unpriced",))
    if found["silent"]:
        silent = [
            {"service": row["service"], "last": row["last"], "usual pause": row["pause_s"]} for row in found["silent"]
        ]
        print_table("services that fell silent", silent)
    kept = found["totals_before"]["calls_kept_from"]
    tell_kept(kept and datetime.fromisoformat(kept), asked.zone)
    age_s = found["totals"]["age_s"]
    out.print(f"{asked.said()}; " + ("no event yet" if age_s is None else f"newest event {age_s:,} s old"))
