"""Records of usage.priced into a partition's state: rows in batches as long as they may be, ticks and controls between.

Everything here is decided by the log alone; how many records arrive together changes nothing.
"""

import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import polars as pl
import polars.selectors as cs
from aiokafka import TopicPartition

from tollmeter.broker.client import kafka_consumer
from tollmeter.schemas import topics
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.control import Control as ControlBody
from tollmeter.schemas.control import Correction, MemberDelete, MemberSet, PolicyDelete, PolicySet, Round, Tick
from tollmeter.schemas.envelope import Broken, Control, Corrected, Newer, Repair, Rows, read_envelope, rows_of
from tollmeter.schemas.priced import FORMAT_VERSION, H_FORMAT, H_KIND, KIND_CORRECTION, KIND_ROWS
from tollmeter.schemas.progress import LogPosition
from tollmeter.schemas.record import Delivery, Headers, Record
from tollmeter.settings import Settings
from tollmeter.streams.rules.records.concat import read_concat
from tollmeter.streams.rules.records.decode import complete
from tollmeter.streams.rules.windows.barriers import barrier, is_barrier, move_clocks
from tollmeter.streams.rules.windows.controls import fold_member, fold_member_delete, fold_policy, fold_policy_delete
from tollmeter.streams.rules.windows.corrections import fold_correction, revised_ids
from tollmeter.streams.rules.windows.doubled import void_records
from tollmeter.streams.rules.windows.epochs import forgotten, in_epoch, missing, open_hours, source_epoch
from tollmeter.streams.rules.windows.fold import COLUMNS_READ, columns_read, fold_rows
from tollmeter.streams.rules.windows.repair import fold_repair
from tollmeter.streams.rules.windows.state import State

log = logging.getLogger("tollmeter")

BATCH_ROWS = 8_000
"""Records are folded together up to so many rows: most of what a fold costs it costs once."""
SLACK = timedelta(minutes=10)
"""How far the append time of a priced record may lie before that of its rows: clocks of brokers differ."""
OnBarrier = Callable[[State], None]
ReadBack = Callable[[int, int, int], AsyncIterator[Sequence[Record] | None]]
"""(partition, append time in ms, end) to the records appended since then with offsets below `end`, or a few more.

None comes first when the log no longer reaches back so far.
"""
_TEXT = cs.categorical().cast(pl.String)
_SEEN_COLUMNS = ["event_id", "event_time", "org_id"]


class RowsRead(NamedTuple):
    """Priced rows, and the id of the topic they were read of ("" = not known)."""

    rows: pl.DataFrame
    source_id: str


class CorrectionRead(NamedTuple):
    """A correction with its rows."""

    correction: Correction
    rows: pl.DataFrame


class RepairRead(NamedTuple):
    """A round of repair with its cells."""

    round: Round
    cells: pl.DataFrame


Entry = RowsRead | CorrectionRead | RepairRead | Tick | Control | Newer | Broken
"""A record of usage.priced, read."""


