"""`tollmeter key`: what people call a provider key. Old and new id of a rotated key go by one label in every report."""

import click

from tollmeter.admin import registry
from tollmeter.cli.groups import Group
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.registry_options import doing
from tollmeter.schemas.access import EVERYONE
from tollmeter.settings import Settings

COLUMNS = ("label", "api_key_id", "owner", "cost_centre", "org_id")
_org = click.option(
    "--org", default=EVERYONE, show_default=True, help="Organisation; * = all without one of their own."
)
_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.group(cls=Group)
def key() -> None:
    """Names of provider keys: label, owner, cost centre."""


@key.command("set")
@_ids
@_org
@click.option("--label", required=True, help="What reports call it; the ids of a rotated key share it.")
@click.option("--owner", default="", help="Who answers for it.")
@click.option("--cost-centre", default="", help="Where its cost is booked.")
@json_option
@click.pass_obj
def set_(
    settings: Settings, ids: tuple[str, ...], org: str, label: str, owner: str, cost_centre: str, as_json: bool
) -> None:
    """Give key ids one label, in place of any they had."""
    for id_ in ids:
        if id_.lower().startswith(("sk-", "aiza", "gsk_", "xai-")):
            raise UserError("that looks like the key itself: give its id, as events carry it (api_key_id)")
    with doing():
        made = registry.label_keys(settings, org, ids, label, owner, cost_centre)
    if as_json:
        print_json([row.model_dump(mode="json") for row in made])
    else:
        out.print(f"{', '.join(ids)}: {label}")


@key.command("list")
@click.option("--org", default=EVERYONE, help="Only what this organisation's calls get [default: all].")
@json_option
@click.pass_obj
def list_(settings: Settings, org: str, as_json: bool) -> None:
    """List the labels."""
    with doing():
        rows = [row.model_dump(mode="json") for row in registry.labels(settings, org)]
    if as_json:
        print_json(rows)
    else:
        print_table("labels", rows, COLUMNS)


@key.command()
@_ids
@_org
@click.pass_obj
def delete(settings: Settings, ids: tuple[str, ...], org: str) -> None:
    """Take labels away; an absent one is no error."""
    with doing():
        for id_ in ids:
            registry.unlabel_key(settings, org, id_)
    out.print(f"{', '.join(ids)}: no label")
