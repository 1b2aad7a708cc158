"""What a finding says: deterministic ids, plain words, and the append time of the very event that crossed."""

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from tollmeter.schemas.alert import Alert, Severity, alert_id
from tollmeter.schemas.event import EPOCH
from tollmeter.schemas.money import nano_to_text
from tollmeter.schemas.policy import SCOPE_KINDS
from tollmeter.streams.rules.budgets import Limit, severity, spent
from tollmeter.streams.rules.seen import Mask
from tollmeter.streams.rules.state import State
from tollmeter.streams.rules.totals import Matrix, Vector, bucket_of, key_cost, period_text

MINUTE_US = 60_000_000


@dataclass(slots=True)
class Passage:
    """The rows of one pass in log order, as arrays; `scopes` and `matrix` are filled for the rows that are folded."""

    sources: Vector
    offsets: Vector
    received_ms: Vector
    times_us: Vector
    charged_us: Vector
    """min(event_time, received_at): a producer whose clock runs ahead moves nothing."""
    orgs: pl.Series
    scopes: dict[str, Vector] = field(default_factory=dict)
    matrix: Matrix = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))

    def only(self, rows: Mask) -> "Passage":
        """Return the passage of the chosen rows, before its scopes are known."""
        chosen: dict[str, Any] = {
            part.name: getattr(self, part.name)[rows] for part in fields(self)[:5]
        }  # fmt: skip
        return Passage(**chosen, orgs=self.orgs)

    def crossing(self, state: State, limit: Limit, bucket: int, before: int, pct: int) -> tuple[int, int]:
        """Return received_at (ms) of the row that carried a limit's spend to `pct` percent, and that spend."""
        rows = self._rows_of(limit.scope, state.scopes.names[limit.scope][1], limit.level, bucket)
        totals = before + np.cumsum(spent(self.matrix[rows], limit.currency))
        first = np.flatnonzero(totals >= -(-pct * limit.limit_nano // 100))[0]
        return int(self.received_ms[rows[first]]), int(totals[first])

    def key_crossing(self, scope: int, level: str, bucket: int, before: int, limit: int) -> tuple[int, int]:
        """Return received_at (ms) of the row that carried a key's cost in a bucket beyond `limit`, and that cost."""
        rows = self._rows_of(scope, "api_key", level, bucket)
        totals = before + np.cumsum(key_cost(self.matrix[rows]))
        first = np.flatnonzero(totals > limit)[0]
        return int(self.received_ms[rows[first]]), int(totals[first])

    def _rows_of(self, scope: int, kind: str, level: str, bucket: int) -> Vector:
        assert kind in SCOPE_KINDS
        buckets = bucket_of(level, self.charged_us // MINUTE_US)
        return np.flatnonzero((self.scopes[kind] == scope) & (buckets == bucket))


def budget(state: State, limit: Limit, bucket: int, pct: int, spent_nano: int, received_ms: int) -> Alert:
    """A scope's spend reached a threshold of its daily or monthly limit."""
    period, (org, kind, name) = period_text(limit.level, bucket), state.scopes.names[limit.scope]
    whom = org if kind == "org" else f"{kind} {name} of {org}"
    return Alert(
        id=alert_id("budget", limit.policy_id, limit.level, str(limit.limit_nano), period, str(pct)),
        kind="budget", severity=severity(pct), org_id=org, scope=kind, name=name, period=period,
        received_at=instant(received_ms),
        text=f"{whom} reached {pct} % of the {'daily' if limit.level == 'day' else 'monthly'} budget of "
             f"{nano_to_text(limit.limit_nano, 2)} {limit.currency}",
        facts={"policy_id": limit.policy_id, "threshold_pct": pct, "limit_nano": limit.limit_nano,
               "spent_nano": spent_nano, "currency": limit.currency, "window": limit.level},
    )  # fmt: skip


def spike(
    state: State, level: str, bucket: int, scope: int, cost_nano: int, peak_nano: int, limit_nano: int, received_ms: int
) -> Alert:
    """A key's cost in the open minute or hour is a new extreme; one alert per key, kind of window and hour."""
    hour = period_text("hour", bucket if level == "hour" else bucket // 60)
    past = (
        f"its dearest {level} so far was {nano_to_text(peak_nano)} USD"
        if peak_nano
        else f"no {level} before it to compare"
    )
    return _key_alert(
        state, scope, "spend_spike", "critical" if not peak_nano else "warning", hour, received_ms,
        f"spent {nano_to_text(cost_nano)} USD within one {level}; {past}",
        {"window": level, "cost_nano": cost_nano, "past_peak_nano": peak_nano, "threshold_nano": limit_nano}, level,
    )  # fmt: skip


def ingest_loop(state: State, hour: int, scope: int, inputs: int, outputs: int, received_ms: int) -> Alert:
    """A key takes in more than a million tokens in an hour and gives hardly any out."""
    return _key_alert(
        state, scope, "ingest_loop", "warning", period_text("hour", hour), received_ms,
        f"took in {inputs:,} tokens within one hour and put out {outputs:,}: it looks like a loop",
        {"window": "hour", "input_tokens": inputs, "output_tokens": outputs},
    )  # fmt: skip


def unpriced(state: State, day: int, scope: int, calls: int, count: int, received_ms: int) -> Alert:
    """Too many of an organisation's calls use models without a known price."""
    org, kind, name = state.scopes.names[scope]
    period = period_text("day", day)
    return Alert(
        id=alert_id("unpriced", org, period), kind="unpriced", severity="warning", org_id=org, scope=kind, name=name,
        period=period, received_at=instant(received_ms),
        text=f"{count:,} of {calls:,} calls of {org} have no known price; see: tollmeter prices show MODEL",
        facts={"calls": calls, "unknown_model": count, "window": "day"},
    )  # fmt: skip


def _key_alert(
    state: State, scope: int, kind: str, level: Severity, hour: str, received_ms: int, text: str,
    facts: dict[str, Any], *parts: str,
) -> Alert:  # fmt: skip
    org, scope_kind, name = state.scopes.names[scope]
    return Alert(
        id=alert_id(kind, org, scope_kind, name, hour, *parts), kind=kind, severity=level, org_id=org,
        scope=scope_kind, name=name, period=hour, received_at=instant(received_ms),
        text=f"key {name} of {org} {text}", facts=facts,
    )  # fmt: skip


def instant(ms: int) -> datetime:
    """Return milliseconds since 1970 as an aware UTC datetime, exactly."""
    return (EPOCH + timedelta(milliseconds=ms)).astimezone(UTC)
