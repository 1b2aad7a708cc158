"""`tollmeter member`: who belongs to which groups; a user's groups decide whose limits hold for him."""

import click

from tollmeter.broker.policies import member_delete, member_set, read_rules, write
from tollmeter.cli.groups import Group
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.policy_files import export_members, import_members
from tollmeter.cli.policy_options import doing, tell_unreadable
from tollmeter.schemas.policy import Member
from tollmeter.settings import Settings

_org = click.option("--org", required=True, help="Organisation of the member.")
_user = click.option("--user", help="A user: the external id that events carry.")
_group = click.option("--group", "nested", help="A group that is itself inside other groups.")


@click.group(cls=Group)
def member() -> None:
    """The membership: users in groups, and groups inside groups."""


@member.command("set")
@_org
@_user
@_group
@click.option("--in", "groups", multiple=True, metavar="GROUP", help="A group it is in; repeatable. None: in no group.")
@json_option
@click.pass_obj
def set_(
    settings: Settings, org: str, user: str | None, nested: str | None, groups: tuple[str, ...], as_json: bool
) -> None:
    """Say in which groups a user or group is, in place of any it was in."""
    made = _member(org, user, nested, groups)
    with doing():
        write(settings, [member_set(made)])
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        text = f"{made.kind} {made.name} of {org} is in {', '.join(made.groups) or 'no group'}"
        out.print(text)


@member.command("list")
@click.option("--org", help="Only this organisation.")
@json_option
@click.pass_obj
def list_(settings: Settings, org: str | None, as_json: bool) -> None:
    """List all members, with the groups that they are in through other groups."""
    with doing():
        rules = read_rules(settings)
    tell_unreadable(rules.unreadable)
    groups = rules.groups
    found = [entry for entry in groups.members if org in (None, entry.org_id)]
    rows = [
        {
            "org": entry.org_id,
            "kind": entry.kind,
            "name": entry.name,
            "groups": list(entry.groups),
            "all groups": list(groups.closure(entry.org_id, entry.groups)),
        }
        for entry in found
    ]
    if as_json:
        print_json([{name.replace(" ", "_"): value for name, value in row.items()} for row in rows])
        return
    for row in rows:
        row["groups"], row["all groups"] = ", ".join(row["groups"]), ", ".join(row["all groups"])
    print_table("members", rows)


@member.command()
@_org
@_user
@_group
@click.pass_obj
def delete(settings: Settings, org: str, user: str | None, nested: str | None) -> None:
    """Take a user or group out of the membership; an absent one is no error."""
    gone = _member(org, user, nested, ())
    with doing():
        write(settings, [member_delete(org, gone.member_id)])
    out.print(f"{gone.kind} {gone.name} of {org} is not in the membership")


def _member(org: str, user: str | None, nested: str | None, groups: tuple[str, ...]) -> Member:
    if bool(user) == bool(nested):
        raise UserError("say who: give --user or --group")
    if nested in groups:
        raise UserError(f"group {nested} contains itself")
    if "" in groups:
        raise UserError("--in needs the name of a group")
    kind = "user" if user else "group"
    return Member.model_validate({"org_id": org, "kind": kind, "name": user or nested, "groups": groups})


for command in (import_members, export_members):
    member.add_command(command)
