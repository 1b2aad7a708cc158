"""Calls of one organisation whose cost is worked out by hand: what reports are compared with.

Prices are the providers' public ones in USD per million tokens (openai.com/api/pricing and anthropic.com/pricing, as of
2025-11); sums are decimals. No other test makes a call that costs 0.9 USD or more, so these are the dearest.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from tests.acceptance.stack import Line

ORG = "world"
PRICES = {
    "gpt-4o": {"input": "2.50", "read": "1.25", "write": "0", "output": "10"},
    "gpt-4o-mini": {"input": "0.15", "read": "0.075", "write": "0", "output": "0.60"},
    "claude-sonnet-4-5": {"input": "3", "read": "0.30", "write": "3.75", "output": "15"},
}
UNKNOWN = "no-such-model-7"


def cost_nano(model: str, input_: int, output: int, read: int = 0, write: int = 0) -> int | None:
    """Return what a call costs in nano-USD, None for a model that has no price. Counters are inclusive."""
    if model not in PRICES:
        return None
    price = {name: Decimal(text) for name, text in PRICES[model].items()}
    parts = ((input_ - read - write, "input"), (read, "read"), (write, "write"), (output, "output"))
    micro = sum((Decimal(count) * price[name] for count, name in parts), Decimal(0))
    return int((micro * 1000).quantize(Decimal(1), ROUND_HALF_EVEN))


def usd(nano: int | None, digits: int = 4) -> float | None:
    """Return nano-USD as USD with so many decimals, half-even."""
    if nano is None:
        return None
    return float((Decimal(nano) / 10**9).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN))


def event(at: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """Return an event as any Kafka client may send it: JSON, time in microseconds."""
    made = {
        "event_id": str(uuid4()),
        "occurred_at": round((at or datetime.now(UTC)).timestamp() * 1_000_000),
        "service": "acceptance",
        "provider": "openai",
        "model_sent": "gpt-4o",
        "status": "OK",
        "usage_source": "PROVIDER",
    } | fields
    made.setdefault("model_used", made["model_sent"])
    return made


def wire(events: list[dict[str, Any]]) -> list[bytes]:
    """Return events as record values."""
    return [json.dumps(one).encode() for one in events]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the world and its cost."""

    at: datetime
    fields: dict[str, Any]
    nano: int | None

    def __getattr__(self, name: str) -> Any:
        return self.fields.get(name, "")


@dataclass
class World:
    """All calls, and when they were made relative to `now`."""

    now: datetime
    calls: list[Call] = field(default_factory=list)

    @classmethod
    def made(cls) -> "World":
        """Make the calls: 22 dear ones within a day, older ones, ties of rounding, cached input, an unknown model."""
        world = cls(datetime.now(UTC).replace(microsecond=123_456))
        for number in range(22):
            address = "" if number % 3 == 0 else f"203.0.113.{number}"
            world.add(
                30 + 62 * number,
                "gpt-4o",
                400_000 + 13_337 * number,
                20_000 + number,
                client_ip=address,
                api_key_id=f"world-k{number % 2}",
                request_id=f"world-r{number}",
                user_id=f"world-u{number % 3}",
                provider_request_id=f"chatcmpl-world-{number}",
                feature="summarise",
            )
        for number in range(6):
            world.add(
                60 * (30 + 3 * number), "gpt-4o", 300_000, 10_000 + number, api_key_id="world-k1", feature="search"
            )
        world.add(60 * 50, "gpt-4o", 2_000_000, 0, api_key_id="world-k1")  # beyond two days
        world.add(20, "gpt-4o", 100, 0, api_key_id="world-tie-even")  # 0.00025 USD
        world.add(21, "gpt-4o", 140, 0, api_key_id="world-tie-odd")  # 0.00035 USD
        world.add(
            22,
            "claude-sonnet-4-5",
            10_000,
            500,
            4_000,
            2_000,
            provider="anthropic",
            api_key_id="world-k2",
            feature="rewrite",
        )
        world.add(23, UNKNOWN, 1_000, 200, api_key_id="world-k2")
        return world

    def add(
        self, minutes: int, model: str, input_: int, output: int, read: int = 0, write: int = 0, **more: Any
    ) -> None:
        """Add a call that was made so many minutes ago."""
        at = self.now - timedelta(minutes=minutes)
        counts = {
            "input_tokens": input_,
            "output_tokens": output,
            "cache_read_tokens": read,
            "cache_write_tokens": write,
        }
        fields = event(at, org_id=ORG, model_sent=model, **counts, **more)
        self.calls.append(Call(at, fields, cost_nano(model, input_, output, read, write)))

    def within(self, hours: float) -> list[Call]:
        """Return the calls of the last hours."""
        return [call for call in self.calls if call.at >= self.now - timedelta(hours=hours)]

    def send(self, line: "Line") -> None:
        """Send the calls as JSON with a plain Kafka client and wait until they are in the ledger.

        Their provider gets a budget, so that there is something for the daily report.
        """
        line.ok("policy", "set", "--org", ORG, "--scope", "provider", "--name", "openai", "--monthly", "1000")
        line.produce("usage.events", wire([call.fields for call in self.calls]))
        line.landed(f"org_id = '{ORG}'", len(self.calls))
