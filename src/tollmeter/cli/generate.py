"""`tollmeter generate`: seeded traffic of a made-up company, in bulk up to now or live at a rate."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tollmeter.cli.options import INSTANT, SPAN, Number
from tollmeter.cli.output import UserError, json_option, out, print_json, print_table
from tollmeter.cli.progress import Bar, bar
from tollmeter.producers.imports.publish import NotSentError, publish, publish_timed
from tollmeter.settings import Settings
from tollmeter.traffic.models import LEAK_CHOICES

if TYPE_CHECKING:
    from tollmeter.traffic.stream import Wire

STEP_S = 0.05
"""Live traffic goes out in steps of this length."""
SHARE = Number(0, 0.5)


@click.command()
@click.option("--events", type=click.IntRange(1), help="How many events; default 10000, or rate x duration when live.")
@click.option("--rate", type=Number(0, 1e6, min_open=True), help="Live: events per second, stamped now.")
@click.option("--for", "duration", type=SPAN, help="Live: for how long; default 60s.")
@click.option("--span", type=SPAN, default="30m", show_default=True, help="In bulk: spread over so much time.")
@click.option("--start", type=INSTANT, help="In bulk: first event time; default: the span ends now.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, start, span and count: same bytes.")
@click.option("--orgs", type=click.IntRange(1, 2_000), default=8, show_default=True, help="Organisations.")
@click.option(
    "--leak",
    type=click.Choice(LEAK_CHOICES),
    default="none",
    show_default=True,
    help="Leaks on keys without or with a past, and an over-budget user.",
)
@click.option("--duplicates", type=SHARE, default=0.005, show_default=True, help="Share of events sent twice.")
@click.option("--poison", type=SHARE, default=0.0, show_default=True, help="Bad records, as a share of events.")
@json_option
@click.pass_obj
def generate(settings: Settings, /, as_json: bool, **options: object) -> None:
    """Send made-up traffic that looks like real traffic.

    Token counts and arrivals follow public traces; organisations, users, keys and addresses are drawn from the seed.
    """
    live = options["rate"] is not None
    if options["duration"] is not None and not live:
        raise UserError("--for needs --rate: say how many events per second")
    if live and options["start"] is not None:
        raise UserError("--rate sends events of this moment: it goes without --start")
    wire = _wire(options, live)
    begun = time.monotonic()
    try:
        with bar("events acknowledged", wire.events * (1 + wire.duplicates + wire.poison_share)) as progress:
            records = asyncio.run(_send(settings, wire, live, progress))
    except NotSentError as problem:
        raise UserError(str(problem)) from None
    _summary(wire, records, time.monotonic() - begun, as_json)


def _wire(options: dict[str, Any], live: bool) -> "Wire":
    from tollmeter.traffic.company import company
    from tollmeter.traffic.stream import Wire

    now_us = time.time_ns() // 1_000
    events = options["events"]
    block: dict[str, int] = {}
    if live:
        rate = options["rate"]
        events = events or max(1, round(rate * (options["duration"] or 60.0)))
        span_us, start_us = round(events / rate * 1e6), now_us
        block = {"block": max(1, round(rate * STEP_S))}
    else:
        events = events or 10_000
        span_us = round(options["span"] * 1e6)
        start = options["start"]
        start_us = now_us - span_us if start is None else round(start.timestamp() * 1e6)
    return Wire(
        company(options["seed"], options["orgs"]),
        events,
        start_us,
        span_us,
        options["leak"],
        options["duplicates"],
        options["poison"],
        **block,
    )


async def _send(settings: Settings, wire: "Wire", live: bool, progress: Bar) -> int:
    if live:
        return await publish_timed(settings, paced(wire), acknowledged=progress.advance)
    return await publish(settings, (values for _, values in wire.blocks()), acknowledged=progress.advance)


async def paced(wire: "Wire") -> AsyncIterator[list[bytes]]:
    """Yield each block when the time of its last event has come."""
    for due_us, values in wire.blocks():
        await asyncio.sleep(max(0.0, due_us / 1e6 - time.time()))
        yield values


def leak_rows(wire: "Wire") -> list[dict[str, Any]]:
    """Say what was put into the traffic, where and when."""
    callers = wire.company.callers
    first = datetime.fromtimestamp((wire.start_us + wire.span_us * 2 / 3) / 1e6, UTC)
    last = datetime.fromtimestamp((wire.start_us + wire.span_us) / 1e6, UTC)
    return [
        {
            "kind": leak.kind,
            "key": "old" if leak.past else "new",
            "org_id": callers[leak.caller].org,
            "api_key_id": callers[leak.caller].key,
            "user_id": callers[leak.caller].user,
            "calls": wire.traffic.leak_calls,
            "from": first.isoformat("T", "seconds"),
            "to": last.isoformat("T", "seconds"),
        }
        for leak in wire.leaks
    ]


def _summary(wire: "Wire", records: int, seconds: float, as_json: bool) -> None:
    counts = {
        "records": records,
        "events": wire.sent_events,
        "resends": wire.sent_resends,
        "poison": wire.sent_poison,
        "orgs": len(wire.company.orgs),
        "seconds": round(seconds, 3),
        "per_second": round(records / seconds),
    }
    if as_json:
        print_json({**counts, "leaks": leak_rows(wire)})
        return
    out.print(
        f"{records:,} records acknowledged in {seconds:.1f} s: {wire.sent_events:,} events of {len(wire.company.orgs)} "
        f"organisations, {wire.sent_resends:,} resends, {wire.sent_poison:,} bad records"
    )
    if wire.leaks:
        rows = leak_rows(wire)
        columns = ("kind", "key", "org_id", "api_key_id", "user_id", "calls")
        print_table(f"Leaks in this traffic, from {rows[0]['from']}", rows, columns)
