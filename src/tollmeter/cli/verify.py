"""`tollmeter verify`: does every record stand in the ledger exactly once? Exit code 1 when anything differs."""

import asyncio
from contextlib import ExitStack
from dataclasses import asdict

import click

from tollmeter.cli.ledger import reading
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
from tollmeter.cli.progress import bar
from tollmeter.settings import Settings
from tollmeter.verify.position import LogUnreadableError
from tollmeter.verify.run import Verdict
from tollmeter.verify.run import verify as check

SHOWN = 20


@click.command()
@click.option(
    "--wait", type=SPAN, default="30s", show_default=True, help="How long to wait for the workers to catch up."
)
@json_option
@click.pass_obj
def verify(settings: Settings, /, wait: float, as_json: bool) -> int:
    """Check that every record of the log stands in the ledger exactly once, with its cost.

    Counts records, accepted, rejected, distinct, resends and ledger rows, each by itself; compares costs event by
    event, coverage of the source log, sealed live windows and the minute rollup.
    """
    verdict = run(settings, wait)
    if as_json:
        print_json(verdict.document())
        return 1 if verdict.differences else 0
    tell(verdict)
    if verdict.differences:
        raise Finding(f"{len(verdict.differences)} differences")
    return 0


def run(settings: Settings, wait_s: float) -> Verdict:
    """Verify with a progress bar. Raises `UserError` when log or ledger cannot be read."""
    with reading(settings) as client, ExitStack() as stack:
        try:
            return asyncio.run(
                check(
                    settings, client, wait_s, lambda total: stack.enter_context(bar("records checked", total)).advance
                )
            )
        except LogUnreadableError as problem:
            raise UserError(str(problem)) from None


def line(verdict: Verdict) -> str:
    """The sum, each term counted on its own."""
    return (
        f"records {verdict.records:,} = ledger {verdict.ledger:,} + resends {verdict.resends:,} "
        f"+ rejected {verdict.rejected:,}"
    )


def tell(verdict: Verdict) -> None:
    out.print(line(verdict), soft_wrap=True)
    out.print(
        f"accepted {verdict.accepted:,} = distinct {verdict.distinct:,} + resends {verdict.resends:,}; "
        f"{verdict.windows_compared:,} sealed window minutes and {verdict.rollup_compared:,} rollup totals compared",
        soft_wrap=True,
    )
    if verdict.differences:
        rows = [asdict(difference) for difference in verdict.differences[:SHOWN]]
        print_table("Differences", rows, ("name", "where", "amount", "detail"))
    else:
        out.print("no differences")
