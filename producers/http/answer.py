"""What tollmeter says about an answer, on the answer itself: who asked, what was used, what it cost, how sure it is."""

from dataclasses import dataclass
from typing import Any

from tollmeter.schemas.escapes import header_value
from tollmeter.schemas.event import UsageEvent

EXTENSION = "tollmeter"
"""Under this name the HTTP response's `extensions` carry the `Answer`."""
PREFIX = "x-tollmeter-"
REFUSED = PREFIX + "refused"
"""Header of a refusal that was made here: cost_cap, CostLimitExceeded, rate_limited, blocked ..."""
_HOPS = ("http_response", "response", "_response")


@dataclass(slots=True)
class Answer:
    """Known from the start: the two ids. The rest when `complete`, which for a stream is at its end.

    `cost_nano` is priced in this process from the guard's copy of the price book, the same way for stated and for
    estimated usage; None where the price is unknown or no guard is there. The ledger's figure is the one that counts.
    """

    request_id: str
    event_id: str
    complete: bool = False
    usage_source: str = "UNKNOWN"
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int | None = None
    price_status: str = ""
    model_asked: str = ""
    """Where a rule had another model called: the one that was asked for, and the one that was sent."""
    model_sent: str = ""

    def fill(self, event: UsageEvent, cost_nano: int | None, price_status: str) -> None:
        """Say what the call was in the end."""
        self.usage_source, self.input_tokens, self.output_tokens = (
            event.usage_source,
            event.input_tokens,
            event.output_tokens,
        )
        self.cost_nano, self.price_status, self.complete = cost_nano, price_status, True

    def refuse(self, event_id: str) -> None:
        """Say that the call was refused here, and by which event that is told, if it is told already."""
        self.event_id = event_id or self.event_id
        self.usage_source, self.cost_nano, self.price_status, self.complete = "NONE", 0, "FREE", True

    def headers(self) -> dict[str, str]:
        """Return the response headers that say the same; what is unknown is left out."""
        found: dict[str, Any] = {"request-id": self.request_id, "event-id": self.event_id}
        found |= {"model-asked": self.model_asked, "model-sent": self.model_sent}
        if self.complete:
            found |= {
                "usage-source": self.usage_source,
                "input-tokens": self.input_tokens,
                "output-tokens": self.output_tokens,
                "cost-nano": self.cost_nano,
                "price-status": self.price_status,
            }
        return {PREFIX + name: header_value(value) for name, value in found.items() if value not in (None, "")}


def answer_of(reply: object) -> Answer | None:
    """Return what tollmeter says about a reply; None when it did not pass a metered client.

    Takes the HTTP response itself or what holds one: the SDK's raw response (`with_raw_response`), its stream, or the
    error that it raised.
    """
    for _ in range(len(_HOPS)):
        extensions = getattr(reply, "extensions", None)
        if isinstance(extensions, dict):
            found = extensions.get(EXTENSION)
            return found if isinstance(found, Answer) else None
        reply = next((held for name in _HOPS if (held := getattr(reply, name, None)) is not None), None)
    return None
