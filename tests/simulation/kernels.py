"""The row-by-row kernels of WATCH: its fold, its checkpoints with cells as tuples, and what its repairs are made of."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

from faust.types import TP

from tests.simulation import fold, row_state
from tests.simulation.broker import Broker
from tests.simulation.rows import Rows
from tests.simulation.store import Client, Store
from tests.simulation.world import Process
from tollmeter.schemas import topics
from tollmeter.schemas.control import Correction, Round
from tollmeter.schemas.envelope import correction_headers, repair_headers
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.priced import DOUBLED_REVISION, H_KIND, KIND_ROWS
from tollmeter.settings import Settings
from tollmeter.streams.rules.windows.repair import sealed
from tollmeter.streams.watch.checkpoint import Checkpoint, CheckpointStore
from tollmeter.streams.watch.kernel import WatchKernel
from tollmeter.streams.watch.repairs import scope_ends

SOURCES, TARGETS = 2, 2
PARTITIONS = {
    topics.EVENTS: SOURCES,
    topics.PRICED: TARGETS,
    topics.DLQ: SOURCES,
    topics.ALERTS: TARGETS,
    topics.PRICES: 1,
    topics.SPEND: 1,
}
SETTINGS = Settings(
    horizon_s=900,
    checkpoint_s=1.0,
    clickhouse_timeout_s=3.0,
    rollup_quiet_s=1.5,
    alert_max_age_h=10**6,
    partitions_events=SOURCES,
    partitions_priced=TARGETS,
)


class RowFolding(WatchKernel):
    """WATCH's fold, row by row."""

    def __init__(self, _settings: Settings, broker: Broker, process: Process) -> None:
        self._broker, self._process = broker, process

    async def resume(self, number: int, saved: Checkpoint | None) -> Any:
        state = row_state.RowState(number, SOURCES, SETTINGS.horizon_s)
        if saved is not None:
            row_state.restore(state, saved.progress, saved.cells, saved.policies)  # type: ignore[arg-type]
            log = self._broker.logs.get(TP(topics.PRICED, number))
            begin_us = log.records[0].timestamp * 1_000 if log and log.records else 1 << 62
            if log and log.first and begin_us > state.remember_from_us:
                row_state.missing(state, row_state.open_hours(state))
            async for records in self.read_back(number, state.applied + 1 - state.base):
                row_state.remember(state, records)
        return state

    async def read_back(self, number: int, end: int) -> AsyncIterator[Sequence[Any]]:
        """Yield the log from its start, some records at a time."""
        log = self._broker.logs.get(TP(topics.PRICED, number))
        if log is None:  # the partition went while its checkpoint was loaded
            return
        for begin in range(log.first, end, 20):
            await asyncio.sleep(0)
            self._process.point()
            yield log.read(begin, min(20, end - begin))

    def fold(self, state: Any, records: Sequence[Any], on_barrier: Any) -> list[Any]:
        return fold.fold(state, records, on_barrier)

    def voided(self, state: Any, records: Sequence[Any]) -> list[tuple[Any, Any]]:
        return voided(state, records)

    def snapshot(self, state: Any) -> Any:
        return row_state.snapshot(state)

    def undo(self, state: Any, failed: Any) -> None:
        row_state.undo(state, failed)

    def renew(self, state: Any, log_id: str) -> None:
        row_state.renew(state, log_id)

    def missing(self, state: Any, hours: list[tuple[str, int]]) -> None:
        row_state.missing(state, hours)


class RowCheckpoints(CheckpointStore):
    """Production's checkpoints with cells as tuples; loading is cut into its three questions."""

    def __init__(self, settings: Settings, store: Store, client: Client) -> None:
        super().__init__(settings, lambda _settings: client)  # type: ignore[arg-type,return-value]
        self._store, self._asking = store, client

    def load(self, partition: int) -> Any:
        self._asking._ask()
        if partition not in self._store.progress:
            return None
        progress = self._store.progress[partition][1]
        yield
        self._asking._ask()
        found = [(key, row) for key, row in sorted(self._store.policies.items()) if key[0] == partition]
        policies = [Policy.model_validate_json(text) for _, (_, deleted, text) in found if not deleted]
        yield
        self._asking._ask()
        cells = [
            (key, calls, cost, stamp)
            for key, (stamp, calls, cost) in self._store.windows.items()
            if topics.org_partition(key[2], TARGETS) == partition
        ]
        return Checkpoint(progress, cells, None, policies)  # type: ignore[arg-type]

    def _write_cells(self, taken: Any) -> None:
        stamp = max(taken.applied, 0)
        rows = [(key, stamp, calls, cost) for key, calls, cost in taken.cells]
        self._connected().insert_rows("usage_windows", (), rows)  # type: ignore[arg-type]


