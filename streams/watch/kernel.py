"""The state of a partition of usage.priced and what WATCH does to it: made, resumed, folded, saved, counted as unsaved.

Holds no state itself: everything that the fold knows is in the `State` that goes from call to call.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from tollmeter.schemas.alert import Alert
from tollmeter.schemas.progress import LogPosition
from tollmeter.schemas.record import Headers, Record
from tollmeter.settings import Settings
from tollmeter.streams.engine import metrics
from tollmeter.streams.rules.windows import epochs
from tollmeter.streams.rules.windows.anomalies import SpikeFloors
from tollmeter.streams.rules.windows.profile_rows import load
from tollmeter.streams.rules.windows.snapshot import Snapshot, restore, snapshot, undo
from tollmeter.streams.rules.windows.state import State, WatchRules
from tollmeter.streams.watch.checkpoint import Checkpoint
from tollmeter.streams.watch.records import OnBarrier, ReadBack, fold_log, remember, voided
from tollmeter.streams.watch.thresholds import shipped_limits

log = logging.getLogger("tollmeter")


def rules_from(settings: Settings, sources: int) -> WatchRules:
    """Return the parameters of the fold; `sources` is the partition count of usage.events."""
    return WatchRules(
        sources=sources,
        horizon_s=settings.horizon_s,
        close_after_s=settings.close_after_s,
        seen_cap=settings.seen_cap,
        floors=SpikeFloors(
            minute_nano=settings.spike_floor_minute_nano,
            hour_nano=settings.spike_floor_hour_nano,
            new_key_hour_nano=settings.new_key_floor_hour_nano,
            factor=settings.spike_factor,
        ),
        unpriced_share_pct=settings.unpriced_share_pct,
        limits=shipped_limits(),
        scopes_per_org=settings.watch_scopes_per_org,
        sessions_per_org=settings.watch_sessions_per_org,
    )


class WatchKernel:
    """The fold by whole columns."""

    def __init__(self, rules: WatchRules, read_back: ReadBack) -> None:
        self._rules, self._read_back = rules, read_back

    async def resume(self, number: int, saved: Checkpoint | None) -> State:
        """Return the state of a partition as of its checkpoint, a new one without; reads the log back for event ids."""
        state = State(number, self._rules)
        if saved is not None:
            restore(state, saved.progress, saved.cells, saved.policies)
            load(state, saved.profiles)
            await remember(self._read_back, state)
            log.info("partition %d goes on at offset %d (%d scopes)", number, state.applied + 1, len(state.scopes))
        return state

    def fold(self, state: State, records: Sequence[Record], on_barrier: OnBarrier) -> list[Alert]:
        """Fold records in offset order; return the alerts they cause. Snapshots may be taken in `on_barrier` alone."""
        if epoch := LogPosition.of(state.base).epoch:
            records = [_placed(record, LogPosition(epoch, record.offset).stamp) for record in records]
        before = state.counters.copy()
        alerts = fold_log(state, records, on_barrier)
        metrics.folded(state, before)
        return alerts

    def voided(self, state: State, records: Sequence[Record]) -> list[tuple[bytes, Headers]]:
        """Return the corrections that these folded records call for: of ids that came first at another time."""
        return voided(state, records)

    def snapshot(self, state: State) -> Snapshot:
        """Drain what changed since the last snapshot."""
        return snapshot(state)

    def undo(self, state: State, failed: Snapshot) -> None:
        """Count a snapshot as unsaved again."""
        undo(state, failed)

    def renew(self, state: State, log_id: str) -> None:
        """Go on with a log that was made anew; hours whose event ids are forgotten with the old one are repaired."""
        epochs.renew(state, log_id)
        epochs.missing(state, epochs.open_hours(state))

    def missing(self, state: State, hours: list[tuple[str, int]]) -> None:
        """Have hours of organisations repaired from the ledger."""
        epochs.missing(state, hours)


def _placed(record: Record, stamp: int) -> Record:
    """Return a record of aiokafka at another place."""
    moved: Record = replace(record, offset=stamp)  # type: ignore[type-var]  # its records are dataclasses
    return moved
