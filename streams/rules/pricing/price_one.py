"""What one call costs: at the rates in force when it was made, exact, rounded once; unknown is None, never 0.

`price_one` is the definition; `price_columns.py` computes the same for whole columns and is held to it by tests.
Status, first that applies: a call refused by our own cap (BLOCKED) is FREE and costs 0; impossible counters are
INVALID; a call that a subscription pays is SUBSCRIPTION, costs 0 and keeps its list price as its value; a free rule is
FREE; no usage is NO_USAGE; no price for anything that was used is UNKNOWN_MODEL; more than `MAX_EVENT_NANO` is INVALID;
a part without a price of its own, a rate borrowed from a near relative, and one that no source states for that day or
that rests on one source alone, is PARTIAL; a rate of an override rule is OVERRIDE; the rest is PRICED.
What is not known of a call is at risk beside its cost, never in it: all where the cost is None, and where it is PARTIAL
the parts without a price, and what the dearest known tier, place or relative would charge above it.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from tollmeter.schemas.event import MAX_TOKENS, counter_problem
from tollmeter.schemas.money import MAX_EVENT_NANO, round_half_even
from tollmeter.streams.rules.pricing.rates import (
    AUDIO_SECONDS,
    CACHE_READ,
    CACHE_WRITE,
    CACHE_WRITE_1H,
    COMPONENTS,
    COUNTERS,
    DAY_SECONDS,
    FREE,
    IMAGES,
    INPUT,
    INPUT_AUDIO_SECONDS,
    OVERRIDE,
    REASONING,
    REQUESTS,
    Band,
)

DAY_US = DAY_SECONDS * 1_000_000

INFORMATIVE = frozenset(
    (
        REASONING,
        IMAGES,
        INPUT_AUDIO_SECONDS,
        "cache_write_5m_tokens",
        "input_text_tokens",
        "output_text_tokens",
        "output_text_reasoning_tokens",
        "cache_text_read_tokens",
        "cache_text_write_tokens",
        "cache_text_write_5m_tokens",
        "input_image_tokens",
        "cache_image_read_tokens",
        "input_video_tokens",
        "input_tool_tokens",
        "input_text_tool_tokens",
    )
)
"""Units that are billed as their whole unless listed apart, so lacking a price of their own makes nothing PARTIAL.
Audio is not among them: it is far dearer than text wherever it is priced."""

UNEXPLAINED = "unexplained_tokens"
"""Unit of tokens that only a total holds."""
IMAGES_UNSTATED = "images_unstated"
"""Unit of images whose quality and size nobody said."""

CACHED = frozenset((CACHE_READ, CACHE_WRITE, CACHE_WRITE_1H))
FAILED = frozenset(("ERROR", "CANCELLED"))
"""Calls that made no image unless they say so."""

Count = int | Fraction
"""Exact; a Fraction only for counts such as 2.5 seconds, because it is slow."""
Counts = dict[str, Count]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How calls of one combination of names are priced: among `bands` the last that fits wins."""

    bands: tuple[Band, ...] = ()
    dearest: tuple[Band, ...] = ()
    """The bands of the family that no other outprices: the dearest for these counts is the amount at risk."""
    partial: bool = False
    """The rate is a near relative's: date suffix stripped, or a tier that the book does not know for this model."""
    one_image: bool = False
    """An image call that states no number of images made one."""
    minimum_seconds: int = 0
    risk_rule: str = ""
    """The rule id of a call without a price whose amount at risk is a default of ours, not a relative's price."""
    lacking: Mapping[str, int] = field(default_factory=dict)
    """Pico-USD that one of a unit costs at most where the bands have no price for it, above what its whole costs."""


class Call(NamedTuple):
    """What pricing reads of one event, beside the names that led to its plan."""

    at_us: int
    status: str
    tokens: tuple[int, int, int, int, int, int]
    """The six token counters in the order of `COUNTERS`."""
    extra: Mapping[str, float] = {}
    subscribed: bool = False
    """A subscription pays it."""


