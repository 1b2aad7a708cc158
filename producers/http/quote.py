"""What a finished call cost, as this process knows it: the guard's copy of the price book, by the event's counters.

Not the last word: PRICE has every tier, region and override, and the ledger keeps what PRICE said. So a tier or place
that the guard's copy leaves out makes the price PARTIAL here. Estimated usage is priced as stated usage is.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from tollmeter.producers.guard.prices import Quote
from tollmeter.schemas.event import UsageEvent
from tollmeter.streams.rules.pricing.model_names import at_most_pct, by_subscription, tiers
from tollmeter.streams.rules.pricing.price_one import exact
from tollmeter.streams.rules.pricing.rates import COUNTERS

PLACE_AT_MOST_PCT = 120
"""No provider's place costs more than that, in percent of its list price: GovCloud."""


class Quoting(Protocol):
    """What pricing needs of a `Guard`."""

    def quote(self, provider: str, model: str, **counts: int) -> Quote: ...


def price_of(event: UsageEvent, guard: Quoting | None, others: Sequence[UsageEvent] = ()) -> Quote:
    """Return the price of a call, with what other models did in it; without a guard nothing is known of prices."""
    quotes = [_price_of(one, guard) for one in (event, *others)]
    if len(quotes) == 1:
        return quotes[0]
    known = [quote.nano for quote in quotes if quote.nano is not None]
    if len(known) == len(quotes):
        partial = any(quote.status == "PARTIAL" for quote in quotes)
        risk = sum(quote.at_risk_nano or 0 for quote in quotes) or None
        return Quote(sum(known), "PARTIAL" if partial else quotes[0].status, risk, quotes[0].rule_id)
    worst = sum(quote.worst_nano or 0 for quote in quotes)
    return Quote(None, next(quote.status for quote in quotes if quote.nano is None), worst or None)


def _price_of(event: UsageEvent, guard: Quoting | None) -> Quote:
    if event.status == "BLOCKED":
        return Quote(0, "FREE")
    if by_subscription(event.service_tier):
        return Quote(0, "SUBSCRIPTION")
    if guard is None:
        return Quote(None, "")
    counts = counts_of(event)
    if not counts:
        return Quote(None, "NO_USAGE")
    names = [name for name in dict.fromkeys((event.model_used, event.model_sent)) if name]
    quote = Quote(None, "UNKNOWN_MODEL")
    for name in names:
        quote = guard.quote(event.provider, name, **counts)
        if quote.status != "UNKNOWN_MODEL":
            break
    apart, dearer = tiers(event.service_tier, event.processing), _surcharged_place(event)
    if quote.status not in ("PRICED", "OVERRIDE", "PARTIAL") or quote.nano is None or not (apart or dearer):
        return quote
    most = at_most_pct(apart, PLACE_AT_MOST_PCT if dearer else 100)
    risk = (quote.at_risk_nano or 0) - (-quote.nano * (most - 100) // 100)
    return quote._replace(status="PARTIAL", at_risk_nano=risk or None)


def _surcharged_place(event: UsageEvent) -> bool:
    """Say whether the place may change the price, which the guard's copy leaves out as it does tiers.

    Bedrock tells its regions apart by the model's name; only GovCloud is dearer as a whole.
    """
    return event.region.startswith("us-gov") if event.provider == "aws" else event.region not in ("", "global")


def counts_of(event: UsageEvent) -> dict[str, Any]:
    """Return what was used, by the price book's units, without zeros."""
    tokens = (
        event.input_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.cache_write_1h_tokens,
        event.output_tokens,
        event.reasoning_tokens,
    )
    counts: dict[str, Any] = {unit: count for unit, count in zip(COUNTERS, tokens, strict=True) if count}
    return counts | {unit: exact(count) for unit, count in event.extra_units.items() if count and unit not in COUNTERS}
