"""Alerts: the list in ClickHouse, with what notify made of each, and the topic as it grows.

Each is the CloudEvent that was sent; in the list with its `state` as one more attribute, once notify has taken it.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tollmeter.cli import alert_actions
from tollmeter.cli.groups import Group
from tollmeter.cli.ledger import ALL, reading
from tollmeter.cli.options import SPAN
from tollmeter.cli.output import UserError, err, json_option, out, print_json, print_table
from tollmeter.schemas import topics
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.queries import load, moment

EPOCH = datetime.fromtimestamp(0, tz=UTC)


@click.group(cls=Group)
def alerts() -> None:
    """Budget and anomaly alerts."""


alerts.add_command(alert_actions.ack)
alerts.add_command(alert_actions.mute)
alerts.add_command(alert_actions.test)


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
        print_table("alerts", [_listed(row) for row in rows])


@alerts.command()
@click.option("--from-start", is_flag=True, help="Begin with the oldest alert that the topic keeps.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many alerts.")
@json_option
@click.pass_obj
def follow(settings: Settings, from_start: bool, limit: int | None, as_json: bool) -> None:
    """Alerts as they are raised, straight from Kafka; with --json one document a line. Ctrl-C ends it."""
    try:
        asyncio.run(_follow(settings, from_start, limit, as_json))
    except KafkaError as error:
        raise UserError(
            f"Kafka at {settings.kafka} does not answer ({type(error).__name__}): start it with 'tollmeter up', "
            "or set TOLLMETER_KAFKA to a broker that runs"
        ) from None


async def _follow(settings: Settings, from_start: bool, limit: int | None, as_json: bool) -> None:
    shown = 0
    async with aclosing(_values(settings, from_start)) as values:
        async for value in values:
            try:
                event = json.loads(value)
            except ValueError:
                event = None
            if not isinstance(event, dict):
                err.print("skipped a record that is no CloudEvent")
                continue
            if as_json:
                click.echo(json.dumps(event, ensure_ascii=False))
            else:
                line = _readable(event)
                out.print(f"{line['time']} {line['severity']:8} {line['text']}")
            shown += 1
            if shown == limit:
                return


async def _values(settings: Settings, from_start: bool) -> AsyncGenerator[bytes, None]:
    """Yield the values of all partitions of the topic; no consumer group: nobody else notices."""
    topic = settings.topic(topics.ALERTS)
    start = "earliest" if from_start else "latest"
    consumer = AIOKafkaConsumer(auto_offset_reset=start, enable_auto_commit=False, **settings.kafka_options())
    try:
        await consumer.start()
        if topic not in await consumer.topics():
            raise UserError(f"topic {topic} does not exist on {settings.kafka}: run 'tollmeter setup'")
        consumer.subscribe([topic])
        async for record in consumer:
            yield record.value
    finally:
        await consumer.stop()


def _attributes(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in ("state", "held", "told") if row[name]}


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    event = json.loads(row["event"])
    told = {"state": row["state"] or "—", "told": row["held"] or row["told"] or "—"}
    return {"id": str(event.get("id", ""))[:12], **_readable(event, row["appended_at"]), **told}


def _readable(event: dict[str, Any], appended_at: datetime | None = None) -> dict[str, Any]:
    data = event.get("data", {})
    line = {"time": event.get("time", ""), "severity": data.get("severity", ""), "kind": data.get("kind", "")}
    if appended_at is not None:
        waited = appended_at - datetime.fromisoformat(event["time"])
        line["delay_s"] = round(waited.total_seconds(), 3)
    return line | {"period": data.get("period", ""), "text": data.get("text", "")}
