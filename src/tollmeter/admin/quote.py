"""What PRICE would say of events that nobody has sent: cost, components, status and rule, without a stack."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tollmeter.producers.extract.extract import extract_all
from tollmeter.schemas.event import UsageEvent
from tollmeter.streams.price.book.book import PriceBook
from tollmeter.streams.price.book.event_frame import frame_of
from tollmeter.streams.rules.pricing.rates import COMPONENTS

SERVICE = "quote"


class Priced(NamedTuple):
    """An event and what PRICE would say of it; amounts in nano-USD, None where nobody knows them."""

    event: UsageEvent
    cost_nano: int | None
    price_status: str
    components_nano: dict[str, int | None]
    rule_id: str
    at_risk_nano: int | None

    def document(self) -> dict[str, Any]:
        """Return it as the JSON output has it."""
        return {
            "event": self.event.model_dump(mode="json"),
            "cost_nano": self.cost_nano,
            "price_status": self.price_status,
            "components_nano": self.components_nano,
            "rule_id": self.rule_id,
            "at_risk_nano": self.at_risk_nano,
        }


def price_events(book: PriceBook, events: Sequence[UsageEvent]) -> list[Priced]:
    """Return events with their prices."""
    if not events:
        return []
    rows = book.price(frame_of(events)).to_dicts()
    return [_priced(event, row) for event, row in zip(events, rows, strict=True)]


def price_answer(book: PriceBook, answer: object, keywords: dict[str, Any], at: datetime | None) -> list[Priced]:
    """Return the events of an answer with their prices; none for a call that bills nothing. Keywords: of `extract`."""
    started_at = at or datetime.now(UTC)
    return price_events(book, extract_all(answer, started_at=started_at, **{"service": SERVICE, **keywords}))


def _priced(event: UsageEvent, row: dict[str, Any]) -> Priced:
    parts = {name: row[f"cost_{name}_nano"] for name in COMPONENTS}
    return Priced(event, row["cost_nano"], row["price_status"], parts, row["rule_id"] or "", row["at_risk_nano"])
