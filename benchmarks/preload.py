"""Fills usage.events with traffic shaped like real traces, and says what it holds, counted at the source."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from tollmeter.producers.imports.publish import publish
from tollmeter.settings import Settings
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire

SEED = 7
ORGS = 8
QUIET_S = 240
"""The newest event is so old when loading begins: every minute can close as soon as its last row is folded."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was put into the topic. Resends repeat an event: they are records, but no further event."""

    records: int
    events: int
    input_tokens: int
    output_tokens: int
    seconds: float


def preload(settings: Settings, events: int, span_s: int, acknowledged: Callable[[int], None] | None = None) -> Loaded:
    """Send so many events whose times are spread over `span_s` seconds, up to four minutes ago."""
    end_us = (int(time.time()) - QUIET_S) * 1_000_000
    wire = Wire(company(SEED, ORGS), events, end_us - span_s * 1_000_000, span_s * 1_000_000)
    started = time.monotonic()
    sent = asyncio.run(publish(settings, (values for _at, values in wire.blocks()), acknowledged=acknowledged))
    seconds = time.monotonic() - started
    tokens_in = tokens_out = 0
    for calls in wire.traffic.blocks():  # drawn again from the seed, without the encoder
        tokens_in += int(calls.input.sum())
        tokens_out += int(calls.output.sum())
    return Loaded(sent, wire.sent_events, tokens_in, tokens_out, seconds)
