"""`tollmeter send`: one event by hand, the way a service sends it, and then its row in the ledger, priced."""

import logging
import time
from typing import Any

import click

from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.settings import Settings

ACKNOWLEDGE_S = 10.0
LAND_S = 5.0
SHOWN = ("event_id", "model", "input_tokens", "output_tokens", "price_status", "cost_usd")
MAX_IMAGES = 1_000
_WHY = {
    "NO_USAGE": "nothing was counted, so there is nothing to price: give --in, --out or --images",
    "PARTIAL": "priced by the nearest known rate, or not in all its parts: 'tollmeter prices show' has the rule",
    "INVALID": "the counts contradict each other, so they are not priced",
}


@click.command()
@click.option("--model", required=True, help="Model that was called, for example gpt-4o.")
@click.option("--in", "input_tokens", type=click.IntRange(0, MAX_TOKENS), default=0, help="Input tokens.")
@click.option("--out", "output_tokens", type=click.IntRange(0, MAX_TOKENS), default=0, help="Output tokens.")
@click.option("--images", type=click.IntRange(1, MAX_IMAGES), help="Images that were made, for example by dall-e-3.")
@click.option(
    "--image-variant", default="", metavar="QUALITY_SIZE", help="For example hd_1024x1792, as prices name it."
)
@click.option("--provider", default="openai", show_default=True)
@click.option("--org", "org_id", default="demo", show_default=True, help="Paying organisation.")
@click.option("--user", "user_id", default="", help="End user.")
@click.option(
    "--key", "api_key_id", default="", help="Id of the provider key; a key itself is hashed before it is sent."
)
@click.option("--service", default="tollmeter-send", show_default=True)
@json_option
@click.pass_obj
def send(
    settings: Settings, /, model: str, images: int | None, image_variant: str, as_json: bool, **fields: Any
) -> None:
    """Send one usage event and see it land."""
    if image_variant and images is None:
        raise UserError("--image-variant says what --images are: give their number, too")
    if images is not None:
        fields |= {"operation": "image", "extra_units": image_units(images, image_variant)}
    event_id = _publish(settings, model_sent=model, **fields)
    row = _landed(settings, event_id)
    reason = {} if row is None else _reason(row, fields["provider"])
    if as_json:
        print_json({"event_id": event_id, "acknowledged": True, "row": row, **reason})
    elif row is not None:
        print_table("In the ledger", [row], SHOWN, spare=("event_id", "input_tokens", "output_tokens"))
        if reason:
            out.print(reason["why"])
        if reason.get("nearest"):
            out.print(
                f"nearest names: {', '.join(reason['nearest'])}; a rate of your own goes into TOLLMETER_PRICES_FILE"
            )
        out.print(f"Next: tollmeter report calls --top 5   or   tollmeter report spend --by {_most_telling(fields)}")
    else:
        out.print(f"{event_id} is in Kafka, acknowledged.")
        out.print("It is not in the ledger yet: see `tollmeter status` for the workers and ClickHouse.")


def _publish(settings: Settings, **fields: object) -> str:
    """Return the event id once the broker has acknowledged it; nothing is left behind on disk when it does not."""
    from tollmeter.producers.client.client import UsageProducer

    logging.getLogger("tollmeter.producer").setLevel(logging.CRITICAL)  # this command says it itself, in one line
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    producer = UsageProducer(settings=settings, spool_bytes=0)
    try:
        event_id = producer.record(status="OK", usage_source="PROVIDER", **fields)
        deadline = time.monotonic() + ACKNOWLEDGE_S
        while not producer.flush(0.1):
            problem = producer.problem
            if problem or time.monotonic() > deadline:
                raise UserError(
                    f"nothing was sent to Kafka at {settings.kafka} ({problem or 'no answer'}): "
                    "start a stack with `tollmeter up`, or set TOLLMETER_KAFKA"
                )
    finally:
        producer.close(0.0)
    if producer.counters.acknowledged != 1:
        raise UserError("the event was refused: check --model, --org and the other values (at most 256 characters)")
    return event_id


def _landed(settings: Settings, event_id: str) -> dict[str, Any] | None:
    """Return the event's ledger row as soon as it is there; None when it is not in time or ClickHouse is away."""
    try:
        from tollmeter.sinks.clickhouse.client import Rejected, Unavailable, connect_existing
    except ModuleNotFoundError:  # the base install: a service may send, the ledger is read elsewhere
        return None
    deadline = time.monotonic() + LAND_S
    try:
        ledger = connect_existing(settings.model_copy(update={"clickhouse_timeout_s": LAND_S}))
        try:
            while time.monotonic() < deadline:
                for row in ledger.query(_ROW, {"event_id": event_id}):
                    return _shown(row)
                time.sleep(0.1)
        finally:
            ledger.close()
    except (Unavailable, Rejected):
        return None
    return None


_ROW = """
SELECT event_id, toString(event_time) AS event_time, org_id, user_id, api_key_id, provider, model, model_sent,
       input_tokens, output_tokens, price_status, cost_nano, at_risk_nano, price_book, rule_id
FROM usage_events FINAL
WHERE event_id = {event_id:String} AND usage_events.event_time > now64(6, 'UTC') - INTERVAL 1 HOUR
LIMIT 1
"""


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    from tollmeter.schemas.money import nano_to_text

    cost = row["cost_nano"]
    return {**row, "cost_usd": None if cost is None else nano_to_text(cost, 6)}


def image_units(images: int, variant: str) -> dict[str, float]:
    """Return the units of images as events carry them: a variant has a rate of its own, beside the number."""
    return {"images": float(images)} | ({f"images_{variant}": float(images)} if variant else {})


def _reason(row: dict[str, Any], provider: str) -> dict[str, Any]:
    """Return why a price is missing or not exact, with the names most like an unknown model; {} when it is exact."""
    status = row["price_status"]
    if status != "UNKNOWN_MODEL":
        return {"why": _WHY[status]} if status in _WHY else {}
    from tollmeter.schemas.money import nano_to_text
    from tollmeter.streams.price.book.lookup import nearest

    risk = row["at_risk_nano"]
    counted = f"limits count {nano_to_text(risk, 6)} USD at risk" if risk else "limits count nothing for it"
    why = f"no price is known for {row['model_sent']} at {provider}, so its cost is unknown, not 0; {counted}"
    return {"why": why, "nearest": nearest(row["model_sent"])}


def _most_telling(fields: dict[str, Any]) -> str:
    return "key" if fields["api_key_id"] else "user" if fields["user_id"] else "model"
