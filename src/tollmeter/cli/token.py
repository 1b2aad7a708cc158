"""`tollmeter token`: tracking tokens, by which usage that clients push is told apart. They are no secrets."""

from datetime import UTC, datetime

import click

from tollmeter.admin import registry
from tollmeter.cli.groups import Group
from tollmeter.cli.output import json_option, out, print_json, print_table
from tollmeter.cli.registry_options import Switched, add_switches, doing, of_org_option, org_option
from tollmeter.settings import Settings

COLUMNS = ("id", "name", "value", "org_id", "active", "created_at")


@click.group(cls=Group)
def token() -> None:
    """Tracking tokens of usage that is sent over HTTP."""


@token.command()
@org_option
@click.option("--name", required=True, help="What sends with it, for people.")
@click.option("--length", type=click.IntRange(16, 40), default=22, show_default=True, help="Characters of its value.")
@json_option
@click.pass_obj
def create(settings: Settings, org: str, name: str, length: int, as_json: bool) -> None:
    """Make a tracking token."""
    with doing():
        made = registry.create_token(settings, org, name, datetime.now(UTC), length)
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        out.print(f"{made.value}  ({made.name} of {made.org_id}, id {made.id})")


@token.command("list")
@of_org_option
@json_option
@click.pass_obj
def list_(settings: Settings, org: str, as_json: bool) -> None:
    """List the tracking tokens."""
    with doing():
        rows = [made.model_dump(mode="json") for made in registry.tokens(settings, org)]
    if as_json:
        print_json(rows)
    else:
        print_table("tracking tokens", rows, COLUMNS, spare=("created_at",))


add_switches(
    token,
    Switched(
        "token",
        registry.switch_token,
        registry.delete_token,
        off="usage that names it is refused",
        gone="; the usage that it has named stays",
    ),
)
