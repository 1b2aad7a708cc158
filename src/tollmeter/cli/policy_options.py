"""What the commands about policies and members share: options, errors in one line, and who is known."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from functools import wraps
from shlex import quote
from typing import TypeVar

import click

from tollmeter.admin.policy_files import FileError
from tollmeter.admin.policy_text import PolicyTextError
from tollmeter.admin.spend_status import seen_users
from tollmeter.broker.policies import Change, PolicyError, Rules, member_set
from tollmeter.broker.unreadable import Unreadable
from tollmeter.cli.ledger import reading
from tollmeter.cli.output import UserError, err
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import MEMBER_SCOPES, SCOPE_KINDS, Member, Policy
from tollmeter.settings import Settings

org_option = click.option("--org", required=True, help="Organisation the scope belongs to.")


def scope_of(*kinds: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Return the option for a scope of one of these kinds, by default the organisation itself."""
    return click.option("--scope", type=click.Choice(kinds), default="org", show_default=True)


scope_option = scope_of(*SCOPE_KINDS)
applies_option = click.option(
    "--applies",
    type=click.Choice(["each_member", "pool"]),
    default="pool",
    show_default=True,
    help="Whether it limits what each user of the scope spends, or what all its calls spend together.",
)
currency_option = click.option("--currency", type=click.Choice(["USD", "EUR", "RUB"]), default="USD", show_default=True)
name_option = click.option(
    "--name", default="", help="Which group, user, key ...; nothing for the organisation itself."
)


def name_or_default(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command --name and --default; it gets the default as a scope without a name, for each member."""

    @wraps(command)
    def run(*args: object, scope: str, name: str, default: bool, **rest: object) -> object:
        if default and name:
            raise UserError("--default is for everyone without a policy of their own: it takes no --name")
        if default and scope not in MEMBER_SCOPES:
            raise UserError(f"--default is for --scope {', '.join(MEMBER_SCOPES)}; what all spend has no default")
        if default and "applies" in rest:
            rest["applies"] = "each_member"
        return command(*args, scope=scope, name=name, **rest)

    default = click.option(
        "--default",
        is_flag=True,
        help="Each user, key, agent, session or run of the organisation that has no policy of its own.",
    )
    return name_option(default(run))


_Value = TypeVar("_Value")
_OPTIONS = {
    "limits.day/money": "--daily",
    "limits.week/money": "--weekly",
    "limits.month/money": "--monthly",
    "alert_remaining": "--alert-remaining",
    "warn_threshold_pct": "--warn-pct",
    "timezone": "--timezone",
    "alert_pcts": "--alert-pct",
}


@contextmanager
def doing() -> Iterator[None]:
    """Turn what the user can mend into one line each."""
    try:
        yield
    except PolicyError as error:
        raise UserError(str(error)) from None
    except FileError as error:
        raise UserError(*str(error).splitlines()) from None


def tell_unreadable(problems: Iterable[Unreadable]) -> None:
    """Name on the error stream what of the rules nobody obeys."""
    for one in problems:
        err.print(
            f"{one.key} cannot be read ({one.why}) and holds for nobody: a newer version may know it; "
            f"tollmeter policy discard {quote(one.key)} takes it away"
        )


def known_or_created(
    settings: Settings, rules: Rules, policies: Iterable[Policy | ModelRule], *, create: bool
) -> list[Change]:
    """Return the members to add for users that nobody knows. Raises `UserError` naming them unless `create` is set."""
    users = sorted({(one.org_id, one.name) for one in policies if one.scope == "user" and one.name})
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


def limit_options(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options of limits; it gets them as `given`: amounts as text by kind (`day/money`)."""

    @wraps(command)
    def run(
        *args: object,
        daily: str | None,
        weekly: str | None,
        monthly: str | None,
        rolling: tuple[str, ...],
        kinds: tuple[str, ...],
        **rest: object,
    ) -> object:
        return command(*args, given=_given_limits(daily, weekly, monthly, rolling, kinds), **rest)

    found: Callable[..., object] = run
    for option in (
        click.option(
            "--limit",
            "kinds",
            multiple=True,
            metavar="KIND=AMOUNT",
            help="Any limit: day/tokens=1000000, rolling24h/requests=500, week/money=20. Repeatable.",
        ),
        click.option(
            "--rolling", multiple=True, metavar="HOURS=AMOUNT", help="Limit of the last hours: 24=5. Repeatable."
        ),
        click.option("--monthly", help="Limit per calendar month."),
        click.option("--weekly", help="Limit per week, from Monday."),
        click.option("--daily", help="Limit per day, for example 25 or 0.5."),
    ):
        found = option(found)
    return found


def _given_limits(
    daily: str | None, weekly: str | None, monthly: str | None, rolling: Iterable[str], kinds: Iterable[str]
) -> dict[str, str]:
    """Return the limits of all options by kind."""
    pairs = [("day/money", daily), ("week/money", weekly), ("month/money", monthly)]
    for option, texts, prefix, suffix in (("--rolling", rolling, "rolling", "h/money"), ("--limit", kinds, "", "")):
        for text in texts:
            kind, sign, amount = text.partition("=")
            if not sign:
                form = "HOURS=AMOUNT, for example 24=5" if prefix else "KIND=AMOUNT, for example day/tokens=1000000"
                raise UserError(f"{option} {text}: write {form}")
            pairs.append((f"{prefix}{kind}{suffix}", amount))
    found: dict[str, str] = {}
    for kind, given in pairs:
        if given is not None and kind in found:
            raise UserError(f"two limits of {kind}: give one")
        if given is not None:
            found[kind] = given
    return found


def is_none(amount: str) -> bool:
    """Return whether an amount is a number of zero or less: clients that know no absent limit write it so."""
    try:
        return Decimal(amount) <= 0
    except InvalidOperation:
        return False


def readable(make: Callable[[], _Value]) -> _Value:
    """Return what was written as a policy; a mistake names the option that holds it."""
    try:
        return make()
    except PolicyTextError as error:
        section, _, kind = error.key.partition(".")
        option = _OPTIONS.get(error.key) or ("--limit " + kind if section == "limits" and kind else "")
        raise UserError(f"{option}: {error.text}" if option else error.text) from None
