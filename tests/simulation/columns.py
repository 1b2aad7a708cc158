"""WATCH with production's own fold, checkpoints and spend rows: the records of the simulator become Arrow for it."""

import io
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl
from faust.types import TP

from tests import watch_rows
from tests.simulation.broker import Broker, Record
from tests.simulation.kernels import voided
from tests.simulation.rows import Row, Rows
from tests.simulation.store import Client, Store
from tests.simulation.tags import run_of, session_of, tag_of
from tests.simulation.world import Process
from tollmeter.schemas import topics
from tollmeter.schemas.priced import H_KIND, KIND_CORRECTION, KIND_REPAIR, KIND_ROWS, VOID
from tollmeter.schemas.progress import LogPosition
from tollmeter.settings import Settings
from tollmeter.streams.rules.windows.fold import COLUMNS_READ
from tollmeter.streams.rules.windows.repair import REPAIR_SCHEMA
from tollmeter.streams.rules.windows.state import WatchRules
from tollmeter.streams.rules.windows.totals import MEASURES
from tollmeter.streams.watch.checkpoint import CheckpointStore
from tollmeter.streams.watch.kernel import WatchKernel, rules_from
from tollmeter.streams.watch.records import fold_log


def rules_of(settings: Settings, sources: int) -> WatchRules:
    """Return production's parameters, but with figures at which the few calls of a run are suspicious."""
    rules = rules_from(settings, sources)
    return replace(rules, limits=watch_rows.low(rules.limits))


class ColumnFolding(WatchKernel):
    """Production's fold; only the records are encoded on their way, each once."""

    def __init__(self, settings: Settings, broker: Broker, process: Process | None) -> None:
        super().__init__(rules_of(settings, settings.partitions_events), self.read_back)
        self._broker, self._process = broker, process

    def fold(self, state: Any, records: Sequence[Any], on_barrier: Any) -> list[Any]:
        if epoch := LogPosition.of(state.base).epoch:
            records = [record._replace(offset=LogPosition(epoch, record.offset).stamp) for record in records]
        return fold_log(state, [encoded(self._broker, record) for record in records], on_barrier)

    def voided(self, state: Any, records: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Return the corrections in the simulator's own rows; those of production have other columns."""
        return voided(state, records)

    async def read_back(self, number: int, since_ms: int, end: int) -> AsyncIterator[Sequence[Any] | None]:
        """Yield the log since an append time, some records at a time."""
        log = self._broker.logs.get(TP(topics.PRICED, number))
        if log is None:  # the partition went while its checkpoint was loaded
            return
        found = [record for record in log.read(log.first, end - log.first) if record.timestamp >= since_ms]
        if log.first and (not log.records or log.records[0].timestamp >= since_ms):
            yield None
        for begin in range(0, len(found), 20):
            if self._process is not None:
                self._process.point()
            yield [encoded(self._broker, record) for record in found[begin : begin + 20]]


def checkpoints(settings: Settings, _store: Store, client: Client) -> CheckpointStore:
    """Return production's store of checkpoints on a simulated connection."""
    return CheckpointStore(settings, lambda _settings: client)  # type: ignore[arg-type,return-value]


def encoded(broker: Broker, record: Record) -> Record:
    """Return a record of usage.priced as it would stand in the real log."""
    known: dict[int, tuple[Record, Any]] = broker.__dict__.setdefault("encoded", {})
    if id(record.value) not in known:
        kind = dict(record.headers).get(H_KIND)
        value = record.value
        if kind in (KIND_ROWS, KIND_CORRECTION) and isinstance(value, Rows):
            columns = (*COLUMNS_READ, "tags", "session_id", "trace_id", *(["revision"] if kind != KIND_ROWS else []))
            value = _ipc(watch_rows.frame([as_priced(row) for row in value], columns))
        elif kind == KIND_REPAIR and not isinstance(value, bytes):
            value = _ipc(pl.DataFrame([as_cell(cell) for cell in value], schema=REPAIR_SCHEMA))
        known[id(record.value)] = record, value
    return record._replace(value=known[id(record.value)][1])


def as_priced(row: Row) -> dict[str, Any]:
    """Return the columns of a row that WATCH reads."""
    key, _, value = tag_of(row.event_id).partition("=")
    number = int(row.event_id[-12:], 16)
    return {
        "tags": [{"key": key, "value": value}] if key else [],
        **watch_rows.DEFAULTS,
        "session_id": session_of(row.event_id),
        "trace_id": run_of(row.event_id),
        "event_id": row.event_id,
        "event_time": row.event_us,
        "received_at": row.received_ms,
        "src_partition": row.src_partition,
        "src_offset": row.src_offset,
        "org_id": row.org,
        "user_id": row.user,
        "api_key_id": row.key,
        "cost_nano": row.cost_nano,
        "revision": row.revision,
        "status": VOID if row.void else ("OK", "ERROR")[number % 2],
        "client_ip": f"10.0.0.{number % 7}",
        "prompt_hash": ("", "5a" * 8, f"{number:016x}")[number % 3],
    }


def as_cell(cell: Any) -> dict[str, Any]:
    (level, bucket, _org, kind, name), absolute, calls, cost_nano = cell
    measures = {**dict.fromkeys(MEASURES, 0), "calls": calls, "cost_nano": cost_nano}
    return {"level": level, "bucket": bucket, "scope": kind, "name": name, "absolute": absolute, **measures}


def as_frame(cells: Iterator[Any]) -> pl.DataFrame:
    """Return the cells of a repair as production's kernel does, after all questions are asked."""
    while True:
        try:
            next(cells)
        except StopIteration as done:
            return pl.DataFrame([as_cell(cell) for cell in done.value], schema=REPAIR_SCHEMA)


def _ipc(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out)
    return out.getvalue()
