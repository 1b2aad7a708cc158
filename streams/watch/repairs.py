"""WATCH's repairs: after a checkpoint, late rows that the ledger holds by now come back as records of the log.

Waits until LEDGER has committed beyond the checkpoint; computes from ClickHouse; sends to WATCH's own partition.
"""

import asyncio
import io
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from tollmeter.broker.client import kafka_admin
from tollmeter.schemas import topics
from tollmeter.schemas.control import Round
from tollmeter.schemas.envelope import repair_headers
from tollmeter.schemas.priced import MAX_RECORD_BYTES
from tollmeter.schemas.progress import LogPosition
from tollmeter.schemas.record import Headers
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect
from tollmeter.streams.engine.gaps import of_other_logs
from tollmeter.streams.engine.line import Send
from tollmeter.streams.engine.runtime import RUNTIME, Runtime
from tollmeter.streams.rules.windows.backfill import Backfill
from tollmeter.streams.rules.windows.repair import due
from tollmeter.streams.rules.windows.snapshot import Snapshot
from tollmeter.streams.watch.ledger_totals import extra_cells, repair_cells

log = logging.getLogger("tollmeter")

ROWS_PER_RECORD = 20_000
PATIENCE_S, POLL_S = 15.0, 0.5
RESTS, LONGEST_REST_S = 4, 60.0
"""Repairs of a partition rest so many times as long as they took: while corrections go on, rounds are few and large,
and take a fifth of the time. What a policy asks for does not wait."""
Position = Callable[[int, str], Awaitable[int]]


def repair_records(round_: Round, cells: pl.DataFrame, limit: int = ROWS_PER_RECORD) -> list[tuple[bytes, Headers]]:
    """Return value and headers of each record of a round, of about `limit` cells.

    All cells of a scope stand in one record, and only the last record says which hours the round repairs: its sender
    may die between two, and then the next round must find both the differences and the hours that are still to do.
    """
    ordered = cells.sort("scope", "name", maintain_order=True)
    sizes = ordered.group_by("scope", "name", maintain_order=True).len()["len"].to_list()
    ends = scope_ends(sizes, limit)
    records = []
    for begin, end in pairwise([0, *ends]):
        out = io.BytesIO()
        ordered[begin:end].write_ipc_stream(out, compression="lz4")
        assert len(out.getvalue()) <= MAX_RECORD_BYTES, "a repair record holds more than fits"
        part = round_ if end == ends[-1] else round_.model_copy(update={"hours": (), "extras": False})
        records.append((out.getvalue(), repair_headers(part)))
    return records


def scope_ends(sizes: Sequence[int], limit: int) -> list[int]:
    """Return where records end: behind as many scopes (of so many cells each) as fit the limit, one at least."""
    ends, at, begin = [], 0, 0
    for size in sizes:
        if at > begin and at + size - begin > limit:
            ends.append(at)
            begin = at
        at += size
    return [*ends, at]


class RepairKernel(NamedTuple):
    """How the cells of a round are computed and written as records."""

    cells: Callable[[ClickHouse, str, tuple[int, ...], int, int], pl.DataFrame] = repair_cells
    extras: Callable[[ClickHouse, Backfill], pl.DataFrame] = extra_cells
    records: Callable[[Round, pl.DataFrame], list[tuple[bytes, Headers]]] = repair_records


REPAIR_KERNEL = RepairKernel()


