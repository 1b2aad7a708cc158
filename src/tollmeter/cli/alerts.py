"""Alerts: the list in ClickHouse, with what notify made of each, and the topic as it grows.

Each is the CloudEvent that was sent; in the list with its `state` as one more attribute, once notify has taken it.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from tollmeter.admin.reports.minutes import ALL
from tollmeter.cli import alert_actions
from tollmeter.cli.anomalies import list_incidents
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import reading
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import UserError, err, json_option, out, print_json, print_table
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load, moment

LAST = 5
EPOCH = datetime.fromtimestamp(0, tz=UTC)


@click.group(cls=Group)
def alerts() -> None:
    """Budget and anomaly alerts."""


alerts.add_command(alert_actions.ack)
alerts.add_command(alert_actions.mute)
alerts.add_command(alert_actions.test)
alerts.add_command(list_incidents)


@alerts.command("list")
@click.option("--since", type=SPAN, help="How far back: 30m, 48h, 7d [default: all].")
@json_option
@click.pass_obj
def list_alerts(settings: Settings, since: float | None, as_json: bool) -> None:
    """Alerts in ClickHouse, oldest first, and their states: open, acknowledged, resolved."""
    start = EPOCH if since is None else datetime.now(UTC) - timedelta(seconds=since)
    with reading(settings) as ledger:
        rows = ledger.query(load("alerts"), {"since": moment(start), "limit": ALL})
    if as_json:
        print_json([json.loads(row["event"]) | _attributes(row) for row in rows])
    else:
        print_table("alerts", [_listed(row) for row in rows], spare=("told", "kind", "id", "delay_s", "period"))


@alerts.command()
@click.option("--from-start", is_flag=True, help="Begin with the oldest alert that the topic keeps.")
@click.option("--last", type=click.IntRange(0), help=f"Show so many of before first [default: {LAST}; 0 with --json].")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many alerts; those of --last are not counted.")
@json_option
@click.pass_obj
def follow(settings: Settings, from_start: bool, last: int | None, limit: int | None, as_json: bool) -> None:
    """The last alerts, then those that are raised, straight from Kafka; --json: one document a line. Ctrl-C ends it."""
    from aiokafka.errors import KafkaError

    if from_start and last:
        raise UserError("--from-start shows all of before: it goes without --last")
    shown = LAST if last is None and not as_json else last or 0
    try:
        asyncio.run(_follow(settings, None if from_start else shown, limit, as_json))
    except KafkaError as error:
        raise UserError(
            f"Kafka at {settings.kafka} does not answer ({type(error).__name__}): start it with 'tollmeter up', "
            "or set TOLLMETER_KAFKA to a broker that runs"
        ) from None


async def _follow(settings: Settings, last: int | None, limit: int | None, as_json: bool) -> None:
    """Show alerts until `limit` are shown; `last` of those before do not count, None = begin with the oldest."""
    from tollmeter.cli.alert_topic import alert_topic

    async with alert_topic(settings) as topic:
        if last is None:
            await topic.rewind()
        else:
            before = await topic.last(last)
            for event in before:
                _show(event, as_json)
            err.print(f"{_so_far(before, last)}waiting for alerts from {settings.kafka}; Ctrl-C ends it")
        shown = 0
        async with aclosing(topic.events()) as events:
            async for event in events:
                _show(event, as_json)
                shown += 1
                if shown == limit:
                    return


def _so_far(before: Sequence[dict[str, Any]], asked: int) -> str:
    if not asked:
        return ""
    return f"{len(before)} of before; " if before else "no alert yet; "


def _show(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(event)
    else:
        line = _readable(event)
        out.print(f"{line['time']} {line['severity']!s:8} {line['text']}")


def _attributes(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in ("state", "held", "told") if row[name]}


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    event = json.loads(row["event"])
    told = {"state": row["state"] or "—", "told": row["held"] or row["told"] or "—"}
    return {"id": str(event.get("id", ""))[:12], **_readable(event, row["appended_at"]), **told}


def _readable(event: dict[str, Any], appended_at: datetime | None = None) -> dict[str, Any]:
    data = event.get("data")
    said = data if isinstance(data, dict) else {}
    line = {"time": event.get("time", ""), "severity": said.get("severity", ""), "kind": said.get("kind", "")}
    if appended_at is not None:
        line["delay_s"] = _delay_s(line["time"], appended_at)
    return line | {"period": said.get("period", ""), "text": said.get("text", "")}


def _delay_s(time: object, appended_at: datetime) -> float | None:
    try:
        return round((appended_at - datetime.fromisoformat(str(time))).total_seconds(), 3)
    except (TypeError, ValueError):  # not an alert of WATCH
        return None