def fold_log(state: State, records: Sequence[Record], on_barrier: OnBarrier | None = None) -> list[Alert]:
    """Fold records as `fold_records` does; at the first one behind a loss note that ids are forgotten up to it."""
    alerts: list[Alert] = []
    if state.lost_to >= max(state.applied, 0):
        before = sum(record.offset <= state.lost_to for record in records)
        alerts, records = fold_records(state, records[:before], on_barrier), records[before:]
        if records and not state.halted:
            forgotten(state, records[0].timestamp + SLACK // timedelta(milliseconds=1))
    return alerts + fold_records(state, records, on_barrier)


def weight(delivery: Delivery) -> int:
    """Return the rows that a delivery brings; at least its records, of which most bring none on a quiet line."""
    return max(rows_of(delivery), len(delivery.value))


def fold_records(state: State, records: Sequence[Record], on_barrier: OnBarrier | None = None) -> list[Alert]:
    """Fold Kafka records (offset, timestamp, headers, value) in offset order; return the alerts they cause.

    Records at or below `state.applied` are skipped. `on_barrier` is called after each barrier: the only places where
    a snapshot may be taken. Alerts at or below the newest stamp of a loaded cell were acknowledged before that cell was
    written, and are not returned again. A record of a newer format halts the partition (`state.halted` says why); one
    that is no priced record at all is passed over, as LEDGER dead-letters it.
    """
    alerts: list[Alert] = []
    rows: list[pl.DataFrame] = []
    height, last = 0, -1
    noticed: list[Alert] = []
    newest = state.newest_stamp
    for record in records:
        if state.halted or record.offset <= max(state.applied, last):
            continue
        entry = read(record, columns_read(state))
        if isinstance(entry, Newer) and record.offset not in state.passed:
            state.halted, state.halted_at = entry.why, record.offset
            continue
        if isinstance(entry, RowsRead):
            epoch, alert = source_epoch(state, entry.source_id, record.timestamp)
            noticed += alert
            rows.append(in_epoch(entry.rows, epoch))
            height, last = height + rows[-1].height, record.offset
            if height < BATCH_ROWS and last > newest and not is_barrier(last):
                continue
        found = _fold_pending(state, rows, last) + noticed
        rows, noticed, height, last = [], [], 0, record.offset
        found += _fold_entry(state, entry, record)
        if isinstance(entry, Tick) or is_barrier(last):
            found += barrier(state, caught_up=last >= newest)
            if on_barrier is not None:
                on_barrier(state)
        if last > newest:
            alerts += found
    return alerts + _fold_pending(state, rows, last) + noticed


def _fold_entry(state: State, entry: Entry, record: Record) -> list[Alert]:
    """Fold anything but rows."""
    state.applied = record.offset
    match entry:
        case Tick(clocks=clocks):
            move_clocks(state, clocks, record.offset)
        case RepairRead(round_, cells):
            return fold_repair(state, round_, cells, record.offset, record.timestamp)
        case CorrectionRead(correction, rows):
            return fold_correction(state, correction, rows, record.offset, record.timestamp)
        case Control(body):
            return _fold_control(state, body, record.offset, record.timestamp)
    return []


def _fold_control(state: State, body: ControlBody, offset: int, appended_ms: int) -> list[Alert]:
    match body:
        case PolicySet(policy=policy):
            return fold_policy(state, policy, offset, appended_ms)
        case PolicyDelete(policy_id=policy_id):
            return fold_policy_delete(state, policy_id, offset, appended_ms)
        case MemberSet(member=member):
            return fold_member(state, member, offset, appended_ms)
        case MemberDelete(member_id=member_id):
            return fold_member_delete(state, member_id, offset, appended_ms)


def _fold_pending(state: State, rows: list[pl.DataFrame], last: int) -> list[Alert]:
    if not rows:
        return []
    if len(rows) == 1:
        return fold_rows(state, rows[0], last)
    return fold_rows(state, _together(rows), last)


def _together(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Join rows of several records: those with one dictionary as they are, others as text."""
    if len({tuple(kind for kind in frame.dtypes if isinstance(kind, pl.Categorical)) for frame in frames}) > 1:
        frames = [frame.with_columns(_TEXT) for frame in frames]
    # relaxed: the source numbers of a second epoch are wider than those of the first
    return pl.concat(frames, how="vertical_relaxed")


def read(record: Record, columns: Sequence[str] | None = COLUMNS_READ) -> Entry:
    """Return what a record of usage.priced says, its Arrow rows decoded as far as these columns; None = all it has."""
    envelope = read_envelope(record)
    try:
        match envelope:
            case Rows(value=value):
                rows = pl.read_ipc_stream(io.BytesIO(value), columns=None if columns is None else list(columns))
                return RowsRead(rows if columns is None else rows[list(columns)], envelope.source_id)
            case Corrected(correction, value):
                corrected = pl.read_ipc_stream(
                    io.BytesIO(value), columns=None if columns is None else [*columns, "revision"]
                )
                return CorrectionRead(correction, corrected)
            case Repair(round_, value):
                return RepairRead(round_, pl.read_ipc_stream(io.BytesIO(value)))
            case Broken(why):
                problem = why
            case _:
                return envelope
    except (TypeError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        problem = f"{type(error).__name__}: {error}"
    log.warning("offset %d of usage.priced is passed over: it is no priced record (%s)", record.offset, problem)
    return Broken(problem)


def voided(state: State, records: Sequence[Record]) -> list[tuple[bytes, Headers]]:
    """Return value and headers of what takes rows out of the ledger whose id came first at another time.

    `records` hold what was folded since the last call.
    """
    if not state.to_void:
        return []
    doubled, state.to_void = state.to_void, []
    entries = (read(record, None) for record in records)
    return void_records(doubled, (complete(entry.rows) for entry in entries if isinstance(entry, RowsRead)))


async def remember(read_back: ReadBack, state: State) -> None:
    """Rebuild the memory of event ids by reading the log back over its horizon, up to and with `state.applied`.

    What the log has lost of it cannot be told from a resend: the hours in question are repaired from the ledger.
    """
    since_us = state.remember_from_us
    since_ms = max(0, (timedelta(microseconds=since_us) - SLACK) // timedelta(milliseconds=1))
    end = LogPosition.of(state.applied).next_offset
    async for records in read_back(state.partition, since_ms, end):
        if records is None:
            missing(state, open_hours(state))
            forgotten(state)
        for rows in _identities([record for record in records or () if record.offset < end]):
            _remember_rows(state, rows, since_us)
    log.info("partition %d remembers %d event ids", state.partition, state.seen.size)


async def read_back(
    settings: Settings, partition: int, since_ms: int, end: int
) -> AsyncIterator[Sequence[Record] | None]:
    """Yield the records of a partition of usage.priced, see `ReadBack`."""
    tp = TopicPartition(settings.topic(topics.PRICED), partition)
    async with kafka_consumer(settings) as consumer:
        consumer.assign([tp])
        found = (await consumer.offsets_for_times({tp: since_ms}))[tp]
        first, last = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
        begin = last if found is None else found.offset
        if 0 < begin == first:
            yield None
        consumer.seek(tp, begin)
        end = min(end, last)
        while await consumer.position(tp) < end:
            yield (await consumer.getmany(tp, timeout_ms=1_000)).get(tp, [])


def _identities(records: Sequence[Record]) -> Iterator[pl.DataFrame]:
    """Yield the rows whose identities records bring; those of a correction by revision, moved ones by both."""
    kinds = [_known_kind(dict(record.headers)) for record in records]
    rows = [record for record, kind in zip(records, kinds, strict=True) if kind == KIND_ROWS]
    try:
        yield from read_concat([record.value or b"" for record in rows], _SEEN_COLUMNS)
    except (ValueError, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):  # one of them is broken
        for record in rows:
            if isinstance(entry := read(record, _SEEN_COLUMNS), RowsRead):
                yield entry.rows
    for record, kind in zip(records, kinds, strict=True):
        if kind == KIND_CORRECTION and isinstance(entry := read(record, _SEEN_COLUMNS), CorrectionRead):
            was, moved = entry.correction.was, entry.rows
            now = moved[was:]
            yield now.with_columns(revised_ids(now).alias("event_id"))
            if not entry.correction.doubled:
                yield moved[2 * was :]


def _known_kind(headers: Mapping[str, bytes]) -> bytes | None:
    """Return the kind of a record; None where its format is none that the fold reads: its rows were never folded."""
    version = headers.get(H_FORMAT, b"")
    known = version.isdigit() and len(version) < 10 and int(version) <= FORMAT_VERSION
    return headers.get(H_KIND) if known else None


def _remember_rows(state: State, rows: pl.DataFrame, since_us: int) -> None:
    times = rows["event_time"].cast(pl.Int64).to_numpy()
    recent = times >= since_us
    if not recent.all():
        rows, times = rows.filter(pl.Series(recent)), times[recent]
    if rows.height:
        state.seen.first(times, state.scopes.text_codes(rows["org_id"]), rows["event_id"])