class Repairs:
    """Turns the deferred hours of a saved snapshot into repair records, one round per organisation at a time."""

    def __init__(
        self,
        settings: Settings,
        send: Send,
        *,
        runtime: Runtime = RUNTIME,
        connect: Callable[[Settings], ClickHouse] = connect,
        position: Position | None = None,
        kernel: RepairKernel = REPAIR_KERNEL,
    ) -> None:
        self._settings, self._send_record, self._runtime, self._connect = settings, send, runtime, connect
        self._kernel = kernel
        self._position = position or partial(ledger_position, settings)
        self._numbers = itertools.count()
        self._boot = runtime.new_id()
        self._rested_at: dict[int, float] = {}

    async def after(self, saved: Snapshot) -> None:
        """Send what can be repaired as of this checkpoint; when ClickHouse or the ledger lag, the next one tries."""
        deferred = {(org, hour): offset for org, hour, offset in saved.progress.deferred}
        if saved.progress.watermark_ms is None:  # of a source partition nobody knows the time: nothing is sealed
            return
        watermark_s = saved.progress.watermark_ms // 1000
        rounds = due(deferred, set(saved.progress.quiet_hours), watermark_s, self._settings.horizon_s)
        rounds |= {backfill.org_id: rounds.get(backfill.org_id, ()) for backfill in saved.unsettled}
        resting = self._runtime.monotonic() < self._rested_at.get(saved.partition, 0.0)
        if not rounds or (resting and not saved.unsettled):
            return
        if not await self._ledger_caught_up(saved):
            return
        began = self._runtime.monotonic()
        try:
            await self._repair(saved, rounds, watermark_s)
        finally:
            now = self._runtime.monotonic()
            self._rested_at[saved.partition] = now + min(LONGEST_REST_S, RESTS * (now - began))

    async def _repair(self, saved: Snapshot, rounds: Mapping[str, tuple[int, ...]], watermark_s: int) -> None:
        for org, hours in rounds.items():
            extras = [backfill for backfill in saved.unsettled if backfill.org_id == org]
            try:
                cells = await self._runtime.blocking(self._compute, org, hours, watermark_s, extras)
            except (Unavailable, Rejected) as error:
                log.warning("repair of %s waits: %s", org, error)
                return
            await self._send(saved, org, hours, extras, cells)

    def _compute(self, org: str, hours: tuple[int, ...], watermark_s: int, extras: Sequence[Backfill]) -> pl.DataFrame:
        client = self._connect(self._settings)
        try:
            parts = [self._kernel.extras(client, backfill) for backfill in extras]
            if hours:
                parts.insert(0, self._kernel.cells(client, org, hours, watermark_s, self._settings.horizon_s))
            return parts[0] if len(parts) == 1 else pl.concat(parts)
        finally:
            client.close()

    async def _send(
        self, saved: Snapshot, org: str, hours: tuple[int, ...], extras: Sequence[Backfill], cells: pl.DataFrame
    ) -> None:
        round_ = Round(
            id=f"{self._boot}-{next(self._numbers)}",
            org_id=org,
            base=saved.applied,
            hours=hours,
            quiet=bool(hours) and (org, hours[0]) in saved.progress.quiet_hours,
            extras=bool(extras),
        )
        topic = self._settings.topic(topics.PRICED)
        for value, headers in self._kernel.records(round_, cells):
            await self._send_record(topic, saved.partition, None, value, headers)
        log.info("partition %d: repaired %d hours of %s (%d cells)", saved.partition, len(hours), org, len(cells))

    async def ledger_beyond(self, partition: int, log_id: str, offset: int) -> bool:
        """Tell whether LEDGER has stored what stands at an offset of this log, and before it."""
        return await self._position(partition, log_id) > offset

    async def _ledger_caught_up(self, saved: Snapshot) -> bool:
        """Tell whether LEDGER has committed beyond the checkpoint, waiting a while for it."""
        for _ in range(int(PATIENCE_S / POLL_S)):
            if await self.ledger_beyond(saved.partition, saved.progress.log_id, LogPosition.of(saved.applied).offset):
                return True
            await asyncio.sleep(POLL_S)
        return False


async def ledger_position(settings: Settings, partition: int, log_id: str = "") -> int:
    """Return the offset that LEDGER has committed for a partition of the topic with this id, "" for any.

    0 before its first commit there, or while nobody says.
    """
    tp = TopicPartition(settings.topic(topics.PRICED), partition)
    try:
        async with kafka_admin(settings) as admin:
            found: dict[TopicPartition, Any] = await admin.list_consumer_group_offsets(
                settings.group("ledger"), partitions=[tp]
            )
    except (KafkaError, OSError) as error:  # the broker is away or cut off: the next checkpoint tries again
        log.info("no position of the ledger: %r", error)
        return 0
    offset = int(found[tp].offset) if tp in found else 0
    if offset <= 0 or of_other_logs({TP(*tp): (offset, found[tp].metadata)}, {tp.topic: log_id}):
        return 0
    return offset
