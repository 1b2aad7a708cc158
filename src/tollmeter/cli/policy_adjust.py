"""`tollmeter policy raise|reset|history`: limits that are otherwise for a time, with who wants it and why."""

import getpass
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from tollmeter.admin.adjust import Wish, put_back, raised
from tollmeter.admin.names import known_as
from tollmeter.admin.policy_text import PolicyTextError, amount_text, limit_of
from tollmeter.broker.policies import adjust, read_rules, read_spend
from tollmeter.broker.policies import history as read_history
from tollmeter.cli.options import INSTANT
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
from tollmeter.cli.policy_options import doing, limit_options, name_or_default, org_option, scope_option
from tollmeter.schemas.money import NANO_PER_MICRO
from tollmeter.schemas.policy import Adjustment, Limit, Policy
from tollmeter.schemas.spend import Spend, spend_key
from tollmeter.settings import Settings
from tollmeter.streams.rules.limits.periods import period_of
from tollmeter.streams.rules.limits.policies import budgets_of


def _who_and_why(command: Callable[..., object]) -> Callable[..., object]:
    for option in (
        click.option("--by", default=getpass.getuser, show_default="your user name", help="Who wants it."),
        click.option("--reason", required=True, help="Why; kept in the history."),
        click.option("--currency", type=click.Choice(["USD", "EUR", "RUB"]), help="Which policy, of several."),
        click.option("--applies", type=click.Choice(["each_member", "pool"]), help="Which policy, of several."),
        name_or_default,
        scope_option,
        org_option,
    ):
        command = option(command)
    return command


@click.command("raise")
@_who_and_why
@limit_options
@click.option("--until", type=INSTANT, required=True, help="When the limit is as before again, by itself.")
@json_option
@click.pass_obj
def raise_(settings: Settings, /, until: datetime, given: dict[str, str], as_json: bool, **asked: Any) -> None:
    """Raise limits of a policy until a time."""
    by, reason = asked.pop("by"), asked.pop("reason")
    now_ms, until_ms = round(time.time() * 1_000), round(until.timestamp() * 1_000)
    if not given:
        raise UserError("say what to raise: --daily, --weekly, --monthly, --rolling or --limit with the new amount")
    if until_ms <= now_ms:
        raise UserError(f"--until {until.isoformat()} is over")
    with doing():
        policy = _policy(settings, **asked)
        wanted = [_limit(kind, amount) for kind, amount in given.items()]
        made = raised(policy, wanted, Wish(by, reason, now_ms, until_ms))
        adjust(settings, policy, made)
    _tell(policy, made, as_json=as_json)


@click.command("put-back")
@_who_and_why
@json_option
@click.pass_obj
def put_back_(settings: Settings, /, by: str, reason: str, as_json: bool, **asked: str) -> None:
    """End what was raised before its time: the policy's own limits hold at once. What was reset stays reset."""
    now_ms = round(time.time() * 1_000)
    with doing():
        policy = _policy(settings, **asked)
        made = put_back(policy, Wish(by, reason, now_ms, now_ms))
        if made:
            adjust(settings, policy, made)
    if not made:
        raise Finding(f"no limit of {policy.policy_id} is raised: nothing to put back")
    _tell(policy, made, as_json=as_json)


