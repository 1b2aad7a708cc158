"""Counts and amounts out of somebody else's objects: what is no count is told, never guessed and never taken for 0."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache
from operator import index
from typing import Any

from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.money import MAX_EVENT_NANO, NANO_PER_USD

MAX_UNITS = 1e9
"""The most that an event takes of one billed unit beside tokens."""
OTHER_TOKENS = "other_model_tokens"
"""Unit of tokens whose price is not that of the event's model: nobody has a price for it, so the cost is PARTIAL."""
UNEXPLAINED_TOKENS = "unexplained_tokens"
"""Unit of tokens that only a total holds: nobody has a price for it either."""

_DIGITS = re.compile(r"[+]?[0-9]{1,15}(?:\.0*)?")
_DECIMAL = re.compile(r"[+]?[0-9]{1,12}(?:\.[0-9]{0,12})?")


@dataclass(frozen=True, slots=True)
class Usage:
    """The inclusive counters of one call. `stated` is False when the provider said nothing about usage.

    `problem` names what stood where a count belongs and was none: then no counter is to be trusted. `others` are the
    parts that another model did within the same call.
    """

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
    problem: str = ""
    others: tuple["Part", ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What another model did within a call; `model` "" where the answer does not name it."""

    model: str
    usage: Usage


class Counts:
    """Reads one block of usage and remembers whether it said anything, and what in it was no count."""

    def __init__(self, block: object) -> None:
        self.block = block
        self.found = False
        self.problem = ""

    def take(self, *places: str) -> int:
        """Return the count that these places state, 0 when none does; of several spellings of one count the largest."""
        best, wrong = -1, ""
        for place in places:
            value = get(self.block, place)
            if value is None:
                continue
            read = count(value)
            if read is None:
                wrong = wrong or f"{place}: {why_no_count(value)}"
            else:
                best, self.found = max(best, read), True
        if best < 0 and wrong:
            self.problem = self.problem or wrong
        return max(best, 0)

    def amount(self, *places: str) -> float:
        """Return the amount (seconds, pages ...) that these places state, 0 when none does."""
        for place in places:
            value = get(self.block, place)
            if value is None:
                continue
            read = amount(value)
            if read is not None:
                self.found = True
                return read
            self.problem = self.problem or f"{place}: {why_no_count(value)}"
        return 0.0

    def has(self, *places: str) -> bool:
        """Say whether any of these places says something."""
        return get(self.block, *places) is not None


def get(body: object, *names: str) -> Any:
    """Return the first of these keys or attributes that is there and not None; a path is written "a.b". Never raises.

    Methods count as absent: an SDK's object may have one of the same name.
    """
    plain = type(body) is dict
    for name in names:
        if plain and "." not in name:
            if (found := body.get(name)) is not None:  # type: ignore[attr-defined]
                return found
            continue
        found = body
        for part in _parts(name):
            found = found.get(part) if type(found) is dict else _member(found, part)
            if found is None:
                break
        if found is not None:
            return found
    return None


@lru_cache(maxsize=4_096)
def _parts(name: str) -> tuple[str, ...]:
    return tuple(name.split("."))


def _member(body: object, name: str) -> object:
    try:
        found = body.get(name) if isinstance(body, Mapping) else getattr(body, name, None)
    except Exception:  # a property may do anything
        return None
    return None if callable(found) else found


def items(body: object, *names: str) -> Sequence[Any]:
    """Return the first of these fields as a list; nothing at all when it is none."""
    found = get(body, *names)
    return found if isinstance(found, list | tuple) else ()


def text(value: object) -> str:
    """Return a text or an enum's value as text, at most 256 characters; "" for anything else."""
    if value is None or isinstance(value, str):
        return value[:256] if value else ""
    named = get(value, "value")
    return named[:256] if isinstance(named, str) else ""


def count(value: object) -> int | None:
    """Return a token count, None for anything that cannot be one. It may be spelt 12.0 or "12"; true is not 1."""
    number = _integer(value)
    return number if number is not None and 0 <= number <= MAX_TOKENS else None


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        return int(value.partition(".")[0]) if _DIGITS.fullmatch(value) else None
    try:
        if isinstance(value, float | Decimal):
            return int(value) if math.isfinite(value) and value == int(value) else None
        return index(value)
    except Exception:
        return None


def amount(value: object) -> float | None:
    """Return an amount of a billed unit, None for what is none: text that is no number, negative, infinite, absurd."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) and 0 <= number <= MAX_UNITS else None


def why_no_count(value: object) -> str:
    """Say in a few words why a value is no count; the value itself is never repeated."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float | Decimal) or (isinstance(value, str) and _DIGITS.fullmatch(value.strip())):
        number = float(value) if not isinstance(value, int) else value
        if isinstance(number, float) and not math.isfinite(number):
            return "no finite number"
        if number < 0:
            return "negative"
        return "too large" if number > MAX_TOKENS else "a fraction"
    return "text" if isinstance(value, str) else "no number"


def reported_cost(body: object) -> int | None:
    """Return the cost that the provider or gateway states, in nano-USD: exact decimals, half to even.

    OpenRouter states its fee as `cost` and, with a key of one's own, what the provider charges beside it.
    """
    # https://docs.x.ai/docs/api-reference (1e-10 USD, 2026-11-29)
    ticks = _integer(get(body, "usage.cost_in_usd_ticks"))
    if ticks is not None:
        return _within(Decimal(ticks) / XAI_TICKS_PER_NANO)
    cost = get(
        body,
        "usage.cost.total_cost",  # https://docs.perplexity.ai/api-reference (usage.cost, 2026-11-29)
        "usage.cost",  # https://openrouter.ai/docs/use-cases/usage-accounting (2026-11-29)
        "usage.estimated_cost",  # https://deepinfra.com/docs (2026-11-29)
        "_hidden_params.response_cost",  # https://docs.litellm.ai/docs/completion/token_usage (2026-11-29)
        "response_cost",
    )
    own = usd_to_nano(cost)
    upstream = usd_to_nano(get(body, "usage.cost_details.upstream_inference_cost"))
    byok = get(body, "usage.is_byok")
    if upstream is not None and (byok is True or (byok is None and upstream > (own or 0))):
        return _within(Decimal((own or 0) + upstream))
    return own


XAI_TICKS_PER_NANO = 10


def usd_to_nano(usd: object) -> int | None:
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
