"""Mend what `verify` found, from the log outwards: ledger rows, then rollup minutes, then WATCH's totals.

Everything may be repeated: rows go back as they stand in the log, minutes are computed anew, totals are set or moved by
records of the log itself, in rounds of which an overtaken one is ignored.
"""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
from aiokafka import TopicPartition

from tollmeter.admin import corrections
from tollmeter.admin.verify import coverage, ledger, rollups, windows
from tollmeter.admin.verify.count import IDENTITY
from tollmeter.admin.verify.live import check_windows
from tollmeter.admin.verify.log import rows_replaced
from tollmeter.admin.verify.position import reader
from tollmeter.admin.verify.verdict import Broken, Options, Verdict
from tollmeter.admin.verify.windows import FOLDED, Progress, WindowCheck, WrongCell
from tollmeter.broker.client import kafka_producer, read_between
from tollmeter.broker.make import Producer
from tollmeter.schemas import topics
from tollmeter.schemas.control import Round
from tollmeter.schemas.priced import VOID
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.streams.rules.records.decode import LEDGER_COLUMNS, PricedBlock, read, to_insert
from tollmeter.streams.rules.windows.amend import Part, void
from tollmeter.streams.rules.windows.doubled import REASON
from tollmeter.streams.rules.windows.repair import REPAIR_SCHEMA
from tollmeter.streams.rules.windows.totals import MEASURES, bucket_at
from tollmeter.streams.watch.repairs import repair_records

CHECKPOINT_WAIT_S = 60.0
POLL_S = 0.2
_NOTHING = (0,) * len(MEASURES)


async def repair(settings: Settings, client: ClickHouse, verdict: Verdict, options: Options) -> list[str]:
    """Mend what can be mended and say what was done. Run `verify` again to see what is left."""
    done = await _ledger(settings, client, verdict.broken)
    if any(difference.name == "coverage_gap" for difference in verdict.differences):
        done.append(f"wrote {await coverage.refill(settings, client)} rows of coverage again, from the log")
    minutes = sorted({*verdict.broken.rollup.minutes, *_minutes(verdict.broken)})
    if minutes:
        await asyncio.to_thread(rollups.recompute, client, minutes)
        done.append(f"computed {len(minutes)} minutes of the rollup again")
    return done + await Totals(settings, client, options).mend()


async def _ledger(settings: Settings, client: ClickHouse, broken: Broken) -> list[str]:
    done = []
    for back in broken.back:
        await asyncio.to_thread(ledger.delete, client, back)
        done.append(f"deleted {back.height} voided rows that had come back")
    for wrong in broken.wrong:
        # a stray row may have any version: out with all of them, then in with what the log says
        await asyncio.to_thread(ledger.delete, client, wrong)
        done.append(f"replaced {await _reinsert(settings, client, wrong)} rows by those of the log")
    for missing in broken.missing:
        done.append(f"inserted {await _reinsert(settings, client, missing)} rows from the log")  # noqa: PERF401
    return done + await void_doubled(settings, client, broken)


async def void_doubled(settings: Settings, client: ClickHouse, broken: Broken) -> list[str]:
    """Take out what stands in the ledger beside the first time of its id, by corrections, and say what was done."""
    done = []
    for twice in broken.twice:
        rows = (await asyncio.to_thread(corrections.stored, client, twice["event_id"].unique().to_list())).filter(
            pl.col("status") != VOID
        )
        surplus = rows.join(to_void(twice), on=IDENTITY, how="semi", maintain_order="left")
        empty = void(surplus)
        parts = [
            Part(str(org), part, empty.filter(empty["org_id"] == org))
            for (org,), part in surplus.group_by("org_id", maintain_order=True)
        ]
        await corrections.send_all(settings, parts, REASON)
        done.append(f"voided {surplus.height} rows: their ids stay under the time that came first")
    return done


def to_void(twice: pl.DataFrame) -> pl.DataFrame:
    """Return the rows to take out: all but the first one in the log of each id."""
    before = pl.int_range(pl.len()).over("org_id", "event_id")
    return twice.sort("priced_offset", maintain_order=True).filter(before > 0)


def _minutes(broken: Broken) -> set[int]:
    """Return the minutes whose rows were touched."""
    frames = [*broken.back, *broken.wrong, *broken.missing]
    starts = (frame["event_time"].dt.truncate("1m").dt.epoch("s").to_list() for frame in frames)
    return {start for found in starts for start in found}


