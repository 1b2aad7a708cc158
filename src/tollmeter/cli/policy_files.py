"""`policy import|export`, `member import|export`: the difference is shown, and a file is taken whole or not at all."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from tollmeter.admin import model_rules
from tollmeter.admin.names import resolved_all
from tollmeter.admin.policy_files import members_csv, members_yaml, policies_yaml, read_members, read_policies
from tollmeter.admin.policy_text import amount_text, limits_text
from tollmeter.broker.policies import Change, Rules, check, member_set, policy_set, read_rules, write
from tollmeter.cli.output import json_option, out, print_json
from tollmeter.cli.policy_options import doing, known_or_created, tell_unreadable
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Member, Policy
from tollmeter.settings import Settings

_Item = TypeVar("_Item", Policy, Member, Policy | ModelRule)
_file = click.argument("file", type=click.Path(path_type=Path))
_dry_run = click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")


@click.command("import")
@_file
@_dry_run
@click.option("--create", is_flag=True, help="Add users whom nobody knows yet to the membership.")
@json_option
@click.pass_obj
def import_policies(settings: Settings, file: Path, dry_run: bool, create: bool, as_json: bool) -> None:
    """Put the policies and rules about models of a YAML file in force; those it does not name stay as they are."""
    with doing():
        read = read_policies(file)
        models = [model_rules.resolved(settings, rule, rule.allowed).rule for rule in read.models]
        wanted: dict[str, Policy | ModelRule] = {one.policy_id: one for one in resolved_all(settings, read.policies)}
        wanted |= {one.key: one for one in models}
        rules = read_rules(settings)
        added = known_or_created(settings, rules, wanted.values(), create=create)
        known: dict[str, Policy | ModelRule] = dict(rules.policies)
        known |= {one.key: one for one in model_rules.model_rules(settings)} if models else {}
        difference = _Difference(known, wanted, _facts)
        changes = [*added, *(_set(wanted[key]) for key in difference.keys)]
        _take_over(settings, rules, changes, difference, dry_run, as_json)


@click.command("export")
@click.option("--org", help="Only this organisation.")
@click.pass_obj
def export_policies(settings: Settings, org: str | None) -> None:
    """Write all policies and rules about models as YAML that `import` reads."""
    with doing():
        rules = read_rules(settings)
        models = model_rules.model_rules(settings, org)
    tell_unreadable(rules.unreadable)
    found = (policy for policy in rules.policies.values() if org in (None, policy.org_id))
    sys.stdout.write(policies_yaml(found, models))


@click.command("import")
@_file
@_dry_run
@json_option
@click.pass_obj
def import_members(settings: Settings, file: Path, dry_run: bool, as_json: bool) -> None:
    """Take over the members of a CSV or YAML file; those it does not name stay as they are."""
    with doing():
        wanted = {member.member_id: member for member in read_members(file)}
        rules = read_rules(settings)
        known = {member.member_id: member for member in rules.groups.members}
        difference = _Difference(known, wanted, _member_facts)
        changes = [member_set(wanted[key]) for key in difference.keys]
        _take_over(settings, rules, changes, difference, dry_run, as_json)


@click.command("export")
@click.option("--org", help="Only this organisation.")
@click.option("--format", "form", type=click.Choice(["yaml", "csv"]), default="yaml", show_default=True)
@click.pass_obj
def export_members(settings: Settings, org: str | None, form: str) -> None:
    """Write all members as a file that `import` reads."""
    with doing():
        found = [member for member in read_rules(settings).groups.members if org in (None, member.org_id)]
    sys.stdout.write(members_yaml(found) if form == "yaml" else members_csv(found))


class _Difference(Generic[_Item]):
    """What a file adds and changes; what it does not name is no part of it."""

    def __init__(
        self, known: Mapping[str, _Item], wanted: Mapping[str, _Item], facts: Callable[[_Item], dict[str, str]]
    ) -> None:
        self.new = {key: facts(item) for key, item in wanted.items() if key not in known}
        self.changed = {
            key: _changes(facts(known[key]), facts(item))
            for key, item in wanted.items()
            if key in known and known[key] != item
        }
        self.unchanged = len(wanted) - len(self.new) - len(self.changed)

    @property
    def keys(self) -> list[str]:
        """What is to be written."""
        return [*self.new, *self.changed]


def _take_over(
    settings: Settings,
    rules: Rules,
    changes: Sequence[Change],
    difference: _Difference[Any],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show the difference, and unless it is a dry run return when it is on the log."""
    if not as_json:
        for key, facts in difference.new.items():
            text = ", ".join(f"{name} {value}" for name, value in facts.items())
            out.print(f"+ {key}: {text}")
        for key, pairs in difference.changed.items():
            text = "; ".join(f"{name} {before} → {after}" for name, (before, after) in pairs.items())
            out.print(f"~ {key}: {text}")
    check(rules, changes)
    if not dry_run:
        write(settings, changes)
    counts = (len(difference.new), len(difference.changed), difference.unchanged)
    if as_json:
        print_json(
            {"added": list(difference.new), "changed": difference.changed, "unchanged": counts[2], "dry_run": dry_run}
        )
    else:
        said = "nothing was written; {} would be new, {} changed" if dry_run else "{} are new, {} changed"
        out.print(f"{said}, {{}} as before".format(*counts))


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    pairs = {name: (before.get(name, "none"), after.get(name, "none")) for name in (*before, *after)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _set(one: Policy | ModelRule) -> Change:
    return policy_set(one) if isinstance(one, Policy) else model_rules.rule_set(one)


def _facts(one: Policy | ModelRule) -> dict[str, str]:
    if isinstance(one, Policy):
        return _policy_facts(one)
    return {
        "allowed": ", ".join(one.allowed),
        "others": f"become {one.downgrade_to}" if one.downgrade_to else "refused",
    }


def _policy_facts(policy: Policy) -> dict[str, str]:
    remaining = policy.alert_remaining_micro
    return limits_text(policy) | {
        "zone": policy.timezone,
        "warn at %": str(policy.warn_threshold_pct),
        "alerts at %": "/".join(map(str, policy.alert_pcts)) or "none",
        "alert below": amount_text(remaining) if remaining else "none",
    }


def _member_facts(member: Member) -> dict[str, str]:
    return {"groups": ", ".join(member.groups) or "none"}
