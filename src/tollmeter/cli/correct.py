"""`tollmeter correct`: say what a call really was. The ledger, the live totals and the budgets follow."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tollmeter.cli.ledger import reading
from tollmeter.cli.options import INSTANT, SPAN
from tollmeter.cli.output import Finding, UserError, err, json_option, out, print_json, print_table
from tollmeter.settings import Settings

if TYPE_CHECKING:
    from tollmeter.admin.corrections import Outcome, Plan

SHOWN = 20
COLUMNS = ("event_id", "org_id", "before", "after", "cost_nano_before", "cost_nano_after", "difference_nano")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="EVENT_ID...")
@click.option("--org", "org_id", help="The organisation of the calls, where an id stands in several.")
@click.option("--time", "event_time", type=INSTANT, help="The time of the call, where an id stands at several.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="What it shall be, also tags.KEY=VALUE; may be given several times.",
)
@click.option("--void", is_flag=True, help="The call never was: it counts nowhere any more.")
@click.option("--reprice", is_flag=True, help="Change nothing but the price: the price book has learned something.")
@click.option("--reason", default="", help="Kept on the log.")
@click.option("--wait", type=SPAN, default="30s", show_default=True, help="How long to wait for the ledger.")
@click.option("--dry-run", is_flag=True, help="Show what would change; send nothing.")
@json_option
@click.pass_obj
def correct(
    settings: Settings,
    /,
    ids: Sequence[str],
    org_id: str | None,
    event_time: datetime | None,
    assignments: Sequence[str],
    void: bool,
    reprice: bool,
    reason: str,
    wait: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Correct calls in the ledger by their event ids; each is priced again with the present price book.

    An estimate becomes what the provider counted: --set input_tokens=812 --set output_tokens=97
    --set usage_source=PROVIDER. Time is never corrected. Exit code 1: another correction came first.
    """
    if bool(assignments) + void + reprice != 1:
        raise UserError("say what to correct: --set FIELD=VALUE, --void or --reprice, one of the three")
    wanted = _event_ids(ids)
    from tollmeter.admin.corrections import CorrectionError, Place, await_stored, is_known, plan, send, stored
    from tollmeter.cli.prices import open_book
    from tollmeter.streams.rules.windows.amend import AmendError, Amendment, parse

    book = open_book(settings)
    with reading(settings) as client:
        try:
            amendment = Amendment(void=True) if void else parse(assignments)
            found = plan(stored(client, wanted), wanted, Place(org_id, event_time), amendment, book.price)
            if not found.was:
                _tell_nothing(found.unchanged, reason, dry_run=dry_run, as_json=as_json)
                return
            if not is_known(client, book.id):
                err.print(f"note: no PRICE worker has used the price book {book.id}: is its file the same as theirs?")
            outcome = None
            if not dry_run:
                send(settings, found.parts, reason)
                outcome = await_stored(client, found, wait)
        except (AmendError, CorrectionError) as problem:
            raise UserError(str(problem)) from None
    _tell(found, outcome, reason, as_json=as_json)
    if outcome is not None and outcome.conflicts:
        for text in outcome.conflicts:
            err.print(text)
        raise Finding(f"{len(outcome.conflicts)} calls were corrected otherwise first")


def _event_ids(ids: Sequence[str]) -> list[str]:
    wanted = list(dict.fromkeys(event_id.lower() for event_id in ids))
    for event_id in wanted:
        if not _UUID.fullmatch(event_id):
            raise UserError(f"{event_id!r} is no event id: 'tollmeter report find ID' shows it")
    return wanted


def _tell(found: "Plan", outcome: "Outcome | None", reason: str, *, as_json: bool) -> None:
    rows = [_line(*row) for row in zip(found.was, found.now, found.fields, strict=True)]
    before, after = (sum(row["cost_nano"] or 0 for row in side) for side in (found.was, found.now))
    total = {
        "calls": len(rows),
        "unchanged": found.unchanged,
        "difference_nano": after - before,
        "unpriced": sum(row["cost_nano"] is None for row in found.now),
        "dry_run": outcome is None,
        "stored": outcome is not None and outcome.stored,
        "conflicts": outcome.conflicts if outcome else (),
        "reason": reason,
    }
    if as_json:
        print_json({**total, "rows": rows})
        return
    shown = [{**row, "before": _said(row["before"]), "after": _said(row["after"])} for row in rows[:SHOWN]]
    print_table("Would become" if outcome is None else "Corrected", shown, COLUMNS)
    more = f"; {found.unchanged} are as they shall be" if found.unchanged else ""
    out.print(f"{len(rows)} calls, cost {after - before:+,} nano-USD{more}")
    if outcome is not None and not outcome.stored:
        out.print("sent, and not in the ledger yet: is the ledger worker running?")


def _tell_nothing(unchanged: int, reason: str, *, dry_run: bool, as_json: bool) -> None:
    """Say that all is as it shall be: repeated, a correction is done."""
    if not as_json:
        out.print(f"nothing to change: {unchanged} calls are as they shall be")
        return
    print_json(
        {
            "calls": 0,
            "unchanged": unchanged,
            "difference_nano": 0,
            "unpriced": 0,
            "dry_run": dry_run,
            "stored": True,
            "conflicts": (),
            "reason": reason,
            "rows": [],
        }
    )


def _line(was: Any, now: Any, names: Sequence[str]) -> dict[str, Any]:
    known = was["cost_nano"] is not None and now["cost_nano"] is not None
    return {
        "event_id": now["event_id"],
        "org_id": now["org_id"],
        "revision": now["revision"],
        "before": {name: was[name] for name in names},
        "after": {name: now[name] for name in names},
        "cost_nano_before": was["cost_nano"],
        "cost_nano_after": now["cost_nano"],
        "difference_nano": now["cost_nano"] - was["cost_nano"] if known else None,
        "price_status": now["price_status"],
    }


def _said(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{pair['key']}={pair['value']}" for pair in value)
    return "—" if value is None else str(value)
