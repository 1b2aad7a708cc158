"""`tollmeter policy`: set, list and delete limits; amounts in currency units with up to six decimals."""

from decimal import Decimal, InvalidOperation
from typing import Any

import click
from pydantic import ValidationError

from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.policies import PolicyError, delete_policy, list_policies, set_policy
from tollmeter.schemas.policy import DEFAULT_ALERT_PCTS, SCOPE_KINDS, Policy
from tollmeter.settings import Settings

_MICRO = 1_000_000

_org = click.option("--org", required=True, help="Organisation the scope belongs to.")
_scope = click.option("--scope", type=click.Choice(SCOPE_KINDS), default="org", show_default=True)
_name = click.option("--name", default="", help="Which group, user, key ...; nothing for the organisation itself.")
_currency = click.option("--currency", type=click.Choice(["USD", "EUR", "RUB"]), default="USD", show_default=True)


@click.group()
def policy() -> None:
    """Limits of organisations, groups, users, keys, IPs, agents, models and providers."""


@policy.command("set")
@_org
@_scope
@_name
@click.option("--daily", help="Limit per UTC day, for example 25 or 0.5.")
@click.option("--monthly", help="Limit per calendar month (UTC).")
@_currency
@click.option("--alert-pct", "alert_pcts", type=int, multiple=True, help="Threshold in percent; may be repeated.")
@json_option
@click.pass_obj
def set_(
    settings: Settings, org: str, scope: str, name: str, daily: str | None, monthly: str | None, currency: str,
    alert_pcts: tuple[int, ...], as_json: bool,
) -> None:  # fmt: skip
    """Set the limits of a scope (what all its calls spend together), in place of any it had in this currency."""
    if not daily and not monthly:
        raise UserError("a policy needs a limit: give --daily or --monthly")
    made = _policy(
        org_id=org, scope=scope, name=name, currency=currency, alert_pcts=alert_pcts or DEFAULT_ALERT_PCTS,
        daily_limit_micro=_micro("--daily", daily), monthly_limit_micro=_micro("--monthly", monthly),
    )  # fmt: skip
    _do(lambda: set_policy(settings, made))
    if as_json:
        print_json({"policy_id": made.policy_id, **made.model_dump(mode="json")})
    else:
        out.print(f"policy {made.policy_id} is in force; alerts at {', '.join(f'{p} %' for p in made.alert_pcts)}")


@policy.command("list")
@json_option
@click.pass_obj
def list_(settings: Settings, as_json: bool) -> None:
    """List all policies in force."""
    found: list[Policy] = _do(lambda: list_policies(settings))
    rows: list[dict[str, Any]] = [{"policy_id": entry.policy_id, **entry.model_dump(mode="json")} for entry in found]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["daily"], row["monthly"] = _units(row["daily_limit_micro"]), _units(row["monthly_limit_micro"])
        row["alerts at %"] = ", ".join(map(str, row["alert_pcts"]))
    print_table("policies", rows, ["org_id", "scope", "name", "daily", "monthly", "currency", "alerts at %"])


@policy.command()
@_org
@_scope
@_name
@_currency
@click.pass_obj
def delete(settings: Settings, org: str, scope: str, name: str, currency: str) -> None:
    """Delete the policy of a scope; an absent one is no error."""
    made = _policy(org_id=org, scope=scope, name=name, currency=currency)
    _do(lambda: delete_policy(settings, org, made.policy_id))
    out.print(f"policy {made.policy_id} is gone")


def _policy(**fields: Any) -> Policy:
    if (fields["scope"] == "org") == bool(fields["name"]):
        raise UserError(
            "--name names a group, user, key ...: leave it out for --scope org, and give it for every other scope"
        )
    try:
        return Policy(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _micro(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        micro = Decimal(text) * _MICRO
    except InvalidOperation:
        raise UserError(f"{option} {text!r} is not an amount; write for example 25 or 0.5") from None
    if not micro.is_finite() or micro <= 0 or micro != micro.to_integral_value():
        raise UserError(f"{option} {text} must be above 0 and have at most six decimals")
    return int(micro)


def _units(micro: int | None) -> str | None:
    return None if micro is None else f"{Decimal(micro) / _MICRO:,.2f}"


def _do(action: Any) -> Any:
    try:
        return action()
    except PolicyError as error:
        raise UserError(str(error)) from None
