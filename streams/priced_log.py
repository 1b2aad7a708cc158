"""Records of usage.priced into a partition's state: rows in passes as long as they may be, ticks and controls between.

Everything here is decided by the log alone; how many records arrive together changes nothing.
"""

import io
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import polars as pl
import polars.selectors as cs
from aiokafka import AIOKafkaConsumer, TopicPartition

from tollmeter.schemas import topics
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.control import ControlRecord, PolicyDelete, PolicySet, Round, Tick
from tollmeter.schemas.event import EPOCH
from tollmeter.schemas.priced import (
    FORMAT_VERSION,
    H_FORMAT,
    H_KIND,
    H_REPAIR,
    KIND_CONTROL,
    KIND_REPAIR,
    KIND_ROWS,
    KIND_TICK,
)
from tollmeter.settings import Settings
from tollmeter.streams.rules.fold import COLUMNS_READ, fold_policy, fold_policy_delete, fold_rows
from tollmeter.streams.rules.landmarks import is_landmark, landmark, move_clocks
from tollmeter.streams.rules.repair import fold_repair
from tollmeter.streams.rules.state import State

log = logging.getLogger("tollmeter")

PASS_ROWS = 4_000
"""Small records are folded together up to so many rows; a large one alone, its dictionaries as they are."""
SLACK = timedelta(minutes=10)
"""How far the append time of a priced record may lie before that of its rows: clocks of brokers differ."""
OnLandmark = Callable[[State], None]
_TEXT = cs.categorical().cast(pl.String)  # each record has dictionaries of its own
_SEEN_COLUMNS = ["event_id", "event_time", "org_id"]


class NewerFormatError(Exception):
    """A record has a newer format than this version knows: upgrade LEDGER and WATCH before PRICE."""


def fold_records(state: State, records: Sequence[Any], on_landmark: OnLandmark | None = None) -> list[Alert]:
    """Fold Kafka records (offset, timestamp, headers, value) in offset order; return the alerts they cause.

    Records at or below `state.applied` are skipped. `on_landmark` is called after each landmark: the only places where
    a snapshot may be taken. Alerts at or below the newest stamp of a loaded cell were acknowledged before that cell was
    written, and are not returned again. Raises `NewerFormatError` at the first record it cannot read.
    """
    alerts: list[Alert] = []
    rows: list[pl.DataFrame] = []
    height, last = 0, -1
    newest = state.newest_stamp
    for record in records:
        if record.offset <= max(state.applied, last):
            continue
        kind = kind_of(record)
        if kind == KIND_ROWS:
            rows.append(read_rows(record.value, COLUMNS_READ))
            height, last = height + rows[-1].height, record.offset
            if height < PASS_ROWS and last > newest and not is_landmark(last):
                continue
        found = _fold_pending(state, rows, last)
        rows, height, last = [], 0, record.offset
        if kind == KIND_TICK:
            move_clocks(state, Tick.model_validate_json(record.value).clocks, last)
        elif kind == KIND_CONTROL:
            found += _fold_control(state, record)
        elif kind == KIND_REPAIR:
            found += _fold_repair(state, record)
        if kind == KIND_TICK or is_landmark(last):
            found += landmark(state, caught_up=last >= newest)
            if on_landmark is not None:
                on_landmark(state)
        if last > newest:
            alerts += found
    return alerts + _fold_pending(state, rows, last)


def _fold_pending(state: State, rows: list[pl.DataFrame], last: int) -> list[Alert]:
    if not rows:
        return []
    return fold_rows(state, rows[0] if len(rows) == 1 else pl.concat(frame.with_columns(_TEXT) for frame in rows), last)


def _fold_control(state: State, record: Any) -> list[Alert]:
    body = ControlRecord.model_validate_json(record.value).body
    if isinstance(body, PolicySet):
        return fold_policy(state, body.policy, record.offset, record.timestamp)
    assert isinstance(body, PolicyDelete)
    fold_policy_delete(state, body.policy_id, record.offset)
    return []


def _fold_repair(state: State, record: Any) -> list[Alert]:
    round_ = Round.model_validate_json(dict(record.headers)[H_REPAIR])
    return fold_repair(state, round_, pl.read_ipc_stream(io.BytesIO(record.value)), record.offset, record.timestamp)


def kind_of(record: Any) -> bytes:
    """Return the kind of a record of usage.priced. Raises `NewerFormatError` for one that is not ours to read yet."""
    headers = dict(record.headers)
    version = int(headers.get(H_FORMAT, b"0"))
    if version != FORMAT_VERSION:
        raise NewerFormatError(
            f"record {record.offset} of usage.priced has format {version}, this version reads {FORMAT_VERSION}: "
            "upgrade the ledger and watch workers before the price workers"
        )
    return bytes(headers[H_KIND])


def read_rows(value: bytes, columns: Iterable[str]) -> pl.DataFrame:
    """Return the chosen columns of one Arrow IPC stream, in this order."""
    names = list(columns)
    return pl.read_ipc_stream(io.BytesIO(value), columns=names).select(names)


async def remember(settings: Settings, state: State) -> None:
    """Rebuild the memory of event ids by reading the log back over its horizon, up to and with `state.applied`."""
    since_us = state.remember_from_us
    tp = TopicPartition(settings.topic(topics.PRICED), state.partition)
    consumer = AIOKafkaConsumer(**settings.kafka_options(), enable_auto_commit=False, max_partition_fetch_bytes=8 << 20)
    await consumer.start()
    try:
        consumer.assign([tp])
        since_ms = max(0, (EPOCH + timedelta(microseconds=since_us) - SLACK - EPOCH) // timedelta(milliseconds=1))
        found = (await consumer.offsets_for_times({tp: since_ms}))[tp]
        if found is None:
            return
        consumer.seek(tp, found.offset)
        end = min(state.applied + 1, (await consumer.end_offsets([tp]))[tp])
        position = found.offset
        while position < end:
            for record in (await consumer.getmany(tp, timeout_ms=1_000)).get(tp, []):
                position = record.offset + 1
                if record.offset <= state.applied and kind_of(record) == KIND_ROWS:
                    _remember_rows(state, read_rows(record.value, _SEEN_COLUMNS), since_us)
    finally:
        await consumer.stop()
    log.info("partition %d remembers %d event ids", state.partition, state.seen.size)


def _remember_rows(state: State, rows: pl.DataFrame, since_us: int) -> None:
    times = rows["event_time"].cast(pl.Int64).to_numpy()
    recent = times >= since_us
    if not recent.all():
        rows, times = rows.filter(pl.Series(recent)), times[recent]
    if rows.height:
        state.seen.first(times, state.scopes.text_codes(rows["org_id"]), rows["event_id"])
