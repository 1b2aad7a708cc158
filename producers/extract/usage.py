"""Counts and amounts out of somebody else's objects: what is no count or no amount is absent, never guessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.money import MAX_EVENT_NANO, NANO_PER_USD

XAI_TICKS_PER_NANO = 10


@dataclass(frozen=True, slots=True)
class Usage:
    """The counters of one call. `stated` is False when the provider said nothing about usage."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    extra_units: dict[str, float] = field(default_factory=dict)
    reported_cost_nano: int | None = None
    stated: bool = True
    operation: str = "chat"


def get(body: Any, *names: str) -> Any:
    """Return the first of these keys or attributes that is there and not None; a path is written "a.b"."""
    for name in names:
        found = body
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else getattr(found, part, None)
            if found is None:
                break
        if found is not None:
            return found
    return None


def items(body: Any, *names: str) -> Sequence[Any]:
    """Return the first of these fields as a list; nothing at all when it is none."""
    found = get(body, *names)
    return found if isinstance(found, list | tuple) else ()


def count(value: Any) -> int | None:
    """Return a token count, None for anything that cannot be one. JSON may spell it 12.0; true is not 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
        return None
    return value


def counted(body: Any, *names: str) -> int:
    """Return the first of these fields that is a count, 0 when none is."""
    for name in names:
        found = count(get(body, name))
        if found is not None:
            return found
    return 0


def reported_cost(body: Any) -> int | None:
    """Return the cost that the provider or gateway states, in nano-USD: exact decimals, half to even."""
    ticks = get(body, "usage.cost_in_usd_ticks")
    if isinstance(ticks, int) and not isinstance(ticks, bool):
        return _within(Decimal(ticks) / XAI_TICKS_PER_NANO)
    return usd_to_nano(get(body, "usage.cost", "_hidden_params.response_cost", "response_cost"))


def usd_to_nano(usd: Any) -> int | None:
    """Return an amount in USD (number or text) as nano-USD by its decimal digits, None when it is none."""
    if isinstance(usd, bool) or not isinstance(usd, int | float | str | Decimal):
        return None
    try:
        return _within(Decimal(str(usd)) * NANO_PER_USD)
    except InvalidOperation:
        return None


def _within(nano: Decimal) -> int | None:
    if not nano.is_finite() or not 0 <= nano <= MAX_EVENT_NANO:
        return None
    return int(nano.to_integral_value(ROUND_HALF_EVEN))
