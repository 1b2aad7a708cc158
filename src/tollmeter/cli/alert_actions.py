"""`tollmeter alerts ack`, `mute` and `test`: what people do about alerts."""

import getpass
import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click

from tollmeter.cli.notify import read_routes, routes_option
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.schemas.alert import Alert, Severity
from tollmeter.schemas.policy import SCOPE_KINDS
from tollmeter.settings import Settings
from tollmeter.sinks.channels.message import Away, Channel, Refused
from tollmeter.streams.notify import texts
from tollmeter.streams.notify.commands import JournalError, acknowledge
from tollmeter.streams.notify.commands import mute as say_mute
from tollmeter.streams.notify.notice import Delivery, Mute, Notice
from tollmeter.streams.notify.texts import message

TEST_SOURCE = "tollmeter/test"


@click.command()
@click.argument("alert_id", metavar="ID")
@click.option("--by", default=None, help="Who takes care [default: the user of this machine].")
@click.pass_obj
def ack(settings: Settings, alert_id: str, by: str | None) -> None:
    """Say that somebody takes care of an alert: it is not told again until it is over. ID may be its beginning."""
    try:
        notice = acknowledge(settings, alert_id, by or this_user(), time.time())
    except JournalError as error:
        raise UserError(str(error)) from None
    out.print(f"acknowledged {notice.id}: {notice.facts.get('text', notice.kind)}")


@click.command()
@click.option("--kind", default="", help="Only alerts of this kind: budget, spend_spike ...")
@click.option("--org", default="", help="Only of this organisation.")
@click.option("--scope", type=click.Choice(["", *SCOPE_KINDS]), default="", help="Only about this kind of scope.")
@click.option("--name", default="", help="Only about this user, key ...")
@click.option("--for", "span", type=SPAN, help="For how long: 30m, 2h, 7d.")
@click.option("--reason", default="", help="Why, for whoever wonders.")
@click.option("--off", is_flag=True, help="End the mute with these same options.")
@click.pass_obj
def mute(
    settings: Settings, /, kind: str, org: str, scope: str, name: str, span: float | None, reason: str, off: bool
) -> None:
    """Tell nobody of alerts that match, for a while; they are still listed."""
    if off == (span is not None):
        raise UserError("say for how long (--for 2h), or --off to end a mute")
    if not (kind or org or scope or name):
        raise UserError("say what to mute: --kind, --org, --scope or --name")
    until = time.time() + (span or 0)
    wanted = Mute(kind=kind, org=org, scope=scope, name=name, until_s=until, by=this_user(), reason=reason[:512])
    try:
        say_mute(settings, wanted, off=off)
    except JournalError as error:
        raise UserError(str(error)) from None
    what = " ".join(part for part in (kind, "alerts", org and f"of {org}", scope, name) if part)
    end = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M:%S")
    out.print(f"{what}: {'no longer muted' if off else f'muted until {end} UTC'}")


@click.command()
@routes_option
@click.option("--kind", help="Send it where an alert of this kind goes [default: to every consumer].")
@click.option("--severity", type=click.Choice(get_args(Severity)), default="warning", show_default=True)
@json_option
@click.pass_obj
def test(settings: Settings, file: Path | None, kind: str | None, severity: Severity, as_json: bool) -> int:
    """Send a test alert through the routes now and say what became of it; exit code 1 when one did not take it."""
    routes, consumers = read_routes(settings, file, aside=True)
    names = tuple(consumers) if kind is None else routes.consumers_for(kind, severity, "", "org", "")
    if not names:
        raise UserError(f"no route takes {severity} alerts of kind {kind}")
    notice = _test_notice(kind or "test", severity)
    results = {name: _deliver(consumers[name], notice) for name in names}
    if as_json:
        print_json([{"consumer": name, "sent": not error, "error": error} for name, error in results.items()])
    else:
        print_table("test alert", [{"consumer": name, "result": error or "sent"} for name, error in results.items()])
    return 1 if any(results.values()) else 0


def _test_notice(kind: str, severity: Severity) -> Notice:
    alert = Alert(
        id=uuid.uuid4().hex,
        kind=kind,
        severity=severity,
        org_id="",
        scope="org",
        name="",
        period=datetime.now(UTC).strftime("%Y-%m-%d"),
        received_at=datetime.now(UTC),
        source=TEST_SOURCE,
        text=f"this is a test alert from tollmeter, sent by {this_user()}: nothing happened",
    )
    now = time.time()
    notice = Notice(
        id=alert.id, event=alert.cloudevent(), opened_s=now, deliveries=(Delivery(consumer="", since_s=now),)
    )
    return notice.model_copy(update={"title": texts.title(notice, alert.text), "body": alert.text})


def _deliver(consumer: Channel, notice: Notice) -> str:
    try:
        consumer.deliver(message(notice, "opened"))
    except (Away, Refused) as error:
        return str(error)
    return ""


def this_user() -> str:
    """Return who runs this command."""
    try:
        return getpass.getuser()[:200]
    except (KeyError, OSError):  # a container without a name for its user
        return f"uid {os.getuid()}"
