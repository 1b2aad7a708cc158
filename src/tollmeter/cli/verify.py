"""`tollmeter verify`: does every record stand in the ledger exactly once? Exit code 1 when anything differs."""

import asyncio
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tollmeter.cli.ledger import reading
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
from tollmeter.cli.progress import bar
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.verify.verdict import Options, Verdict
    from tollmeter.sinks.clickhouse.client import ClickHouse

SHOWN = 20


@click.command()
@click.option(
    "--wait", type=SPAN, default="30s", show_default=True, help="How long to wait for the workers to catch up."
)
@click.option("--since", type=SPAN, help="Check what arrived in this time only [default: all that the logs keep].")
@click.option(
    "--windows", type=SPAN, default="35d", show_default=True, help="Compare live totals of so long ago and later."
)
@click.option("--deep", is_flag=True, help="Read the source log again and count it independently.")
@click.option("--repair", "mend", is_flag=True, help="Mend what differs, then check again.")
@click.option("--first-wins", is_flag=True, help="Void what stands beside the first time of its id, nothing else.")
@click.option("--alert", is_flag=True, help="Raise an alert for each kind of difference, as the hourly check does.")
@json_option
@click.pass_obj
def verify(
    settings: Settings,
    /,
    wait: float,
    since: float | None,
    windows: float,
    deep: bool,
    mend: bool,
    first_wins: bool,
    alert: bool,
    as_json: bool,
) -> int:
    """Check that every record of the log stands in the ledger exactly once, with its cost.

    Counts records, accepted, rejected, distinct, resends and ledger rows, each by itself; compares costs event by
    event, coverage of the source log, the minute rollup group by group, and live totals scope by scope.
    """
    from tollmeter.admin.verify import alarm
    from tollmeter.admin.verify.verdict import Options

    options, began = Options(wait, since, windows, deep), datetime.now(UTC)
    verdict, done = check_and_mend(settings, options, mend=mend, first_wins=first_wins)
    if alert:
        raised = alarm.alerts(verdict.differences, datetime.now(UTC))
        asyncio.run(alarm.send(settings, raised))
        with reading(settings) as client:
            alarm.note(client, began, clean=not raised)
    if as_json:
        print_json({**verdict.document(), **({"repaired": done} if mend or first_wins else {})})
        return 1 if verdict.differences else 0
    for text in done:
        out.print(text)
    tell(verdict)
    if verdict.differences:
        raise Finding(f"{len(verdict.differences)} differences: docs/runbook.md says what each means")
    return 0


def run(settings: Settings, wait_s: float) -> "Verdict":
    """Verify with a progress bar. Raises `UserError` when log or ledger cannot be read."""
    from tollmeter.admin.verify.verdict import Options

    return check_and_mend(settings, Options(wait_s), mend=False)[0]


def check_and_mend(
    settings: Settings, options: "Options", *, mend: bool, first_wins: bool = False
) -> "tuple[Verdict, list[str]]":
    """Verify, and with `mend` repair and verify again. Raises `UserError` when log or ledger cannot be read."""
    from tollmeter.admin.verify.position import LogUnreadableError
    from tollmeter.admin.verify.repair import repair, void_doubled
    from tollmeter.admin.verify.run import verify as check

    async def work(client: "ClickHouse") -> "tuple[Verdict, list[str]]":
        with ExitStack() as stack:
            verdict = await check(
                settings, client, options, lambda total: stack.enter_context(bar("records checked", total)).advance
            )
        if mend and verdict.differences:
            done = await repair(settings, client, verdict, options)
        elif first_wins and verdict.broken.twice:
            done = await void_doubled(settings, client, verdict.broken)
        else:
            return verdict, []
        return await check(settings, client, options, lambda total: lambda count: None), done

    with reading(settings) as client:
        try:
            return asyncio.run(work(client))
        except LogUnreadableError as problem:
            raise UserError(str(problem)) from None


def line(verdict: "Verdict") -> str:
    """The sum, each term counted on its own."""
    return (
        f"records {verdict.records:,} = ledger {verdict.ledger:,} + resends {verdict.resends:,} "
        f"+ rejected {verdict.rejected:,}"
    )


def tell(verdict: "Verdict") -> None:
    out.print(line(verdict))
    out.print(
        f"accepted {verdict.accepted:,} = distinct {verdict.distinct:,} + resends {verdict.resends:,}; "
        f"{verdict.windows_compared:,} live totals and {verdict.rollup_compared:,} rollup groups compared",
    )
    if verdict.voided:
        out.print(f"voided {verdict.voided:,} (distinct = ledger + voided)")
    if verdict.corrected.rows:
        found = verdict.corrected
        out.print(
            f"corrected {found.rows:,} rows: {found.voided:,} voided, {found.moved:,} now in another organisation",
        )
    if verdict.deep:
        out.print("read again: " + ", ".join(f"{name} {count:,}" for name, count in verdict.deep.items()))
    if verdict.gaps:
        print_table("Declared gaps of usage.priced", verdict.gaps)
    if verdict.several_times:
        print_table("Ids with several times", verdict.several_times[:SHOWN])
    if verdict.differences:
        rows = [asdict(difference) for difference in verdict.differences[:SHOWN]]
        print_table("Differences", rows, ("name", "where", "amount", "detail"))
    else:
        out.print("no differences")
