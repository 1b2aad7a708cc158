"""What the commands about policies and members share: options, errors in one line, and who is known."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

from tollmeter.admin.policy_files import FileError
from tollmeter.admin.spend_status import seen_users
from tollmeter.broker.policies import Change, PolicyError, Rules, member_set
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError
from tollmeter.schemas.policy import SCOPE_KINDS, Member, Policy
from tollmeter.settings import Settings

org_option = click.option("--org", required=True, help="Organisation the scope belongs to.")
scope_option = click.option("--scope", type=click.Choice(SCOPE_KINDS), default="org", show_default=True)
name_option = click.option(
    "--name", default="", help="Which group, user, key ...; nothing for the organisation itself."
)
applies_option = click.option(
    "--applies",
    type=click.Choice(["each_member", "pool"]),
    default="pool",
    show_default=True,
    help="Whether it limits what each user of the scope spends, or what all its calls spend together.",
)
currency_option = click.option("--currency", type=click.Choice(["USD", "EUR", "RUB"]), default="USD", show_default=True)


@contextmanager
def doing() -> Iterator[None]:
    """Turn what the user can mend into one line each."""
    try:
        yield
    except (PolicyError, FileError) as error:
        raise UserError(str(error)) from None


def known_or_created(settings: Settings, rules: Rules, policies: Iterable[Policy], *, create: bool) -> list[Change]:
    """Return the members to add for users that nobody knows. Raises `UserError` naming them unless `create` is set."""
    users = sorted({(policy.org_id, policy.name) for policy in policies if policy.scope == "user"})
    outside = [(org, user) for org, user in users if not rules.groups.knows(org, user)]
    if create:
        return [member_set(Member(org_id=org, name=user)) for org, user in outside]
    unknown = _never_seen(settings, outside)
    if unknown:
        names = ", ".join(f"{user} of {org}" for org, user in unknown)
        raise UserError(
            f"nobody knows user {names}: not in the membership, never seen in an event; --create adds to the membership"
        )
    return []


def _never_seen(settings: Settings, users: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    if not users:
        return []
    by_org: dict[str, list[str]] = {}
    for org, user in users:
        by_org.setdefault(org, []).append(user)
    try:
        with reading(settings) as ledger:
            seen = {(org, user) for org, names in by_org.items() for user in seen_users(ledger, org, names)}
    except UserError as error:
        raise UserError(
            f"cannot tell whether {users[0][1]} is known ({error.message}); --create adds to the membership"
        ) from None
    return [entry for entry in users if entry not in seen]
