"""`tollmeter policy try`: what a policy would have refused on the traffic of the last days. Nothing is written."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps

import click

from tollmeter.admin.names import resolved
from tollmeter.admin.policy_text import policy_of
from tollmeter.admin.policy_trial import CannotTryError, Trial, try_policy
from tollmeter.broker.policies import read_rules
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.policy_options import (
    applies_option,
    currency_option,
    doing,
    limit_options,
    name_or_default,
    org_option,
    readable,
    scope_option,
)
from tollmeter.schemas.money import limit_text, nano_to_text, used_text
from tollmeter.settings import Settings

CURRENCIES = ("USD", "EUR", "RUB")


def whose(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options of a policy's scope; it gets them as `fields`."""

    @wraps(command)
    def run(
        *args: object, org: str, scope: str, name: str, applies: str, currency: str, timezone: str, **rest: object
    ) -> object:
        fields = {"org_id": org, "scope": scope, "name": name, "applies": applies}
        return command(*args, fields={**fields, "currency": currency, "timezone": timezone}, **rest)

    zone = click.option("--timezone", default="UTC", show_default=True, help="Zone whose days, weeks and months count.")
    found: Callable[..., object] = run
    for option in (zone, currency_option, applies_option, name_or_default, scope_option, org_option):
        found = option(found)
    return found


@click.command("try")
@whose
@limit_options
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="On so many last days.")
@json_option
@click.pass_obj
def try_out(settings: Settings, /, fields: dict[str, str], given: dict[str, str], days: int, as_json: bool) -> None:
    """Say what a policy would have refused on the traffic of the last days, when and for whom; nothing is written."""
    if not given:
        raise UserError("a policy needs a limit to be tried out: give --daily, --monthly or another one")
    made = readable(lambda: policy_of(fields, given))
    now = datetime.now(UTC)
    with doing():
        made = resolved(settings, made)
        others = read_rules(settings).policies.values() if made.applies == "each_member" else ()
    with reading(settings) as ledger:
        try:
            trials = try_policy(ledger, made, now - timedelta(days=days), now, others)
        except CannotTryError as error:
            raise UserError(str(error)) from None
    if as_json:
        documents = [{**trial.document(), "words": words(trial, days)} for trial in trials]
        print_json({"policy_id": made.policy_id, "days": days, "zone": made.timezone, "limits": documents})
        return
    for trial in trials:
        out.print(words(trial, days))
        rows = [
            {
                "period": one.period,
                trial.each: one.who or None,
                "first refused": one.first_refused and f"{one.first_refused:%Y-%m-%d %H:%M} UTC",
                "refused": one.refused,
                "of calls": one.calls,
                "USD not spent": nano_to_text(one.spared_nano, 4),
            }
            for one in trial.periods
            if one.refused
        ]
        if rows:
            print_table(f"refusals by {trial.limit.key}", rows)


def words(trial: Trial, days: int) -> str:
    """Say in one sentence what a limit would have done."""
    what = f"{trial.limit.key} {_amount(trial, trial.amount, limit_text)}"
    highest = trial.highest
    if highest is None:
        return f"{what}: nobody would have reached it, for there was no call of this scope in {days} days"
    most = f"{_amount(trial, highest.used)} in {highest.period}{f' by {highest.who}' if highest.who else ''}"
    if not trial.reached:
        share = 100 * highest.used / trial.amount
        return f"{what}: no traffic of {days} days would have reached it; the most was {most}, {share:.1f} %"
    refused, periods = sum(one.refused for one in trial.periods), sum(one.refused > 0 for one in trial.periods)
    spared = nano_to_text(sum(one.spared_nano for one in trial.periods), 4)
    return f"{what}: would have refused {refused:,} calls in {periods} periods, {spared} USD; the most was {most}"


def _amount(trial: Trial, amount: int, shown: Callable[[int], str] = used_text) -> str:
    return f"{shown(amount)} {trial.unit}" if trial.unit in CURRENCIES else f"{amount:,} {trial.unit}"
