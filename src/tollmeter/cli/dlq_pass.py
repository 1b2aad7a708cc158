"""`tollmeter dlq pass|passed`: a person decides that one record of an unknown format is passed over, and all see it."""

import asyncio
import getpass
import time

import click

from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.schemas import topics
from tollmeter.schemas.dead_letter import source_place
from tollmeter.settings import Settings


@click.command("pass")
@click.argument("place")
@click.option("--reason", required=True, help="Why; kept in the history.")
@click.option("--by", default=getpass.getuser, show_default="your user name", help="Who decides it.")
@json_option
@click.pass_obj
def pass_(settings: Settings, place: str, reason: str, by: str, as_json: bool) -> None:
    """Pass over one record of usage.priced whose format nobody knows. PLACE is PARTITION/OFFSET, as its alert says.

    A newer PRICE may have written it: then upgrade LEDGER and WATCH instead. Its bytes are kept as a dead letter;
    LEDGER and WATCH go on behind it within a minute.
    """
    from tollmeter.broker.layout import ProvisionError
    from tollmeter.broker.passed import PassError, pass_over

    if not reason.strip() or not by.strip():
        raise UserError("--reason and --by say why and who: they are kept in the history")
    partition, offset = _place(settings, place)
    try:
        done = asyncio.run(pass_over(settings, partition, offset, by[:256], reason[:1_000], round(time.time() * 1_000)))
    except (PassError, ProvisionError) as error:
        raise UserError(str(error)) from None
    if as_json:
        print_json(done.model_dump())
    else:
        out.print(f"{done.topic}/{done.partition}/{done.offset} is passed over ({done.what}); LEDGER and WATCH go on")


@click.command()
@json_option
@click.pass_obj
def passed(settings: Settings, as_json: bool) -> None:
    """Records that were passed over: which, when, by whom and why."""
    from tollmeter.broker.layout import ProvisionError
    from tollmeter.broker.passed import history

    try:
        found = asyncio.run(history(settings))
    except ProvisionError as error:
        raise UserError(str(error)) from None
    if as_json:
        print_json([one.model_dump() for one in found])
        return
    rows = [
        {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.at_ms / 1_000)),
            "record": f"{one.topic}/{one.partition}/{one.offset}",
            "by": one.by,
            "reason": one.reason,
            "what": one.what,
        }
        for one in found
    ]
    print_table("Passed over", rows)


def _place(settings: Settings, text: str) -> tuple[int, int]:
    name = settings.topic(topics.PRICED)
    full = text if text.count("/") > 1 else f"{name}/{text}"
    try:
        topic, partition, offset = source_place(full)
    except ValueError:
        raise UserError(f"{text!r} is no place: write PARTITION/OFFSET of a record of {name}") from None
    if topic not in (name, topics.PRICED) or partition < 0 or offset < 0:
        raise UserError(f"{text!r}: only records of {name} are passed over, others become dead letters by themselves")
    return partition, offset
