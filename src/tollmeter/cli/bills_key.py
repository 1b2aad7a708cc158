"""`tollmeter bills key`: which key of ours a provider means by its own name of a key, kept for all reconciliations."""

import click

from tollmeter.admin import registry
from tollmeter.cli.groups import Group
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.registry_options import doing
from tollmeter.settings import Settings

_provider = click.option("--provider", required=True, help="Whose bill: openai, anthropic, ...")


@click.group(cls=Group)
def key() -> None:
    """Providers' own names of keys, and which keys of ours they are."""


@key.command("set")
@click.argument("ref")
@click.argument("key_id", required=False)
@_provider
@click.option("--label", default="", help="The one key of this label, instead of KEY_ID.")
@json_option
@click.pass_obj
def set_(settings: Settings, ref: str, key_id: str | None, provider: str, label: str, as_json: bool) -> None:
    """The key that a bill calls REF is KEY_ID of the calls, in place of any that it was."""
    if bool(key_id) == bool(label):
        raise UserError("say which key of ours it is: KEY_ID as calls carry it, or --label, one of the two")
    with doing():
        mine = key_id or _of_label(settings, label)
        made = registry.put_bill_key(settings, provider.strip().lower(), ref, mine)
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        out.print(f"{made.ref} on bills of {made.provider} is {made.api_key_id}")


def _of_label(settings: Settings, label: str) -> str:
    ids = sorted({row.api_key_id for row in registry.labels(settings) if row.label == label})
    if len(ids) != 1:
        raise UserError(
            f"label {label} is of {len(ids)} keys ({', '.join(ids[:5]) or 'none'}): name the one that is meant"
        )
    return ids[0]


@key.command("list")
@json_option
@click.pass_obj
def list_(settings: Settings, as_json: bool) -> None:
    """List what was stated."""
    with doing():
        rows = [row.model_dump(mode="json") for row in registry.bill_keys(settings)]
    if as_json:
        print_json(rows)
    else:
        print_table("keys on bills", rows, ("provider", "ref", "api_key_id"))


@key.command()
@click.argument("ref")
@_provider
@click.pass_obj
def delete(settings: Settings, ref: str, provider: str) -> None:
    """Forget what REF is; an unknown one is no error."""
    with doing():
        registry.delete_bill_key(settings, provider.strip().lower(), ref)
    out.print(f"{ref}: nothing is stated")
