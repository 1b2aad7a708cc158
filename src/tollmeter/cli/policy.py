"""`tollmeter policy`: set, get, list and delete limits; amounts in currency units with up to six decimals."""

from typing import Any

import click

from tollmeter.admin.names import known_as, resolved
from tollmeter.admin.policy_text import amount_of, amount_text, limits_text, policy_of
from tollmeter.broker.policies import discard, policy_delete, policy_set, read_rules, write
from tollmeter.cli.explain import explain, status
from tollmeter.cli.groups import Group
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
from tollmeter.cli.policy_adjust import history, put_back_, raise_, reset
from tollmeter.cli.policy_files import export_policies, import_policies
from tollmeter.cli.policy_models import models
from tollmeter.cli.policy_options import (
    applies_option,
    currency_option,
    doing,
    is_none,
    known_or_created,
    limit_options,
    name_or_default,
    org_option,
    readable,
    scope_option,
    tell_unreadable,
)
from tollmeter.cli.policy_trial import try_out
from tollmeter.cli.policy_used import used
from tollmeter.schemas.policy import DEFAULT_WARN_PCT, MEMBER_SCOPES, Policy
from tollmeter.settings import Settings

_APPLIES = {"pool": "for all calls of the scope together", "each_member": "for each member by himself"}


@click.group(cls=Group)
def policy() -> None:
    """Limits of organisations, groups, users, keys, IPs, agents, sessions, runs, models, providers, features, tags."""


@policy.command("set")
@org_option
@scope_option
@name_or_default
@applies_option
@limit_options
@click.option(
    "--no-limits", is_flag=True, help="No limit at all: frees a user from those of the organisation's members."
)
@currency_option
@click.option("--timezone", default="UTC", show_default=True, help="Zone whose days, weeks and months count.")
@click.option(
    "--warn-pct",
    type=int,
    default=DEFAULT_WARN_PCT,
    show_default=True,
    help="One more alert, in percent; 0 or less is the default.",
)
@click.option("--alert-pct", "alert_pcts", type=int, multiple=True, help="Threshold in percent; may be repeated.")
@click.option("--alert-remaining", help="Alert when less than this amount of a money limit remains.")
@click.option("--create", is_flag=True, help="Add a user whom nobody knows yet to the membership.")
@json_option
@click.pass_obj
def set_(
    settings: Settings,
    /,
    org: str,
    scope: str,
    name: str,
    applies: str,
    no_limits: bool,
    currency: str,
    timezone: str,
    warn_pct: int,
    alert_pcts: tuple[int, ...],
    alert_remaining: str | None,
    create: bool,
    as_json: bool,
    given: dict[str, str],
) -> None:
    """Set the limits of a scope, in place of any it had in this currency. A limit of 0 or less is no limit."""
    written = {kind: amount for kind, amount in given.items() if not is_none(amount)}
    if bool(given) == no_limits:
        raise UserError("a policy needs a limit: give --daily, --monthly or another one, or --no-limits alone")
    made = readable(
        lambda: policy_of(
            {
                "org_id": org,
                "scope": scope,
                "name": name,
                "applies": applies,
                "currency": currency,
                "timezone": timezone,
                "warn_threshold_pct": warn_pct if warn_pct > 0 else DEFAULT_WARN_PCT,
                **({"alert_pcts": alert_pcts} if alert_pcts else {}),
                "alert_remaining_micro": alert_remaining and amount_of(alert_remaining, "alert_remaining"),
            },
            written,
        )
    )
    with doing():
        made = resolved(settings, made)
        added = known_or_created(settings, read_rules(settings), [made], create=create)
        write(settings, [*added, policy_set(made)])
    if as_json:
        print_json(document(made))
    else:
        alerts = ", ".join(f"{pct} %" for pct in made.thresholds)
        what = f"alerts at {alerts}" if made.all_limits else "without a limit"
        if made.scope != "org" and made.name != name:
            out.print(f"{scope} {name!r} is known as {made.name}")
        each = f"for each {made.scope} without a policy of its own"
        out.print(
            f"policy {made.policy_id} is in force ({each if made.is_default else _APPLIES[made.applies]}); {what}"
        )


