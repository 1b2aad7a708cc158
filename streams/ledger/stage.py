"""LEDGER: priced rows and alerts into ClickHouse. Inserted, then acked; delivered again, the table is the same.

ClickHouse away: it waits for ever while polling goes on, and gives up at once when its partitions go. Rows that
ClickHouse refuses are found by halving and become dead letters; their neighbours are stored.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Self

import polars as pl
from faust.types import TP

from tollmeter.schemas import topics
from tollmeter.schemas.dead_letter import VALUE_BYTES, SourcePlace, dead_letter, dead_letter_headers
from tollmeter.schemas.envelope import rows_of
from tollmeter.schemas.record import UNREADABLE, Delivery, Place, Record
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import rollup
from tollmeter.sinks.clickhouse.books import store_book
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect
from tollmeter.streams.engine import metrics
from tollmeter.streams.engine.gaps import Loss
from tollmeter.streams.engine.line import Line
from tollmeter.streams.engine.loop import Batching, GivenUp
from tollmeter.streams.engine.stage import run as run_stage
from tollmeter.streams.ledger.block import LEDGER_KERNEL, Block, LedgerKernel, read_block
from tollmeter.streams.ledger.hourly import Hourly
from tollmeter.streams.ledger.lookout import Lookout
from tollmeter.streams.ledger.rows import COVERAGE_COLUMNS, GAP_COLUMNS, REGISTRY_COLUMNS
from tollmeter.streams.ledger.self_check import SelfCheck, own_checks, price_command, refill_command
from tollmeter.streams.ledger.silence import Silence
from tollmeter.streams.ledger.tables import MISSING, Tables
from tollmeter.streams.rules.events.letters import FOREIGN, letter_alert
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS

log = logging.getLogger("tollmeter.ledger")

CLICKHOUSE, BROKEN = "ClickHouse", "bad_priced_record"
REPORT_S = 60.0
BACKLOG_LINGER_S = 2.0
"""A backlog is stored in large blocks: a row in a block of 4,000 costs ClickHouse three times as much."""
POLL_S = 0.05
GRACE_S = 3.0
"""How long an insert under way may go on when the partitions were taken away."""
FIRST_DELAY_S, LAST_DELAY_S = 0.1, 10.0


class Ledger:
    """The LEDGER stage of one worker."""

    name: ClassVar[str] = "ledger"
    reads: ClassVar[tuple[str, ...]] = (topics.PRICED, topics.ALERTS, topics.PRICES, topics.REGISTRY)
    writes: ClassVar[tuple[str, ...]] = (topics.DLQ,)
    own_position: ClassVar[bool] = False

    def __init__(
        self,
        line: Line,
        *,
        kernel: LedgerKernel = LEDGER_KERNEL,
        connect: Callable[[Settings], ClickHouse] = connect,
        roll_up: Callable[[ClickHouse, Settings], rollup.RollupResult] = rollup.step,
        self_checks: Sequence[SelfCheck] = (),
        watches_services: bool = False,
        tables: Tables | None = None,
    ) -> None:
        self._line, self._settings, self._runtime, self.health = line, line.settings, line.runtime, line.health
        self._kernel, self._connect, self._step_rollup, self._self_checks = kernel, connect, roll_up, self_checks
        rows, linger_s = line.settings.ledger_block_rows, line.settings.ledger_block_s
        self.batching = Batching(rows, rows_of, linger_s, BACKLOG_LINGER_S, 0.5).within_bytes()
        asks = [ask(line.runtime, line.incidents, self._clickhouse) for ask in (Silence, Hourly) if watches_services]
        self._questions = [*asks, *((tables,) if tables is not None else ())]
        self._tables = tables
        self._new_book: Callable[[str], None] = lambda price_book: None
        self._lookout = Lookout(line.settings, line.incidents, line.layout.events) if watches_services else None
        self._client: ClickHouse | None = None
        self._counts: Counter[str] = Counter()
        self._reported = self._complained = 0.0
        self._rollup: asyncio.Future[rollup.RollupResult] | None = None
        self._rollup_at = 0.0

    @classmethod
    def on(cls, line: Line) -> Self:
        """Build it with the checks that run by themselves."""
        checks = whole, _, prices, _ = own_checks(line.settings)
        tables = Tables(line.runtime, line.incidents, line.settings, lambda: whole.demand(refill_command()))
        ledger = cls(line, self_checks=checks, watches_services=True, tables=tables)
        ledger._new_book = lambda price_book: prices.demand(price_command(price_book))
        return ledger

    async def assigned(self, partitions: set[TP]) -> Mapping[TP, int]:
        """Begin where the group has committed."""
        return {}

    async def lost(self, loss: Loss) -> None:
        """Nothing more: what is gone is declared."""

    async def leaving(self) -> None:
        """Nothing: what was stored is committed."""

    def commit_note(self, tp: TP) -> str:
        """Return no note."""
        return ""

    async def step(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Store what the batch brings; return the deliveries that must not be acked."""
        block = await self._read(deliveries)
        for stop in block.stopped:
            await self._line.stop_reading(*stop)
        for record, problem in block.broken:
            await self._bury(record, problem)
        if block.rows.height:
            await self._store_rows(block.rows, block.stream, deliveries)
            now = self._runtime.time()
            for delivery in deliveries:
                metrics.INGEST_TO_STORED.observe(max(0.0, now - delivery.value[-1].timestamp / 1000))
        if block.coverage:
            await self._insert_rows("ledger_coverage", COVERAGE_COLUMNS, block.coverage, deliveries)
        if block.alerts:
            await self._insert_rows("alerts", ("event", "appended_at"), block.alerts, deliveries)
        if block.gaps:
            await self._insert_rows("ledger_gaps", GAP_COLUMNS, block.gaps, deliveries)
        if block.registry:
            await self._insert_rows("registry", REGISTRY_COLUMNS, block.registry, deliveries)
        for record in block.books:
            await self._store_book(record, deliveries)
        self._counts.update(rows=block.rows.height, blocks=len(block.blocks), alerts=len(block.alerts), inserts=1)
        return block.held

    async def _read(self, deliveries: Sequence[Delivery]) -> Block:
        """Read a batch, behind the records that a person has passed over as well."""
        passed: set[Place] = set()
        while True:
            block = await self._runtime.blocking(read_block, self._settings, self._kernel, deliveries, passed)
            stops = [(tp.partition, offset) for tp, offset, _ in block.stopped]
            by_hand = {place for place in stops if await self._line.passed_over(*place)}
            if not by_hand:
                return block
            passed |= by_hand

    # ------------------------------------------------------------------ ClickHouse

    async def _store_rows(self, rows: pl.DataFrame, stream: bytes, deliveries: Sequence[Delivery]) -> None:
        """Insert rows; halve what ClickHouse refuses until the culprits stand alone."""
        try:
            insert = partial(self._insert_arrow, "usage_events", stream)
            await self._persist(insert, deliveries, "usage_events", rows.height)
        except Rejected as refusal:
            if rows.height == 1:
                metrics.SINK_ERRORS.labels("usage_events").inc()
                await self._send_dead_letter(rows, refusal)
                return
            middle = rows.height // 2
            for half in (rows[:middle], rows[middle:]):
                await self._store_rows(half, self._kernel.to_insert(half), deliveries)

    async def _store_book(self, record: Record, deliveries: Sequence[Delivery]) -> None:
        book = record.value or b""
        try:
            await self._persist(lambda: store_book(self._clickhouse(), book), deliveries, "price_rules", 1)
            self._new_book((record.key or b"").decode("utf-8", "replace"))
        except (ValueError, Rejected) as problem:
            await self._bury(record, str(problem))

    async def _insert_rows(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]], deliveries: Sequence[Delivery]
    ) -> None:
        await self._persist(lambda: self._clickhouse().insert_rows(table, columns, rows), deliveries, table, len(rows))

    def _clickhouse(self) -> ClickHouse:
        """Return the client, connecting at first use: a worker may start while ClickHouse is away."""
        if self._client is None:
            self._client = self._connect(self._settings)
        return self._client

    def _insert_arrow(self, table: str, stream: bytes) -> None:
        self._clickhouse().insert_arrow(table, stream, LEDGER_COLUMNS)

    async def _persist(self, work: Callable[[], None], deliveries: Sequence[Delivery], table: str, rows: int) -> None:
        """Do the work in a thread until it succeeds. Raises `GivenUp` when the deliveries are no longer ours."""
        self.health.storing(table, self._runtime.monotonic())
        try:
            await self._retried(work, deliveries, table, rows)
        finally:
            self.health.stored(table)
            self.health.go_on(CLICKHOUSE)

    async def _retried(self, work: Callable[[], None], deliveries: Sequence[Delivery], table: str, rows: int) -> None:
        delay = FIRST_DELAY_S
        while True:
            began = self._runtime.monotonic()
            try:
                await self._watched(asyncio.ensure_future(self._runtime.blocking(work)), deliveries)
                metrics.stored(table, rows, self._runtime.monotonic() - began)
                return
            except Unavailable as error:
                metrics.SINK_RETRIES.labels(table).inc()
                self.health.wait(CLICKHOUSE, str(error), self._runtime.monotonic())
                self._complain(error)
                if self._tables is not None and error.code in MISSING:
                    await self._tables.look()
            wake = self._runtime.monotonic() + delay * (0.5 + self._runtime.random() / 2)
            while self._runtime.monotonic() < wake:
                self._check_ours(deliveries)
                await asyncio.sleep(POLL_S)
            delay = min(LAST_DELAY_S, 2 * delay)

    async def _watched(self, task: asyncio.Future[None], deliveries: Sequence[Delivery]) -> None:
        lost_at: float | None = None
        while True:
            done, _ = await asyncio.wait({task}, timeout=POLL_S * 4)
            if done:
                task.result()
                return
            if not self._line.owns_all(deliveries):
                lost_at = lost_at or self._runtime.monotonic()
                if self._runtime.monotonic() > lost_at + GRACE_S:
                    raise GivenUp

    def _check_ours(self, deliveries: Sequence[Delivery]) -> None:
        if not self._line.owns_all(deliveries):
            raise GivenUp

    def _complain(self, error: Exception) -> None:
        now = self._runtime.monotonic()
        if now >= self._complained + 10.0:
            self._complained = now
            log.warning("waiting: %s", error)

    async def _send_dead_letter(self, row: pl.DataFrame, refusal: Rejected) -> None:
        fields = row.row(0, named=True)
        source = SourcePlace(self._settings.topic(topics.EVENTS), fields["src_partition"], fields["src_offset"])
        headers = dead_letter_headers(self.name, "rejected", str(refusal), source)
        value = json.dumps(fields, default=str, ensure_ascii=False).encode()[:VALUE_BYTES]
        await self._line.send(self._settings.topic(topics.DLQ), fields["src_partition"], None, value, headers)
        self._counts["rejected"] += 1
        metrics.DLQ_EVENTS.labels(self.name, "rejected").inc()
        log.warning("row %s is refused: %s", fields["event_id"], refusal)

    async def _bury(self, record: Record, problem: str) -> None:
        """Send a record that is none of ours to the dead letters: nobody else should write there."""
        value = None if record.value is UNREADABLE else record.value
        if record.topic == self._settings.topic(topics.PRICED):
            reason, letter = BROKEN, dead_letter(self.name, "bad_priced_record", problem, record, value)
        else:
            reason, letter = FOREIGN, dead_letter(self.name, "foreign_record", problem, record, value)
        await self._line.send(self._settings.topic(topics.DLQ), 0, *letter)
        self._counts["broken"] += 1
        metrics.DLQ_EVENTS.labels(self.name, reason).inc()
        log.warning("%s/%d offset %d is none of ours: %s", record.topic, record.partition, record.offset, problem)
        topic = record.topic.removeprefix(self._settings.topic_prefix)
        await self._line.incidents.say(letter_alert(self.name, topic, reason, record))

    # ------------------------------------------------------------------ timers

    async def idle(self, now: float) -> None:
        """Roll up when it is due and ours to do; report every minute."""
        if now >= self._reported + REPORT_S:
            self._reported = now
            if self._counts:
                log.info("%s", ", ".join(f"{name} {count}" for name, count in sorted(self._counts.items()) if count))
                self._counts.clear()
        for check in self._self_checks:
            check.step(now, ours=self._owns_rollup())
        for question in self._questions:
            question.step(now, ours=self._owns_rollup())
        if self._lookout is not None:
            self._lookout.step(ours=self._owns_rollup())
        if self._rollup is not None:
            if not self._rollup.done():
                return
            task, self._rollup = self._rollup, None
            self._rollup_at = now + self._pause(task)
        if now >= self._rollup_at and self._owns_rollup():
            self._rollup = asyncio.ensure_future(self._runtime.blocking(self._roll_up))

    def _roll_up(self) -> rollup.RollupResult:
        return self._step_rollup(self._clickhouse(), self._settings)

    def _pause(self, task: asyncio.Future[rollup.RollupResult]) -> float:
        error = task.exception()
        if error is None:
            return task.result().pause_s
        if not isinstance(error, Unavailable):
            self._runtime.crash(error)
        self._complain(error)
        return 5.0

    def _owns_rollup(self) -> bool:
        return TP(self._settings.topic(topics.PRICED), 0) in self._line.assignment()


def run(settings: Settings) -> int:
    """Run the LEDGER worker until it is told to stop; return the exit code. Raises `BrokerError` before it starts."""
    return run_stage(settings, Ledger)
