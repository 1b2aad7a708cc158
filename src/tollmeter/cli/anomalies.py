"""`tollmeter anomalies`: incidents, what people say of them, what rules would have told of the past."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import click

from tollmeter.admin.reports.minutes import ALL
from tollmeter.cli.alert_actions import this_user
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import reading
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.schemas.money import nano_to_text
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.notify.commands import JournalError, Said, judge
from tollmeter.streams.notify.commands import feedback as what_was_said
from tollmeter.streams.notify.feedback import LONGEST_S, USUAL_S, Feedback, Verdict
from tollmeter.streams.notify.incident_list import KINDS, incidents


@click.group(cls=Group)
def anomalies() -> None:
    """Incidents: what is unlike a key or address itself, and what people say of it."""


@anomalies.command("incidents")
@click.option("--since", type=SPAN, default="24h", show_default=True, help="How far back: 30m, 48h, 7d.")
@json_option
@click.pass_obj
def list_incidents(settings: Settings, since: float, as_json: bool) -> None:
    """Anomalies by key or address, the open and dearest first: since when, how dear, and which rules agree."""
    now = datetime.now(UTC)
    asked: dict[str, object] = {"orgs": [], "user_id": "", "kinds": list(KINDS), "limit": ALL}
    asked |= {"since": moment(now - timedelta(seconds=since)), "until": moment(now + timedelta(days=1))}
    with reading(settings) as ledger:
        found = incidents(ledger.query(load("incident_alerts"), asked))
    if as_json:
        print_json(found)
        return
    shown = [
        {
            "id": one["id"][:12],
            "state": one["state"],
            "severity": one["severity"],
            "usd": nano_to_text(one["cost_nano"], 2),
            "since": one["since"],
            "last": one["last"],
            "rules": ", ".join(one["kinds"]),
            "text": one["text"],
        }
        for one in found
    ]
    print_table("incidents", shown, spare=("last", "rules", "id"))


@anomalies.command()
@click.argument("incident", metavar="[ID]", required=False)
@click.argument("verdict", type=click.Choice(get_args(Verdict)), required=False)
@click.option("--for", "span", type=SPAN, help="Expected: quiet for how long [default: 7d].")
@click.option("--reason", default="", help="Why, for whoever wonders.")
@click.option("--by", default=None, help="Who says it [default: the user of this machine].")
@json_option
@click.pass_obj
def feedback(
    settings: Settings,
    /,
    incident: str | None,
    verdict: Verdict | None,
    span: float | None,
    reason: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Say that an incident was expected, so that its like is quiet for a while, or real; without an ID: what was said.

    ID is the beginning of that of the incident, or of an alert of it. Of what is expected nobody is told while it is as
    it was: the same rules about the same scope, no graver, not twice as dear. What is real is kept to judge rules by.
    """
    try:
        if incident is None:
            _list(what_was_said(settings), as_json)
            return
        if verdict is None:
            raise UserError(f"say what incident {incident} was: expected or real")
        if verdict == "real" and span is not None:
            raise UserError("--for says how long the expected is quiet: it goes without 'real'")
        if span is not None and not 0 < span <= LONGEST_S:
            raise UserError("--for: at most 366 days, and more than nothing")
        now_s = time.time()
        until_s = now_s + (USUAL_S if span is None else span)
        made = judge(settings, incident, verdict, until_s, Said(by or this_user(), reason), now_s)
    except JournalError as error:
        raise UserError(str(error)) from None
    if as_json:
        print_json(_document(made))
    else:
        out.print(words(made))


@anomalies.command()
@click.option("--since", type=SPAN, default="14d", show_default=True, help="How far back: 30m, 48h, 14d.")
@click.option(
    "--rules",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Figures that differ from those that ship (docs/anomalies.md).",
)
@json_option
@click.pass_obj
def replay(settings: Settings, since: float, file: Path | None, as_json: bool) -> None:
    """Say what the rules would have told of your own history, and what was lost before the first alert.

    The calls of the ledger go through the same rules, in the order in which they were made, with the limits that are in
    force now; those of a week before are learned from. Beside it stands what people said of incidents.
    """
    from tollmeter.cli.anomaly_replay import run  # the fold's engines: nothing that asks for help waits for them

    run(settings, since, file, as_json=as_json)


def words(said: Feedback) -> str:
    """Say in one sentence what a word about an incident does."""
    what = f"incident {said.incident[:12]}, {', '.join(said.kinds)} of {said.scope} {said.name or said.org}"
    if said.verdict == "real":
        return f"{what}: real, kept to judge rules by"
    return f"{what}: expected, its like is quiet until {_utc(said.until_s)}"


def _list(said: list[Feedback], as_json: bool) -> None:
    if as_json:
        print_json([_document(one) for one in said])
        return
    rows = [
        {
            "at": _utc(one.at_s),
            "incident": one.incident[:12],
            "said": one.verdict,
            "until": _utc(one.until_s) if one.verdict == "expected" else None,
            "by": one.by,
            "why": one.reason,
            "org": one.org,
            "scope": one.scope,
            "name": one.name,
            "rules": ", ".join(one.kinds),
        }
        for one in said
    ]
    print_table("feedback", rows, spare=("rules", "at", "org"))


def _document(said: Feedback) -> dict[str, Any]:
    times = {name.removesuffix("_s"): _iso(getattr(said, name)) for name in ("since_s", "last_s", "at_s")}
    until = _iso(said.until_s) if said.verdict == "expected" else None
    kept = said.model_dump(exclude={"format", "since_s", "last_s", "at_s", "until_s"})
    return {**kept, "cost_nano": said.cost_nano or None, **times, "until": until}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
