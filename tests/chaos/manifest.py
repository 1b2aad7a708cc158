"""What was acknowledged, kept beside the line: every event with its cost, every poisoned record with its place.

Prices are written down here in plain nano-USD per token, not read from the price book: the oracle shares no code with
what it judges.
"""

import random
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from tollmeter.schemas.policy import Policy, ScopeKind

NANO_PER_TOKEN = {
    ("openai", "gpt-4o"): (2_500, 10_000),
    ("openai", "gpt-4o-mini"): (150, 600),
    ("anthropic", "claude-haiku-4-5"): (1_000, 5_000),
}
MODELS = tuple(NANO_PER_TOKEN)
ORGS = tuple(f"org-{name}" for name in ("ash", "birch", "cedar", "dune", "elm", "fir", "gorse", "holly", "iris"))
CLIENT_ORG = ORGS[-1]
"""The organisation whose events come from the producer library, with its queue and its disk spool."""
PCTS = (5, 10, 20, 35, 50, 65, 80, 100, 125, 150, 200, 250, 300, 400, 500, 600, 800, 1000)
MINUTE_US = 60_000_000

SCHEMA: dict[str, Any] = {
    "event_id": pl.String,
    "at_us": pl.Int64,
    "org": pl.String,
    "group": pl.String,
    "user": pl.String,
    "api_key": pl.String,
    "client_ip": pl.String,
    "agent": pl.String,
    "model": pl.String,
    "provider": pl.String,
    "scope": pl.String,
    "input_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "cost_nano": pl.Int64,
}


class Call(NamedTuple):
    """One event as the manifest keeps it: the columns of SCHEMA."""

    event_id: str
    at_us: int
    org: str
    group: str
    user: str
    api_key: str
    client_ip: str
    agent: str
    model: str
    provider: str
    scope: str
    input_tokens: int
    output_tokens: int
    cost_nano: int


def draw(rng: random.Random, now_us: int, org: str) -> Call:
    """Draw a call: most of now, some minutes late, a few of hours that are sealed by now."""
    provider, model = rng.choice(MODELS)
    read, written = rng.randint(200, 2_000), rng.randint(1, 300)
    rate_in, rate_out = NANO_PER_TOKEN[provider, model]
    luck = rng.random()
    late_s = rng.uniform(4, 30) * 3_600 if luck < 0.01 else rng.uniform(1, 20) * 60 if luck < 0.06 else 0.0
    return Call(
        str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        now_us - int(late_s * 1e6),
        org,
        f"group-{rng.randint(1, 2)}",
        f"user-{rng.randint(1, 5)}",
        f"{rng.randint(1, 4):016x}",
        f"10.1.0.{rng.randint(1, 4)}",
        rng.choice(("", "coder", "writer")),
        model,
        provider,
        "USER" if rng.random() < 0.1 else "ORG",
        read,
        written,
        read * rate_in + written * rate_out,
    )


def wire(call: Call) -> dict[str, Any]:
    """Return the fields of the event as a producer gives them, without id and time."""
    return {
        "org_id": call.org,
        "group_id": call.group,
        "user_id": call.user,
        "api_key_id": call.api_key,
        "client_ip": call.client_ip,
        "agent": call.agent,
        "model_sent": call.model,
        "provider": call.provider,
        "billing_scope": call.scope,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "status": "OK",
        "usage_source": "PROVIDER",
        "service": "chaos",
    }


def policies(rng: random.Random, spend_nano_an_org: int) -> list[Policy]:
    """Return budgets whose thresholds lie all along the run: each organisation, some of its users and keys."""
    made = []
    for org in ORGS:
        kinds: tuple[tuple[ScopeKind, str, float], ...] = (
            ("org", "", 1.0),
            ("user", f"user-{rng.randint(1, 5)}", 0.2),
            ("api_key", f"{rng.randint(1, 4):016x}", 0.25),
        )
        for kind, name, share in kinds:
            day, month = (max(1, int(spend_nano_an_org * share * rng.uniform(0.1, 1.2) / 1_000)) for _ in range(2))
            made.append(
                Policy(
                    org_id=org,
                    scope=kind,
                    name=name,
                    daily_limit_micro=day,
                    monthly_limit_micro=month,
                    alert_pcts=PCTS,
                    warn_threshold_pct=80,
                )
            )
    return made


@dataclass
class Manifest:
    """Filled by the producers' thread, read by the oracle: every access holds the lock."""

    calls: list[Call] = field(default_factory=list)
    acknowledged_at: dict[str, float] = field(default_factory=dict)
    """Monotonic time of the acknowledgement, of events that the ledger has not been seen to hold."""
    poison: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """Place in usage.events -> bytes."""
    resends: int = 0
    policies: list[Policy] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _frames: list[pl.DataFrame] = field(default_factory=list)
    _framed: int = 0

    def add(self, call: Call, at: float) -> None:
        """Keep an acknowledged event."""
        with self.lock:
            self.calls.append(call)
            self.acknowledged_at[call.event_id] = at

    def frame(self) -> pl.DataFrame:
        """Return all events as columns."""
        with self.lock:
            new, self._framed = self.calls[self._framed :], len(self.calls)
        if new or not self._frames:
            self._frames = [pl.concat([*self._frames, pl.DataFrame(new, schema=SCHEMA, orient="row")])]
        return self._frames[0]

    def seen(self, event_ids: list[str]) -> None:
        """Forget the waiting time of events that the ledger holds."""
        with self.lock:
            for event_id in event_ids:
                self.acknowledged_at.pop(event_id, None)

    def oldest_waiting(self) -> float | None:
        """Return when the longest waiting event was acknowledged; None when none waits."""
        with self.lock:
            return next(iter(self.acknowledged_at.values()), None)