@click.command()
@_who_and_why
@json_option
@click.pass_obj
def reset(settings: Settings, /, by: str, reason: str, as_json: bool, **asked: Any) -> None:
    """Let what was used so far count no longer: it is added to each limit until that limit's period ends.

    Day, week and month can be reset; hours that roll cannot, since what was used leaves them by itself.
    """
    now_ms = round(time.time() * 1_000)
    with doing():
        policy = _policy(settings, **asked)
        if policy.applies == "each_member":
            raise UserError(
                f"{policy.policy_id} limits each member, and each has used another amount: no one sum can be reset; "
                "give the member a policy of its own, and reset that"
            )
        if all(limit.period == "rolling" for limit in policy.all_limits):
            raise UserError(
                f"{policy.policy_id} limits hours that roll: what was used leaves them by itself, and no period ends "
                "with which a reset would; 'tollmeter policy raise' lets more through until a time"
            )
        spent = read_spend(settings)
        made = [
            Adjustment(limit=limit.key, added=used[0], since_ms=now_ms, until_ms=used[1], by=by, reason=reason)
            for limit in policy.all_limits
            if limit.period != "rolling" and (used := _used(policy, limit, spent, now_ms)) is not None
        ]
        if made:
            adjust(settings, policy, made)
    if not made:
        raise Finding(f"nothing of {policy.policy_id} is used in a day, week or month: nothing to reset")
    _tell(policy, made, as_json=as_json)


@click.command()
@org_option
@json_option
@click.pass_obj
def history(settings: Settings, org: str, as_json: bool) -> None:
    """Show every raise and reset of an organisation, whatever became of its policy."""
    with doing():
        found = read_history(settings, org)
    if as_json:
        print_json([{"policy_id": policy_id, **one.model_dump(mode="json")} for policy_id, one in found])
        return
    print_table("Raised and reset", [_row(policy_id, one) for policy_id, one in found])


def _policy(settings: Settings, org: str, scope: str, name: str, applies: str | None, currency: str | None) -> Policy:
    asked = "/".join((org, scope, name))
    scope, name = known_as(settings, scope, name)
    found = [
        policy
        for policy in read_rules(settings).policies.values()
        if (policy.org_id, policy.scope, policy.name) == (org, scope, name)
        and applies in (None, policy.applies)
        and currency in (None, policy.currency)
    ]
    if not found:
        raise UserError(f"{asked} has no such policy: 'tollmeter policy list --org {org}' shows what there is")
    if len(found) > 1:
        ids = ", ".join(policy.policy_id for policy in found)
        raise UserError(f"{len(found)} policies fit: {ids}; say which with --applies and --currency")
    return found[0]


def _limit(kind: str, amount: str) -> Limit:
    try:
        return limit_of(kind, amount)
    except PolicyTextError as error:
        raise UserError(f"{kind}: {error.text}") from None


def _used(policy: Policy, limit: Limit, spent: dict[str, Spend], now_ms: int) -> tuple[int, int] | None:
    """Return what is used of a limit, in its unit, and when its period ends (ms); None where nothing is."""
    (budget,) = [one for one in budgets_of(policy, policy.scope, policy.name, 1) if one.limit == limit]
    ends_s = period_of(limit.window, policy.timezone, now_ms // 1_000)[1]
    row = spent.get(spend_key(policy.org_id, policy.scope, policy.name, budget.period, budget.unit))
    if row is None or row.ends_s != ends_s or not row.spent:
        return None
    return -(-row.spent // NANO_PER_MICRO) if limit.measure == "money" else row.spent, ends_s * 1_000


def _tell(policy: Policy, made: list[Adjustment], *, as_json: bool) -> None:
    if as_json:
        print_json([{"policy_id": policy.policy_id, **one.model_dump(mode="json")} for one in made])
        return
    for one in made:
        row = _row(policy.policy_id, one)
        if one.puts_back:
            out.print(f"{row['limit']} of {policy.policy_id}: as the policy says, from now on")
            continue
        out.print(f"{row['limit']} of {policy.policy_id}: {row['what']} until {row['until']}")


def _row(policy_id: str, one: Adjustment) -> dict[str, Any]:
    money = one.limit.endswith("/money")
    amount = one.amount or one.added
    shown = amount_text(amount) if money else f"{amount:,}"
    return {
        "at": _instant(one.since_ms),
        "policy": policy_id,
        "limit": one.limit,
        "what": "put back"
        if one.puts_back
        else f"raised to {shown}"
        if one.amount
        else f"reset, {shown} used until then",
        "until": _instant(one.until_ms),
        "by": one.by,
        "reason": one.reason,
    }


def _instant(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="seconds")