class Amounts(NamedTuple):
    """The outcome. Amounts are None together, exactly for UNKNOWN_MODEL, NO_USAGE and INVALID.

    What is at risk comes on top of the cost, where that is None or PARTIAL.
    """

    price_status: str
    cost_nano: int | None = None
    components: tuple[int | None, int | None, int | None, int | None, int | None] = (None,) * 5
    at_risk_nano: int | None = None
    rule_id: str = ""
    value_nano: int | None = None
    """List price of a call that a subscription pays, None when nobody knows it."""


def price_one(plan: Plan, call: Call) -> Amounts:
    """Price one call."""
    amounts = _by_the_list(plan, call)
    if not call.subscribed or call.status == "BLOCKED" or amounts.price_status == "INVALID":
        return amounts
    rule_id = "" if amounts.cost_nano is None else amounts.rule_id
    return Amounts("SUBSCRIPTION", 0, (0,) * 5, rule_id=rule_id, value_nano=amounts.cost_nano)


def _by_the_list(plan: Plan, call: Call) -> Amounts:
    if call.status == "BLOCKED":
        return Amounts("FREE", 0, (0,) * 5)
    if min(call.tokens) < 0 or max(call.tokens) > MAX_TOKENS or counter_problem(*call.tokens):
        return Amounts("INVALID")
    band = band_at(plan.bands, call.at_us, call.tokens)
    if band is not None and band.layer == FREE:
        return Amounts("FREE", 0, (0,) * 5, rule_id=band.rule_id)
    counts = counts_of(plan, call, band)
    if not counts:
        return Amounts("NO_USAGE")
    if band is None or not (counts.keys() | {REQUESTS}) & band.prices.keys():
        return Amounts("UNKNOWN_MODEL", at_risk_nano=at_risk(plan.dearest, counts), rule_id=plan.risk_rule)
    pico = component_pico(band, counts)
    if pico is None:
        return Amounts("INVALID")
    total = to_nano(sum(pico))
    if total > MAX_EVENT_NANO:
        return Amounts("INVALID")
    day = call.at_us // DAY_US
    lacking = without_price(band.prices.keys(), counts)
    if not (plan.partial or band.partial or day < band.sure_day or lacking):
        return Amounts(
            "OVERRIDE" if band.layer == OVERRIDE else "PRICED", total, split_nano(pico, total), None, band.rule_id
        )
    early = plan.partial or day < band.sure_day
    missing = sum(counts[unit] * at_most_pico(unit, band.prices, plan.lacking) for unit in lacking)
    worst = at_risk(plan.dearest, counts) or 0 if early else 0
    risk = beyond(band, total, worst, missing)
    return Amounts("PARTIAL", total, split_nano(pico, total), risk or None, band.rule_id)


def without_price(priced: Set[str], counts: Iterable[str]) -> frozenset[str]:
    """Return the units that were used and have no price, nor are billed as their whole."""
    billed = set(counts) - INFORMATIVE
    if not priced & set(COUNTERS):  # priced per image, second or character: tokens are but informative
        billed -= set(COUNTERS)
    if IMAGES_UNSTATED in billed and not any(unit.startswith(f"{IMAGES}_") for unit in priced):
        billed -= {IMAGES_UNSTATED}  # one price for all
    return frozenset(billed - priced)


