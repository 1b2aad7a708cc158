"""`tollmeter setup`: topics, layout record and tables on any cluster; may be repeated; `--dry-run` only looks."""

from dataclasses import asdict

import click

from tollmeter.admin import setup as provision
from tollmeter.broker.layout import ProvisionError
from tollmeter.cli.output import UserError, json_option, print_json, print_table
from tollmeter.settings import Settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be made and change nothing.")
@json_option
@click.pass_obj
def setup(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Create the topics, the layout record and the ClickHouse tables that are missing."""
    try:
        steps = provision.plan(settings) if dry_run else provision.apply(settings)
    except ProvisionError as error:
        raise UserError(str(error)) from None
    if as_json:
        print_json([asdict(step) for step in steps])
        return
    state = {True: "there", False: "to be made" if dry_run else "made"}
    rows = [{"kind": step.kind, "name": step.name, "detail": step.detail, "state": state[step.done]} for step in steps]
    print_table(f"{settings.kafka} and {settings.clickhouse}", rows)
