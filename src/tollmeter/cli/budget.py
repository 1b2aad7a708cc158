"""`tollmeter report budget`: what monthly budgets have left, what that still buys, OK or ALERT."""

import os
import time

import click

from tollmeter.admin.reachable import answers
from tollmeter.broker.policies import PolicyError, list_policies
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, json_option, out, print_json
from tollmeter.schemas.policy import SCOPE_KINDS
from tollmeter.settings import Settings
from tollmeter.streams.notify import budget as report


@click.command()
@click.option("--org", default="", help="Only budgets of this organisation.")
@click.option("--scope", type=click.Choice(SCOPE_KINDS), default="provider", show_default=True, help="Budgets of what.")
@click.option("--name", default="", help="Only the budget of this provider, key ...")
@json_option
@click.pass_obj
def budget(settings: Settings, org: str, scope: str, name: str, as_json: bool) -> int:
    """This month's pool budgets: calls, tokens, spent, remaining, and what that still buys. Exit code 1 on ALERT.

    Where a provider's key is in the environment (OPENAI_API_KEY ...), one tiny metered call says whether it answers.
    The words of the verdict are TOLLMETER_VERDICT_OK and TOLLMETER_VERDICT_ALERT.
    """
    try:
        policies = report.monthly_pools(list_policies(settings), scope, org, name)
    except PolicyError as error:
        raise UserError(str(error)) from None
    if not policies:
        raise UserError(
            f"no monthly budget for a {scope}: set one, for example "
            "tollmeter policy set --org ORG --scope provider --name openai --monthly 10"
        )
    now_s = int(time.time())
    with reading(settings) as ledger:
        budgets = [report.read(ledger, policy, now_s) for policy in policies]
    words = report.Words(settings.verdict_ok, settings.verdict_alert)
    named = {policy.name for policy in policies if policy.scope == "provider"}
    remarks = answers(settings, named, os.environ)
    if as_json:
        print_json(report.document(budgets, now_s, words, remarks))
    else:
        for line in report.text(budgets, now_s, words, remarks).split("\n"):
            out.print(line)
    return 1 if any(entry.alert for entry in budgets) else 0
