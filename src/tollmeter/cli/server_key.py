"""`tollmeter server-key`: keys that the server knows, each for one organisation. A secret is shown once, when made."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from tollmeter.admin import registry
from tollmeter.cli.groups import Group
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import err, json_option, out, print_json, print_table
from tollmeter.cli.registry_options import Switched, add_switches, doing, id_argument, of_org_option, org_option
from tollmeter.schemas.registry import ROLES, Role, ServerKey
from tollmeter.settings import Settings

COLUMNS = ("id", "name", "org_id", "role", "may_set_identity", "active", "created_at", "rotated_at", "used_at")
_SHOWN = set(ServerKey.model_fields) - {"digest", "earlier_digest", "secret_id"}


@click.group(cls=Group, name="server-key")
def server_key() -> None:
    """Keys of the server: who may send, read or administer, for one organisation each."""


@server_key.command()
@org_option
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do; admin may do all three.")
@click.option("--name", required=True, help="Whose it is, for people.")
@click.option(
    "--may-set-identity", is_flag=True, help="Believe organisation, user and group in what it sends [default: no]."
)
@json_option
@click.pass_obj
def create(settings: Settings, org: str, role: Role, name: str, may_set_identity: bool, as_json: bool) -> None:
    """Make a key and show its secret, once."""
    with doing():
        made = registry.create_key(settings, org, role, name, datetime.now(UTC), may_set_identity=may_set_identity)
    _show(made, as_json)


@server_key.command()
@id_argument
@of_org_option
@click.option("--overlap", type=SPAN, default="24h", show_default=True, help="How long the old secret still works.")
@click.option("--now", "at_once", is_flag=True, help="The old secret works no longer.")
@json_option
@click.pass_obj
def rotate(settings: Settings, id_: str, org: str, overlap: float, at_once: bool, as_json: bool) -> None:
    """Give a key a new secret and show it, once."""
    now = datetime.now(UTC)
    until = None if at_once else now + timedelta(seconds=overlap)
    with doing():
        made = registry.rotate_key(settings, id_, now, until, org)
    _show(made, as_json)


@server_key.command("list")
@of_org_option
@json_option
@click.pass_obj
def list_(settings: Settings, org: str, as_json: bool) -> None:
    """List the keys, and when each was last used, to about an hour."""
    with doing():
        listed = registry.keys(settings, org)
    rows = [{**document(one.key), "used_at": one.used_at and one.used_at.isoformat()} for one in listed]
    if as_json:
        print_json(rows)
    else:
        print_table("keys of the server", rows, COLUMNS, spare=("created_at", "rotated_at"))


add_switches(
    server_key,
    Switched("key", registry.switch_key, registry.delete_key, off="nobody gets in with it", gone=" for good"),
)


def document(key: ServerKey) -> dict[str, Any]:
    """Return a key as it may be shown."""
    return key.model_dump(mode="json", include=_SHOWN)


def _show(made: registry.Issued, as_json: bool) -> None:
    if as_json:
        print_json({**document(made.key), "secret": made.secret})
        return
    err.print(f"key {made.key.id} ({made.key.name}): {made.key.role} for {made.key.org_id}; shown once, keep it:")
    out.print(made.secret)