def beyond(band: Band, total: int, worst: int, missing: Count) -> int:
    """Return what a PARTIAL call may cost at most above its known cost, in nano-USD.

    `worst` is what its dearest relative charges where its rates are borrowed ones, `missing` the pico-USD of what has
    no price.
    """
    more = max(-(-total * (band.at_most_pct - 100) // 100), worst - total)
    return min(more + to_nano(missing), MAX_EVENT_NANO)


def at_most_pico(unit: str, prices: Mapping[str, int], lacking: Mapping[str, int]) -> int:
    """Tokens of which nobody knows the kind are the model's own, at most at its dearest rate; cached ones are billed as
    fresh input already, which nobody's price of them is more than twice.
    """
    if unit == UNEXPLAINED:
        return max((pico for key, pico in prices.items() if key.endswith("_tokens")), default=0)
    return prices.get(INPUT, 0) if unit in CACHED else lacking.get(unit, 0)


def band_at(bands: Iterable[Band], at_us: int, tokens: tuple[int, ...]) -> Band | None:
    """Return the band that holds at this instant and size; among several the last, None when none does."""
    day, rest = divmod(at_us, DAY_US)
    second, found = rest // 1_000_000, None
    weekday = 1 << (day + 3) % 7  # 1970-01-01 was a Thursday; Monday is bit 0
    for band in bands:
        first, last = band.days
        if (
            first <= day < last
            and band.from_second <= second < band.to_second
            and band.weekdays & weekday
            and tokens[0] > band.above_input
            and not (band.without_tokens and (tokens[0] or tokens[4]))
        ):
            found = band
    return found


def counts_of(plan: Plan, call: Call, band: Band | None) -> Counts:
    """Return what was used, by billing unit, without zeros."""
    counts: Counts = {unit: count for unit, count in zip(COUNTERS, call.tokens, strict=True) if count}
    counts |= {unit: exact(value) for unit, value in call.extra.items() if value and unit not in COUNTERS}
    seconds = counts.get(AUDIO_SECONDS) or counts.get(INPUT_AUDIO_SECONDS)
    if seconds and plan.minimum_seconds:  # Groq bills at least this much of every request
        counts[AUDIO_SECONDS] = counts[INPUT_AUDIO_SECONDS] = max(seconds, plan.minimum_seconds)
    elif seconds:
        counts[AUDIO_SECONDS] = seconds
    makes_image = plan.one_image and call.status not in FAILED and IMAGES not in counts
    if makes_image and ((band is not None and IMAGES in band.prices) or (band is None and not counts)):
        counts[IMAGES] = 1
    return counts


def exact(value: float) -> Count:
    """Return a count as the decimal number that it is written as: 0.1 means one tenth."""
    return int(value) if value == int(value) else Fraction(Decimal(repr(value)))


def component_pico(band: Band, counts: Counts) -> list[Count] | None:
    """Return the five exact components in pico-USD; None when a part exceeds its whole and would earn a credit."""
    pico: dict[str, Count] = dict.fromkeys(COMPONENTS, 0)
    for leaf in band.leaves:
        if leaf.unit == REQUESTS:
            count: Count = 1
        else:
            count = sum(sign * counts.get(key, 0) for key, sign in leaf.terms)
        if count < 0:
            return None
        pico[leaf.component] += count * band.prices[leaf.unit]
    return list(pico.values())


def to_nano(pico: Count) -> int:
    """Round to nano-USD, half to even."""
    return round_half_even(pico.numerator, pico.denominator * 1_000)


def split_nano(pico: list[Count], total: int) -> tuple[int, int, int, int, int]:
    """Round the components so that they add up to the total: the largest remainders get what is short."""
    nano = [int(part // 1_000) for part in pico]
    short = total - sum(nano)
    for index in sorted(range(len(pico)), key=lambda i: -(pico[i] % 1_000))[:short]:
        nano[index] += 1
    return nano[0], nano[1], nano[2], nano[3], nano[4]


def at_risk(dearest: Iterable[Band], counts: Counts) -> int | None:
    """Return what the dearest relative would charge, at most `MAX_EVENT_NANO`; None when no relative prices it."""
    amounts = [
        sum(pico)
        for band in dearest
        if counts.get(INPUT, 0) > band.above_input and (pico := component_pico(band, counts)) is not None
    ]
    worst = max(amounts, default=0)
    return min(to_nano(worst), MAX_EVENT_NANO) if worst else None