@policy.command()
@org_option
@scope_option
@name_or_default
@json_option
@click.pass_obj
def get(settings: Settings, org: str, scope: str, name: str, as_json: bool) -> None:
    """Show every policy of one scope; exit code 1 where it has none."""
    with doing():
        found = _of_scope(settings, org, scope, name)
    _show(found, as_json)
    if not found:
        own = f" of its own, the default for each {scope} may bind it" if name and scope in MEMBER_SCOPES else ""
        raise Finding(f"{org}/{scope}/{name} has no policy: no limit{own}, warn {DEFAULT_WARN_PCT} %")


@policy.command("list")
@click.option("--org", help="Only this organisation.")
@json_option
@click.pass_obj
def list_(settings: Settings, org: str | None, as_json: bool) -> None:
    """List all policies in force."""
    with doing():
        rules = read_rules(settings)
    _show([entry for entry in rules.policies.values() if org in (None, entry.org_id)], as_json)
    tell_unreadable(rules.unreadable)


@policy.command("discard")
@click.argument("key")
@click.pass_obj
def discard_(settings: Settings, key: str) -> None:
    """Take away a record that cannot be read, by the key that `list` names: a policy, a member, or another rule."""
    with doing():
        discard(settings, key)
    out.print(f"{key} is gone")


@policy.command()
@org_option
@scope_option
@name_or_default
@click.option("--applies", type=click.Choice(["each_member", "pool"]), help="Which one, where the scope has several.")
@click.option("--currency", type=click.Choice(["USD", "EUR", "RUB"]), help="Which one, where the scope has several.")
@click.pass_obj
def delete(settings: Settings, org: str, scope: str, name: str, applies: str | None, currency: str | None) -> None:
    """Delete the policy of a scope, but not an organisation's; an absent one is no error."""
    if scope == "org":
        raise UserError(f"cannot delete org policy: take its limits away, tollmeter policy set --org {org} --no-limits")
    with doing():
        found = [
            entry
            for entry in _of_scope(settings, org, scope, name)
            if applies in (None, entry.applies) and currency in (None, entry.currency)
        ]
        if len(found) > 1:
            ids = ", ".join(entry.policy_id for entry in found)
            raise UserError(f"{len(found)} policies fit: {ids}; say which with --applies and --currency")
        write(settings, [policy_delete(org, entry.policy_id) for entry in found])
    said = f"policy {found[0].policy_id} is gone" if found else f"{org}/{scope}/{name} has no such policy"
    out.print(said)


def document(entry: Policy) -> dict[str, Any]:
    """Return a policy as --json prints it."""
    return {"policy_id": entry.policy_id, **entry.model_dump(mode="json")}


def _of_scope(settings: Settings, org: str, scope: str, name: str) -> list[Policy]:
    scope, name = known_as(settings, scope, name)
    found = read_rules(settings).policies.values()
    return [entry for entry in found if (entry.org_id, entry.scope, entry.name) == (org, scope, name)]


def _show(found: list[Policy], as_json: bool) -> None:
    if as_json:
        print_json([document(entry) for entry in found])
        return
    rows = [
        {
            "org": entry.org_id,
            "scope": entry.scope,
            "name": entry.name or ("(default)" if entry.is_default else ""),
            "applies": entry.applies,
            "limits": ", ".join(f"{kind} {amount}" for kind, amount in limits_text(entry).items()) or "none",
            "currency": entry.currency,
            "zone": entry.timezone,
            "alerts at %": ", ".join(map(str, entry.thresholds)),
            "alert below": amount_text(entry.alert_remaining_micro) if entry.alert_remaining_micro else None,
        }
        for entry in found
    ]
    print_table("policies", rows)


_BESIDE = (import_policies, export_policies, explain, status, used, try_out, raise_, put_back_, reset, history, models)
for command in _BESIDE:
    policy.add_command(command)