async def _reinsert(settings: Settings, client: ClickHouse, rows: pl.DataFrame) -> int:
    """Insert rows of the log into the ledger as LEDGER does; return how many."""
    count = 0
    topic = settings.topic(topics.PRICED)
    wanted = rows.select(IDENTITY)
    async with reader(settings) as consumer:
        for number, offset in rows.select("priced_partition", "priced_offset").unique().rows():
            async for record in read_between(consumer, TopicPartition(topic, number), offset, offset + 1):
                block = read(PricedBlock(number, record.offset, record.value or b""))[rows_replaced(record) :]
                keys = block.select(pl.col(name).cast(wanted.schema[name]) for name in IDENTITY)
                mine = block.with_row_index("at").filter(pl.Series(_among(keys, wanted))).drop("at")
                await asyncio.to_thread(client.insert_arrow, "usage_events", to_insert(mine), LEDGER_COLUMNS)
                count += mine.height
    return count


def _among(keys: pl.DataFrame, wanted: pl.DataFrame) -> list[bool]:
    marked = wanted.unique().with_columns(pl.lit(value=True).alias("wanted"))
    return keys.join(marked, on=IDENTITY, how="left", maintain_order="left")["wanted"].fill_null(value=False).to_list()


class Totals:
    """WATCH's totals. A sealed bucket is set to the ledger's value: no row of the log reaches it any more.

    An open one goes on moving, so it can only be moved by the difference; and a difference may lie in ClickHouse's copy
    alone. Therefore open totals are first written anew (a difference of nothing), and only what differs then is moved.
    """

    def __init__(self, settings: Settings, client: ClickHouse, options: Options) -> None:
        self._settings, self._client, self._options = settings, client, options
        self._sent: dict[int, int] = {}

    async def mend(self) -> list[str]:
        found = await self._check()
        if not found.wrong:
            return []
        before = sum(map(len, found.wrong.values()))
        await self._send(found, move=False)
        if await self._checkpointed() and (left := await self._check()).wrong:
            await self._send(left, move=True)
            await self._checkpointed()
        return [f"sent repairs of {before} totals to WATCH"]

    async def _check(self) -> WindowCheck:
        return await check_windows(self._settings, self._client, self._options.wait_s, self._options.windows_s)

    async def _send(self, found: WindowCheck, *, move: bool) -> None:
        progress = await asyncio.to_thread(windows.progress, self._client)
        async with kafka_producer(self._settings) as producer:
            for number, wrong in found.wrong.items():
                self._sent[number] = await self._send_rounds(producer, progress[number], wrong, move=move)

    async def _send_rounds(self, producer: Producer, at: Progress, wrong: Sequence[WrongCell], *, move: bool) -> int:
        """Send one round for each organisation; return the offset of the last record."""
        by_org: dict[str, list[WrongCell]] = defaultdict(list)
        for cell in wrong:
            by_org[cell.org_id].append(cell)
        offset = -1
        for org, cells in by_org.items():
            round_ = Round(id=f"verify-{uuid.uuid4().hex[:12]}", org_id=org, base=at.stamp, hours=())
            for value, headers in repair_records(round_, cells_of(cells, move=move)):
                topic = self._settings.topic(topics.PRICED)
                sent = await producer.send_and_wait(topic, value, partition=at.partition, headers=headers)
                offset = sent.offset
        return offset

    async def _checkpointed(self) -> bool:
        """Tell whether WATCH has saved what was sent, waiting for it."""
        deadline = time.monotonic() + CHECKPOINT_WAIT_S
        while time.monotonic() < deadline:
            progress = await asyncio.to_thread(windows.progress, self._client)
            if all(progress[number].applied >= offset for number, offset in self._sent.items()):
                return True
            await asyncio.sleep(POLL_S)
        return False


def cells_of(wrong: Iterable[WrongCell], *, move: bool) -> pl.DataFrame:
    """Return the cells (REPAIR_SCHEMA) of a round: sealed ones absolute, open ones by their difference if `move`."""
    rows: list[tuple[Any, ...]] = []
    for cell in wrong:
        if cell.name == FOLDED:
            continue  # which of the folded names is wrong, nobody knows any more
        values = cell.high if cell.sealed else _NOTHING
        if move and not cell.sealed:
            values = tuple(low - has for low, has in zip(cell.low, cell.window, strict=True))
        rows.append((cell.level, bucket_at(cell.level, cell.start_s), cell.scope, cell.name, cell.sealed, *values))
    return pl.DataFrame(rows, schema=REPAIR_SCHEMA, orient="row")
