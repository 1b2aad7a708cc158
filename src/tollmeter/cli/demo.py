"""`tollmeter demo`: from nothing to an exact ledger and its pages, on a stack of its own."""

import click

from tollmeter.cli.output import json_option
from tollmeter.settings import Settings


@click.command()
@click.option("--events", type=click.IntRange(1_000), default=100_000, show_default=True, help="How many to generate.")
@click.option("--trace", type=click.Path(exists=True, dir_okay=False), help="Import this file, moved to now, instead.")
@click.option("--keep", is_flag=True, help="Leave it running, with its data.")
@json_option
@click.pass_obj
def demo(settings: Settings, /, events: int, trace: str | None, keep: bool, as_json: bool) -> int:
    """Show everything once, on a stack of its own that is gone unless kept.

    A company calls models for half an hour (sent at once) and then for some seconds live; two keys without and two
    with a past begin to leak, and a user exceeds a budget.
    """
    from tollmeter.cli.demo_run import play  # the whole line: nothing that asks for help waits for it

    return play(settings, events, trace, keep=keep, as_json=as_json)
