"""`tollmeter policy models`: which models a key, user, group or organisation may use; guards obey at once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import click
from pydantic import ValidationError

from tollmeter.admin import model_rules as rules
from tollmeter.admin.model_trial import try_models
from tollmeter.admin.policy_trial import CannotTryError
from tollmeter.broker.policies import read_rules, unread, write
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import Finding, UserError, err, json_option, out, print_json, print_table
from tollmeter.cli.policy_options import doing, known_or_created, name_option, org_option, scope_of, tell_unreadable
from tollmeter.schemas.model_rules import ANY, MODEL_SCOPES, ModelRule
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings
from tollmeter.yaml_files import words

_SHORT = {"key": "api_key"}


class _SetsUnlessTold(Group):
    """`policy models --org ...` sets, as `policy models set --org ...` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = args and args[0].startswith("--") and args[0] not in ctx.help_option_names
        return super().parse_args(ctx, ["set", *args] if named else args)


@click.group(cls=_SetsUnlessTold)
def models() -> None:
    """Which models a key, a user, a group or the organisation may use; others are refused or downgraded."""


def _whose(command: Callable[..., object]) -> Callable[..., object]:
    return org_option(scope_of(*MODEL_SCOPES, *_SHORT)(name_option(command)))


@models.command("set")
@_whose
@click.option("--allow", "allowed", multiple=True, required=True, help="A model, or * for every one. Repeatable.")
@click.option("--downgrade-to", default="", help="Model to call in place of one that is not allowed; without: refuse.")
@click.option("--create", is_flag=True, help="Add a user whom nobody knows yet to the membership.")
@json_option
@click.pass_obj
def set_(
    settings: Settings,
    /,
    org: str,
    scope: str,
    name: str,
    allowed: tuple[str, ...],
    downgrade_to: str,
    create: bool,
    as_json: bool,
) -> None:
    """Say which models calls of a scope may use, in place of what was said before.

    A name means the model in all its versions, at whichever seller; one with a date, that version alone.
    """
    made = _made(org, scope, name, allowed, downgrade_to)
    with doing():
        found = rules.resolved(settings, made, allowed)
        write(settings, known_or_created(settings, read_rules(settings), [found.rule], create=create))
        rules.put(settings, found.rule)
    for lacking in found.unknown:
        err.print(f"the price book knows no model {lacking}: calls meet it by exactly this name")
    if as_json:
        print_json(found.document)
        return
    for written, known in found.meant.items():
        out.print(f"model {written!r} is known as {known}")
    otherwise = f"other models become {made.downgrade_to}" if made.downgrade_to else "other models are refused"
    everything = ANY in found.rule.allowed
    said = "may use every model" if everything else f"may use {', '.join(found.rule.allowed)}; {otherwise}"
    out.print(f"{_whom(made)} {said}")


@models.command("list")
@click.option("--org", help="Only this organisation.")
@json_option
@click.pass_obj
def list_(settings: Settings, org: str | None, as_json: bool) -> None:
    """List the rules in force."""
    with doing():
        found = rules.model_rules(settings, org)
        tell_unreadable(unread(settings))
    if as_json:
        print_json([rules.shown(rule) for rule in found])
        return
    rows = [
        {
            "org": rule.org_id,
            "scope": rule.scope,
            "name": rule.name,
            "allowed": ", ".join(rule.allowed),
            "others": f"become {rule.downgrade_to}" if rule.downgrade_to else "are refused",
        }
        for rule in found
    ]
    print_table("models that may be used", rows, ["org", "scope", "name", "allowed", "others"])


@models.command()
@_whose
@click.pass_obj
def delete(settings: Settings, /, org: str, scope: str, name: str) -> None:
    """Let a scope use every model again; exit code 1 where no rule was."""
    gone = _made(org, scope, name, (ANY,), "")
    with doing():
        there = rules.take_away(settings, gone)
    if not there:
        raise Finding(f"{_whom(gone)} had no rule about models")
    out.print(f"{_whom(gone)} has no rule about models any more")


@models.command("try")
@_whose
@click.option("--allow", "allowed", multiple=True, required=True, help="A model, or * for every one. Repeatable.")
@click.option("--downgrade-to", default="", help="Model to call in place of one that is not allowed; without: refuse.")
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="On so many last days.")
@json_option
@click.pass_obj
def try_(
    settings: Settings,
    /,
    org: str,
    scope: str,
    name: str,
    allowed: tuple[str, ...],
    downgrade_to: str,
    days: int,
    as_json: bool,
) -> None:
    """Say which calls of the last days a rule would have refused or moved to another model; nothing is written."""
    made = rules.resolved(settings, _made(org, scope, name, allowed, downgrade_to), allowed).rule
    now = datetime.now(UTC)
    with reading(settings) as ledger:
        try:
            found = try_models(settings, ledger, made, now - timedelta(days=days), now)
        except CannotTryError as error:
            raise UserError(str(error)) from None
    if as_json:
        print_json({"rule": rules.shown(made), "days": days, "models": [one.document for one in found]})
        return
    counts = {word: sum(one.calls for one in found if one.verdict == word) for word in ("refused", "downgraded")}
    told = f"{counts['refused']:,} would have been refused, {counts['downgraded']:,} downgraded"
    out.print(f"of {sum(one.calls for one in found):,} calls of {_whom(made)} in {days} days {told}")
    rows = [
        {
            "model": one.model,
            "provider": one.provider,
            "verdict": one.verdict,
            "calls": one.calls,
            "users": one.users,
            "USD": nano_to_text(one.cost_nano, 4),
            "unpriced": one.unpriced,
            "first": f"{one.first:%Y-%m-%d %H:%M} UTC",
        }
        for one in found
        if one.verdict != "allowed"
    ]
    if rows:
        print_table("calls that the rule does not allow", rows, spare=("first", "unpriced"))


def _made(org: str, scope: str, name: str, allowed: tuple[str, ...], downgrade_to: str) -> ModelRule:
    fields = {"org_id": org, "scope": _SHORT.get(scope, scope), "name": name, "allowed": allowed}
    try:
        return ModelRule.model_validate({**fields, "downgrade_to": downgrade_to})
    except ValidationError as error:
        raise UserError(words(error.errors(include_url=False)[0])) from None


def _whom(rule: ModelRule) -> str:
    return f"{rule.scope} {rule.name} of {rule.org_id}" if rule.name else f"organisation {rule.org_id}"