def voided(state: Any, records: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the corrections of rows whose id came first at another time, one a record."""
    doubled, state.to_void = set(state.to_void), []
    rows = {
        row.identity: row
        for record in reversed(records)
        if doubled and dict(record.headers)[H_KIND] == KIND_ROWS
        for row in reversed(record.value)
        if row.identity in doubled
    }
    return [
        (
            Rows([row._replace(void=True, cost_nano=0, revision=DOUBLED_REVISION)]),
            correction_headers(Correction(id="doubled", org_id=row.org, was=0, doubled=True), 1),
        )
        for _, row in sorted(rows.items())
    ]


def repair_cells(store: Store, client: Client, org: str, hours: tuple[int, ...], watermark_s: int) -> Iterator[Any]:
    """Compute the cells of a round from the ledger and the live hours, as production does; a question at a time."""
    client._ask()
    late = [row for row in store.events.values() if row.org == org and row.charged_us // 3_600_000_000 in hours]
    minutes, is_ = totals_of("minute", late), totals_of("hour", late)
    yield
    client._ask()
    live = [
        key
        for key in sorted(store.windows)
        if key[2] == org
        and key[0] in row_state.LEVELS
        and (key[0] in ("day", "month") or key[1] // {"minute": 60, "hour": 1}[key[0]] in hours)
    ]
    was = {key: store.windows[key][1:] for key in live if key[0] == "hour"}
    yield
    client._ask()
    ours = [(row, row.charged_us // 1_000_000) for row in store.events.values() if row.org == org]
    cells = [(key, True, *totals) for key, totals in [*minutes.items(), *is_.items()]]
    closed: dict[str, set[int]] = {"minute": {key[1] for key in live if key[0] == "minute"}, "hour": set(hours)}
    for level in ("day", "month"):
        buckets = {row_state.bucket_at(level, hour * 3_600) for hour in hours}
        closed[level] = {bucket for bucket in buckets if sealed(level, bucket, watermark_s, SETTINGS.horizon_s)}
        rows = [row for row, at_s in ours if row_state.bucket_at(level, at_s) in closed[level]]
        cells += [(key, True, *totals) for key, totals in totals_of(level, rows).items()]
        cells += [cell for cell in _changes(level, is_, was) if cell[0][1] not in closed[level]]
    made = {key for key, absolute, *_ in cells if absolute}
    return cells + [(key, True, 0, 0) for key in live if key[1] in closed[key[0]] and key not in made]


def _changes(level: str, is_: dict[Any, tuple[int, int]], was: dict[Any, tuple[int, int]]) -> list[Any]:
    """Return what is to be added to the open buckets of a level."""
    added: dict[Any, tuple[int, int]] = {}
    for key in sorted({*is_, *was}):
        at = (level, row_state.bucket_at(level, key[1] * 3_600), *key[2:])
        (calls, cost), (old_calls, old_cost) = is_.get(key, (0, 0)), was.get(key, (0, 0))
        sums = added.get(at, (0, 0))
        added[at] = sums[0] + calls - old_calls, sums[1] + cost - old_cost
    return [(key, False, *totals) for key, totals in added.items() if any(totals)]


def totals_of(level: str, rows: Any) -> dict[row_state.Key, tuple[int, int]]:
    found: dict[row_state.Key, tuple[int, int]] = {}
    for row in rows:
        for org, kind, name in () if row.void else row_state.scopes_of(row):
            key = (level, row_state.bucket_at(level, row.charged_us // 1_000_000), org, kind, name)
            calls, cost = found.get(key, (0, 0))
            found[key] = calls + 1, cost + row.cost_nano
    return dict(sorted(found.items()))


def repair_records(round_: Round, cells: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the records of a round; few cells fit one."""
    ordered = sorted(cells, key=lambda cell: cell[0][3:])
    ends = scope_ends([len(list(group)) for _, group in groupby(ordered, key=lambda cell: cell[0][3:])], 12)
    return [
        (tuple(ordered[begin:end]), repair_headers(round_ if end == ends[-1] else _without_hours(round_)))
        for begin, end in pairwise([0, *ends])
    ]


def _without_hours(round_: Round) -> Round:
    return round_.model_copy(update={"hours": ()})
