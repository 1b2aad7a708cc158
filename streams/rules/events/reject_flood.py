"""A flood of dead letters is an alert, once an hour for each source partition; the line goes on.

A flood: a tenth of an hour's records, and no fewer than a hundred; or a thousand rejects in a row.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tollmeter.schemas.alert import Alert, alert_id

SHARE = 0.1
AT_LEAST = 100
IN_A_ROW = 1_000
_HOUR_MS = 3_600_000


@dataclass(slots=True)
class _Partition:
    hour: int = -1
    records: int = 0
    rejected: int = 0
    in_a_row: int = 0
    told: int = -1
    """The hour that was told of."""


@dataclass(slots=True)
class RejectFloods:
    """Counts by source partition, of the hour in which records arrive. A restart begins to count anew."""

    _partitions: dict[int, _Partition] = field(default_factory=dict)

    def add(self, partition: int, first: int, records: int, rejects: Collection[int], received_ms: int) -> Alert | None:
        """Count what a batch read of a partition: from `first` on, `rejects` by their place; return an alert once."""
        state = self._partitions.setdefault(partition, _Partition())
        hour = received_ms // _HOUR_MS
        if hour != state.hour:
            state.hour, state.records, state.rejected = hour, 0, 0
        state.records += records
        state.rejected += len(rejects)
        longest = _run(state, first, records, rejects)
        many = state.rejected >= AT_LEAST and state.rejected >= SHARE * state.records
        if state.told == hour or not (many or longest >= IN_A_ROW):
            return None
        state.told = hour
        return _alert(partition, state, longest, received_ms)


def _run(state: _Partition, first: int, records: int, rejects: Collection[int]) -> int:
    """Move the run of rejects over the batch; return the longest in it, with what came before."""
    longest, last = state.in_a_row, first - 1
    for place in sorted(rejects):
        state.in_a_row = state.in_a_row + 1 if place == last + 1 else 1
        longest, last = max(longest, state.in_a_row), place
    if last < first + records - 1:
        state.in_a_row = 0
    return longest


def _alert(partition: int, state: _Partition, longest: int, received_ms: int) -> Alert:
    at = datetime.fromtimestamp(received_ms / 1000, tz=UTC)
    where, period = f"usage.events/{partition}", f"{at:%Y-%m-%dT%H}"
    return Alert(
        id=alert_id("dlq_flood", where, period),
        kind="dlq_flood",
        severity="critical",
        org_id="",
        scope="pipeline",
        name=where,
        period=period,
        received_at=at,
        source="tollmeter/price",
        text=f"{where}: {state.rejected} of this hour's {state.records} records are dead letters, {longest} in a row",
        facts={"partition": partition, "records": state.records, "rejected": state.rejected, "in_a_row": longest},
    )
