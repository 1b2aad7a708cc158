"""`tollmeter setup`: topics, layout record and tables on any cluster; may be repeated; `--dry-run` only looks."""

from collections.abc import Sequence
from dataclasses import asdict

import click

from tollmeter.admin import setup as provision
from tollmeter.admin.setup import Step
from tollmeter.broker.access_rules import BY_NAME
from tollmeter.broker.layout import ProvisionError
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.settings import Settings

_MISSING = {"grant": "by hand", "acl": "not enforced"}


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be made, and who may do what; change nothing.")
@click.option(
    "--statements",
    is_flag=True,
    help="With --dry-run: print commands of Kafka's tools, and SQL, for what is missing, rules of access and grants.",
)
@click.option("--access", is_flag=True, help="Make the rules of access, too, at a broker that has an authorizer.")
@click.option(
    "--principal",
    "named",
    multiple=True,
    metavar="ROLE=PRINCIPAL",
    help="Who a role is, such as price=User:CN=price [default: User:<group prefix>-<role>]; may be repeated.",
)
@json_option
@click.pass_obj
def setup(
    settings: Settings, dry_run: bool, statements: bool, access: bool, named: Sequence[str], as_json: bool
) -> None:
    """Create the topics, the layout record and the ClickHouse tables that are missing."""
    principals = dict(map(_named, named))
    if statements and not dry_run:
        raise UserError("--statements goes with --dry-run: nothing is made by printing how")
    try:
        steps = _steps(settings, dry_run, access, principals)
    except ProvisionError as error:
        raise UserError(str(error)) from None
    if as_json:
        print_json([asdict(step) for step in steps])
    elif statements:
        _print_statements(steps)
    else:
        rows = [
            {"kind": step.kind, "name": step.name, "detail": step.detail, "state": _state(step, dry_run)}
            for step in steps
        ]
        print_table(f"{settings.kafka} and {settings.clickhouse}", rows)


def _steps(settings: Settings, dry_run: bool, access: bool, principals: dict[str, str]) -> list[Step]:
    if dry_run:
        return provision.plan(settings, principals)
    made = provision.apply(settings)
    return [*made, *provision.grant_access(settings, principals)] if access else made


def _state(step: Step, dry_run: bool) -> str:
    if step.done is None:
        return _MISSING[step.kind]
    return "there" if step.done else "to be made" if dry_run else "made"


def _print_statements(steps: Sequence[Step]) -> None:
    """Print what is not known to be there: shell first, then SQL."""
    wanted = [step for step in steps if not step.done and step.statement]
    for step in wanted:
        if step.kind in ("topic", "acl"):
            out.print(step.statement)
    for step in wanted:
        if step.kind in ("migration", "grant"):
            out.print(step.statement.rstrip() + ";")


def _named(text: str) -> tuple[str, str]:
    role, _, principal = text.partition("=")
    if role not in BY_NAME or ":" not in principal:
        known = ", ".join(BY_NAME)
        raise UserError(f"--principal {text!r}: write ROLE=TYPE:NAME with a role of {known}, such as price=User:price")
    return role, principal
