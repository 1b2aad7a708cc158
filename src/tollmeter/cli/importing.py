"""`tollmeter import`: usage recorded elsewhere (traces, log lines, log exports) becomes events, each stored once."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from tollmeter.admin import registry
from tollmeter.cli.output import UserError, err, json_option, out, print_json
from tollmeter.cli.progress import bar
from tollmeter.cli.registry_options import doing
from tollmeter.producers.imports.imports import FORMATS, Import, Report, import_events
from tollmeter.producers.imports.publish import NotSentError
from tollmeter.producers.imports.readers import Bad, UnreadableError
from tollmeter.schemas.registry import TrackingToken
from tollmeter.settings import Settings

EXPECTED = (
    'openai_usage log lines ("t": "openai_usage", or "usage" and "model_used"), bare or in a Cloud Logging export '
    "(JSON array, JSON lines or CSV), rows of usage_log, token_usage or llm_operations, or the merged traces"
)


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--format", "kind", type=click.Choice(FORMATS), default="auto", show_default=True, help="What FILE is.")
@click.option("--shift-to-now", is_flag=True, help="Move times so that the last event (of each trace) is now.")
@click.option("--org", default="", help="Give every event this organisation.")
@click.option("--seed", type=int, default=1, show_default=True, help="Draws what a trace lacks: keys, models ...")
@json_option
@click.pass_obj
def import_file(
    settings: Settings, /, file: str, kind: str, shift_to_now: bool, org: str, seed: int, as_json: bool
) -> int:
    """Import usage from FILE ("-" = standard input).

    FILE holds openai_usage log lines, a Cloud Logging export (JSON array, JSON lines or CSV), the merged public
    traces (CSV), or what an older meter kept: an SQLite database, or rows as JSON or CSV, of usage_log, ingest_tokens,
    token_usage or llm_operations. All but databases may be gzipped. Importing a file twice adds nothing; moved to now,
    it is new traffic.
    Exit code 1: an entry or its cost could not be read, or nothing was recognised.
    """
    from tollmeter.traffic import sample

    now = datetime.now(UTC)
    job = Import(file, kind, seed, org, settings.org, shift_to=now if shift_to_now else None, traces=sample)
    try:
        with bar("bytes read", _size(file)) as progress:
            report = asyncio.run(import_events(settings, job, now, progress.reach))
            progress.finish()
    except (UnreadableError, NotSentError) as problem:
        raise UserError(str(problem)) from None
    kept = _keep_tokens(settings, report, org)
    if as_json:
        print_json(document(report) | {"new_tokens": kept})
    else:
        _tell(settings, report, seed)
        if report.tokens:
            out.print(f"{kept:,} of {len(report.tokens):,} tracking tokens are new")
    return 1 if report.bad or report.cost_unread or not report.events else 0


def _keep_tokens(settings: Settings, report: Report, org: str) -> int:
    """Put the tracking tokens of an older meter into the registry, and return how many are new."""
    tokens = []
    for old in report.tokens:
        fields = {"id": registry.token_id(old.value), "org_id": org or settings.org, "name": old.name[:128]}
        try:
            made = TrackingToken(**fields, value=old.value, active=old.active, created_at=old.created_at)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]
            report.refuse(Bad(f"tracking token {old.name!r}", f"{problem['loc'][0]}: {problem['msg']}"))
        else:
            tokens.append(made)
    with doing():
        return registry.put_tokens(settings, tokens) if tokens else 0


def _size(file: str) -> int | None:
    return None if file == "-" else Path(file).stat().st_size


def document(report: Report) -> dict[str, Any]:
    return {
        "read": report.read,
        "events": report.events,
        "acknowledged": report.sent,
        "skipped": report.skipped,
        "bad": report.bad,
        "tokens": len(report.tokens),
        "beyond_retention": report.expired,
        "assigned_from_seed": report.assigned,
        "shift_seconds": {trace: shift.total_seconds() for trace, shift in report.shifts.items()},
        "cost_unread": report.cost_unread,
        "first_bad": [{"place": bad.place, "reason": bad.reason} for bad in report.first_bad],
        "first_cost_unread": [{"place": bad.place, "reason": bad.reason} for bad in report.first_unread],
    }


def _tell(settings: Settings, report: Report, seed: int) -> None:
    out.print(f"{report.sent:,} events of {report.read:,} entries sent and acknowledged")
    if not report.events:
        found = f"none of {report.read:,} entries is a usage record" if report.read else "the input is empty"
        err.print(f"nothing to import: {found}; expected is {EXPECTED}")
    if report.assigned:
        out.print(
            f"The trace has no organisation, key, user, address or model: drawn from seed {seed}, not real",
        )
    for trace, shift in report.shifts.items():
        out.print(f"{trace or 'times'} moved by {shift}")
    if report.skipped:
        out.print(f"{report.skipped:,} entries are no usage records and were skipped")
    if report.expired:
        days = settings.retention_events_days
        out.print(
            f"{report.expired:,} events are older than the retention of {days} days: the ledger keeps them {days} days "
            "from today, live windows and alerts leave them out (--shift-to-now moves them)",
        )
    for unread in report.first_unread:
        err.print(f"{unread.place}: {unread.reason}")
    if report.cost_unread:
        err.print(f"{report.cost_unread:,} events are in without the cost that their entry states")
    for bad in report.first_bad:
        err.print(f"{bad.place}: {bad.reason}")
    if report.bad:
        err.print(f"{report.bad:,} bad entries were left out; the rest is in")
