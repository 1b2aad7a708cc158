"""Prices as people keep them: a dict of integer rates by provider, model, tier and processing, by size of input."""

import json
from typing import Any

from tollmeter.schemas.money import pico_to_nano

Rates = dict[str, list[tuple[int, dict[str, int]]]]
"""Key of `rate_key` -> steps (above so many input tokens, pico-USD per unit), ascending."""

COUNTERS = (
    ("input_tokens", "input_tokens"),
    ("cache_read_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("cache_write_1h_tokens", "cache_write_1h_tokens"),
    ("output_tokens", "output_tokens"),
    ("reasoning_tokens", "output_reasoning_tokens"),
)
"""Counters of an event and the units that they are billed in."""


def rate_key(event: dict[str, Any]) -> str:
    return "|".join((event["provider"], event["model_used"], event["service_tier"], event["processing"]))


def cost_nano(rates: Rates, event: dict[str, Any]) -> int | None:
    """Price one event; None when it used nothing or the model is not known."""
    if event["status"] == "BLOCKED":
        return 0
    steps = rates.get(rate_key(event))
    if steps is None:
        return None
    for above, step in steps:
        if event["input_tokens"] > above:
            units = step
    if not units:
        return 0
    used = {unit: event[counter] for counter, unit in COUNTERS if event[counter]} | event["extra_units"]
    if not used:
        return None
    return pico_to_nano(sum(int(count) * units.get(unit, 0) for unit, count in used.items()))


def dumps(rates: Rates) -> str:
    return json.dumps(rates)


def loads(text: str) -> Rates:
    return {key: [(above, units) for above, units in steps] for key, steps in json.loads(text).items()}
