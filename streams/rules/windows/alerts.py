"""What a finding says: deterministic ids, plain words, and the append time of the very event that crossed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tollmeter.schemas.alert import Alert, Severity, alert_id, whom
from tollmeter.schemas.event import EPOCH
from tollmeter.schemas.money import NANO_PER_MICRO, limit_text, nano_to_text, used_text
from tollmeter.streams.rules.limits.budgets import Edge, level_of, period_level_of, severity, used
from tollmeter.streams.rules.limits.policies import Budget
from tollmeter.streams.rules.windows.dedupe import Mask
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.rules.windows.totals import (
    AT_RISK,
    Matrix,
    Vector,
    bucket_end_s,
    bucket_of,
    key_cost,
    period_text,
)

MINUTE_US = 60_000_000
UNTOLD_S = 1 << 40
"""A lateness beyond any: nobody is told."""
_WINDOW_NAMES = {"day": "daily", "week": "weekly", "month": "monthly"}


@dataclass(slots=True)
class Passage:
    """The rows of one batch in log order, as arrays; `scopes` and `matrix` are filled for the rows that are folded."""

    sources: Vector
    offsets: Vector
    received_ms: Vector
    times_us: Vector
    charged_us: Vector
    """min(event_time, received_at): a producer whose clock runs ahead moves nothing."""
    quiet: Mask
    """Rows that were brought in afterwards: what they cross alerts nobody."""
    orgs: pl.Series
    scopes: dict[str, Vector] = field(default_factory=dict)
    matrix: Matrix = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    asked: dict[str, tuple[Vector, Vector]] = field(default_factory=dict)
    """By kind the rows that count for a tag, session or run with a budget, and the scope of each."""

    def only(self, rows: Mask) -> "Passage":
        """Return the passage of the chosen rows, before its scopes are known."""
        chosen: dict[str, Any] = {part.name: getattr(self, part.name)[rows] for part in fields(self)[:6]}
        return Passage(**chosen, orgs=self.orgs)

    def crossing(
        self, state: State, scope: int, level: str, bucket: int, before: int, unit: str, amount: int
    ) -> tuple[int, int, int]:
        """Return received_at (ms) of the row that carried a scope's use to `amount`, that use, and its lateness (s)."""
        rows = self._rows_of(scope, state.scopes.names[scope][1], level, bucket)
        totals = before + np.cumsum(used(self.matrix[rows], unit))
        first = np.flatnonzero(totals >= amount)[0]
        at = rows[first]
        received_ms = int(self.received_ms[at])
        late_s = UNTOLD_S if self.quiet[at] else received_ms // 1_000 - int(self.charged_us[at]) // 1_000_000
        return received_ms, int(totals[first]), late_s

    def loud(self, scopes: Sequence[int]) -> list[int]:
        """Return those of the scopes that rows are of which were not brought in afterwards."""
        if not self.quiet.any():
            return list(scopes)
        asked = (numbers[~self.quiet[rows]] for rows, numbers in self.asked.values())
        named = np.concatenate([*(numbers[~self.quiet] for numbers in self.scopes.values()), *asked])
        return [scope for scope, is_loud in zip(scopes, np.isin(scopes, named).tolist(), strict=True) if is_loud]

    def quiet_cost(self, keys: Vector, level: str, bucket: int) -> Vector:
        """Return what was brought in afterwards of each key's cost in a bucket (nano-USD); `keys` are scopes."""
        rows = np.flatnonzero(self.quiet)
        rows = rows[bucket_of(level, self.charged_us[rows] // MINUTE_US) == bucket]
        if not rows.size or not keys.size:
            return np.zeros(keys.size, dtype=np.int64)
        cost = np.zeros(int(max(keys.max(), self.scopes["api_key"].max())) + 1, dtype=np.int64)
        named = rows[self.scopes["api_key"][rows] >= 0]
        np.add.at(cost, self.scopes["api_key"][named], key_cost(self.matrix[named]))
        return cost[keys]

    def key_crossing(self, level: str, bucket: int, scope: int, before: Matrix, limit: int) -> "Reached":
        """Return what a key's bucket reached with the row that carried its live cost beyond `limit`.

        `before`: one row, the live measures of the rows before these.
        """
        rows = self._rows_of(scope, "api_key", level, bucket)
        rows = rows[~self.quiet[rows]]
        totals = key_cost(before) + np.cumsum(key_cost(self.matrix[rows]))
        first = np.flatnonzero(totals > limit)[0]
        at_risk = int(before[0, AT_RISK] + self.matrix[rows[: first + 1], AT_RISK].sum())
        return Reached(int(self.received_ms[rows[first]]), int(totals[first]), at_risk)

    def _rows_of(self, scope: int, kind: str, level: str, bucket: int) -> Vector:
        if kind in self.asked:
            rows = self.asked[kind][0][self.asked[kind][1] == scope]
        else:
            rows = np.flatnonzero(self.scopes[kind] == scope)
        inside: Vector = rows[bucket_of(level, self.charged_us[rows] // MINUTE_US) == bucket]
        return inside


def fresh(alerts: Sequence[Alert], now_s: float, max_age_s: float) -> list[Alert]:
    """Return the alerts that people are to hear of: neither found long ago, nor of events that came long after."""
    return [
        alert for alert in alerts if alert.received_at.timestamp() >= now_s - max_age_s and alert.late_s <= max_age_s
    ]


def budget_alert(
    state: State, bound: Budget, scope: int, bucket: int, edge: Edge, reached: int, received_ms: int, late_s: int = 0
) -> Alert:
    """A scope's use reached an edge of one of its budgets: a percentage, or so much that too little remains."""
    period = period_text(period_level_of(bound), bucket)
    (org, kind, name), limit = state.scopes.names[scope], _limit(bound)
    who = whom(org, kind, name)
    what = f"the {_WINDOW_NAMES.get(bound.limit.window, bound.limit.window)} budget of {limit}"
    rest = f"less than {limit_text((bound.alert_remaining_micro or 0) * NANO_PER_MICRO)} {bound.unit} remain"
    identity = (bound.policy_id, bound.limit.key, str(bound.amount), kind, name, period, edge.label)
    return Alert(
        id=alert_id("budget", *identity),
        kind="remaining" if edge.pct is None else "budget",
        severity=severity(edge),
        org_id=org,
        scope=kind,
        name=name,
        period=period,
        received_at=instant(received_ms),
        text=f"{who} reached {edge.pct} % of {what}" if edge.pct is not None else f"{rest} of {what} for {who}",
        facts={**budget_facts(bound, reached), "threshold_pct": edge.pct},
        late_s=late_s,
    )


def late_spend_alert(
    state: State, bound: Budget, scope: int, bucket: int, late: int, total: int, late_s: int = 0
) -> Alert:
    """Spend arrived in a period that is over; one alert per budget, period and total, dated by the period's end."""
    period = period_text(level_of(bound), bucket)
    org, kind, name = state.scopes.names[scope]
    return Alert(
        id=alert_id("late_spend", bound.policy_id, bound.limit.key, kind, name, period, str(total)),
        kind="late_spend",
        severity="warning" if total >= bound.amount else "info",
        org_id=org,
        scope=kind,
        name=name,
        period=period,
        received_at=instant(bucket_end_s(level_of(bound), bucket) * 1000),
        text=f"{_amount(bound, late)} arrived late in {period}, which is over: {whom(org, kind, name)} now stands at "
        f"{_amount(bound, total)} of {_limit(bound)}",
        facts={**budget_facts(bound, total), "late": late},
        late_s=late_s,
    )


def budget_facts(bound: Budget, reached: int) -> dict[str, Any]:
    """Return what any alert about a budget says of it."""
    unit = "nano" if bound.limit.measure == "money" else bound.unit
    facts: dict[str, Any] = {
        "policy_id": bound.policy_id,
        "applies": bound.applies,
        "limit_" + unit: bound.amount,
        "spent_" + unit: reached,
        "unit": bound.unit,
        "window": bound.limit.window,
        "timezone": bound.timezone,
    }
    return {**facts, "currency": bound.currency} if unit == "nano" else facts


def _limit(bound: Budget) -> str:
    return f"{limit_text(bound.amount) if bound.limit.measure == 'money' else f'{bound.amount:,}'} {bound.unit}"


def _amount(bound: Budget, amount: int) -> str:
    return f"{used_text(amount) if bound.limit.measure == 'money' else f'{amount:,}'} {bound.unit}"


class Reached(NamedTuple):
    """Where a key's open bucket stands at the row that made it a new extreme: nano-USD, and that row's append time."""

    received_ms: int
    cost_nano: int
    at_risk_nano: int
    """Of calls without a known price, and of the unknown parts of others: what they may cost at most."""


def spike_alert(
    state: State, level: str, bucket: int, scope: int, reached: Reached, peak_nano: int, limit_nano: int
) -> Alert:
    """A key's cost in the open minute or hour is a new extreme; one alert per key, kind of window and hour."""
    hour = period_text("hour", bucket if level == "hour" else bucket // 60)
    past = (
        f"its dearest {level} so far was {nano_to_text(peak_nano)} USD"
        if peak_nano
        else f"no {level} before it to compare"
    )
    facts = {"window": level, "cost_nano": reached.cost_nano, "past_peak_nano": peak_nano, "threshold_nano": limit_nano}
    risk = ""
    if reached.at_risk_nano:
        facts["at_risk_nano"] = reached.at_risk_nano
        risk = f", of which {nano_to_text(reached.at_risk_nano)} at most, of calls whose price is not wholly known"
    return _key_alert(
        state,
        scope,
        "spend_spike",
        "critical" if not peak_nano else "warning",
        hour,
        reached.received_ms,
        f"spent {nano_to_text(reached.cost_nano)} USD within one {level}{risk}; {past}",
        facts,
        level,
    )


def ingest_loop_alert(state: State, hour: int, scope: int, inputs: int, outputs: int, received_ms: int) -> Alert:
    """A key takes in more than a million tokens in an hour and gives hardly any out."""
    return _key_alert(
        state,
        scope,
        "ingest_loop",
        "warning",
        period_text("hour", hour),
        received_ms,
        f"took in {inputs:,} tokens within one hour and put out {outputs:,}: it looks like a loop",
        {"window": "hour", "input_tokens": inputs, "output_tokens": outputs},
    )


def unpriced_alert(state: State, day: int, scope: int, calls: int, count: int, received_ms: int) -> Alert:
    """Too many of an organisation's calls use models without a known price."""
    org, kind, name = state.scopes.names[scope]
    period = period_text("day", day)
    return Alert(
        id=alert_id("unpriced", org, period),
        kind="unpriced",
        severity="warning",
        org_id=org,
        scope=kind,
        name=name,
        period=period,
        received_at=instant(received_ms),
        text=f"{count:,} of {calls:,} calls{f' of {org}' if org else ''} have no known price; "
        "see: tollmeter prices show MODEL",
        facts={"calls": calls, "unknown_model": count, "window": "day"},
    )


def _key_alert(
    state: State,
    scope: int,
    kind: str,
    level: Severity,
    hour: str,
    received_ms: int,
    text: str,
    facts: dict[str, Any],
    *parts: str,
) -> Alert:
    org, scope_kind, name = state.scopes.names[scope]
    return Alert(
        id=alert_id(kind, org, scope_kind, name, hour, *parts),
        kind=kind,
        severity=level,
        org_id=org,
        scope=scope_kind,
        name=name,
        period=hour,
        received_at=instant(received_ms),
        text=f"{whom(org, 'key', name)} {text}",
        facts=facts,
    )


def instant(ms: int) -> datetime:
    """Return milliseconds since 1970 as an aware UTC datetime, exactly."""
    return (EPOCH + timedelta(milliseconds=ms)).astimezone(UTC)
