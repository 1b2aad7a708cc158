"""`tollmeter export`: calls out of the ledger, as `openai_usage` log lines, CSV or JSON lines, oldest first."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from tollmeter.admin.kept import kept_within
from tollmeter.admin.reports.asked import Asked
from tollmeter.admin.reports.csv_text import csv_text
from tollmeter.admin.reports.export import cells, pages
from tollmeter.admin.reports.rows import plain
from tollmeter.cli.charges import VERSIONS, charges, write_days
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, err, print_json
from tollmeter.cli.report_options import asking
from tollmeter.cli.report_rows import tell_kept
from tollmeter.producers.imports.log_lines import to_line
from tollmeter.schemas.event import UsageEvent
from tollmeter.schemas.money import NANO_PER_USD
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse

FORMS = ("openai-usage", "csv", "json", "parquet")
_LINE = {
    "request_id",
    "client_ip",
    "provider",
    "model_sent",
    "model_used",
    "prompt_chars",
    "input_tokens",
    "output_tokens",
    "api_key_id",
    "service",
    "status",
}
"""What a log line takes from a row as it is."""
Row = dict[str, Any]


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    help="[default: openai-usage; of --focus and --journal csv, or as --output ends]",
)
@click.option("--focus", type=click.Choice(VERSIONS), help="Charges in this version of FOCUS, as csv or parquet.")
@click.option("--journal", is_flag=True, help="A line for each month, cost centre and provider, as csv.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write --focus or --journal here.")
@click.option(
    "--daily", metavar="FOLDER|s3://BUCKET/PREFIX", help="A csv for each whole day, in this folder or bucket."
)
@asking(since="24h", day=True)
@click.pass_obj
def export(
    settings: Settings,
    asked: Asked,
    form: str | None,
    focus: str | None,
    journal: bool,
    daily: str | None,
    output: Path | None,
) -> None:
    """Write the calls of a period to standard output, as lines that `import` reads, or with every column.

    openai-usage: the log line of that name, est_cost as priced here. csv: safe to open in a spreadsheet. json: one
    document a line. What is not known is null, in CSV an empty cell. --focus and --journal leave out calls of unknown
    cost and calls on users' own keys, and say how many; --daily writes the days that its folder or bucket lacks. For a
    bucket: extra `s3`, credentials as AWS's library finds them, AWS_ENDPOINT_URL_S3 for other stores.
    """
    if sum((focus is not None, journal, daily is not None)) > 1:
        raise UserError("--focus, --journal and --daily are three exports: choose one")
    if focus is not None or journal:
        named = "parquet" if output is not None and output.suffix == ".parquet" else "csv"
        charges(settings, asked, form or named, focus, output)
        return
    form = form or FORMS[0]
    if form == "parquet":
        raise UserError("parquet is a form of --focus; calls come as openai-usage, csv or json")
    if daily is not None:
        write_days(settings, asked, daily, _day_text)
        return
    count = 0
    with reading(settings) as ledger:
        for page in pages(ledger, asked):
            _write(page, form, head=count == 0)
            count += len(page)
        tell_kept(kept_within(ledger, asked.since, datetime.now(UTC)), asked.zone)
    err.print(f"{count:,} calls, {asked.said()}")


def _day_text(ledger: ClickHouse, asked: Asked) -> Iterator[str]:
    """Yield a day's calls as CSV; a day without calls has none, not even a head."""
    head = True
    for page in pages(ledger, asked):
        yield _csv(page, head=head)
        head = False


def _write(page: Sequence[Row], form: str, *, head: bool) -> None:
    if form == "csv":
        click.echo(_csv(page, head=head), nl=False)
        return
    for row in page:
        print_json(line(row) if form == "openai-usage" else plain(row))


def _csv(page: Sequence[Row], *, head: bool) -> str:
    text = csv_text(list(page[0]), [cells(row) for row in page])
    return text if head else text.partition("\n")[2]


def line(row: Row) -> dict[str, Any]:
    """Return the log line of a call in the ledger; its est_cost is the cost that was priced, null where unknown."""
    cost = None if row["cost_nano"] is None else Decimal(row["cost_nano"]) / NANO_PER_USD
    fields = {name: row[name] for name in _LINE}
    event = UsageEvent.model_construct(event_id=str(row["event_id"]), occurred_at=row["event_time"], **fields)
    return to_line(event, est_cost=cost)
