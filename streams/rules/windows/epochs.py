"""Logs made anew: a topic that is deleted and made again counts from 0, and old marks must not hide its records.

Inside the state offsets never fall, see `LogPosition`. A source topic is known by
the id that PRICE writes on each record; its partitions get numbers of their own in each epoch.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from tollmeter.schemas import topics
from tollmeter.schemas.alert import Alert, alert_id
from tollmeter.schemas.event import EPOCH
from tollmeter.schemas.progress import LogPosition
from tollmeter.streams.rules.windows.dedupe import Dedupe
from tollmeter.streams.rules.windows.memory import AHEAD_MS
from tollmeter.streams.rules.windows.state import State

SOURCE_BITS = 16
PIPELINE = "pipeline"
"""The scope of alerts about the line itself: they belong to no organisation."""


def source_epoch(state: State, source_id: str, appended_ms: int) -> tuple[int, list[Alert]]:
    """Return the number of the source topic's epoch, and an alert when it is a new one. "" = the present one."""
    if not source_id:
        return max(0, len(state.epochs) - 1), []
    if source_id in state.epochs:
        return state.epochs.index(source_id), []
    state.epochs.append(source_id)
    number = len(state.epochs) - 1
    return number, [_new_source(source_id, appended_ms)] if number else []


def in_epoch(rows: pl.DataFrame, number: int) -> pl.DataFrame:
    """Give the source partitions of rows the numbers that they have in an epoch."""
    return rows.with_columns(pl.col("src_partition").cast(pl.Int64) + (number << SOURCE_BITS)) if number else rows


def renew(state: State, log_id: str) -> None:
    """Go on with a log of usage.priced that was made anew: nothing of it is folded yet, and all totals stay.

    What the memory of ids was rebuilt from is the new log: all of it would be taken for resends.
    """
    begin = LogPosition.of(max(state.applied, state.base)).new_log()
    state.applied = state.lost_to = begin.stamp
    state.base = begin.stamp + 1
    state.log_id = log_id
    state.seen = Dedupe(state.rules.seen_cap)
    state.doubled.clear()


def forgotten(state: State, until_ms: int = 0) -> None:
    """Say that ids were forgotten: of those that came up to now, or to `until_ms`, nobody knows which time was first.

    A worker that ended without a checkpoint may have known, and have voided the others: nobody may void the first one
    because it comes again behind another. What is not ahead of its arrival is by AHEAD_MS at most.
    """
    known_ms = max([until_ms, *state.clocks.values()]) + AHEAD_MS
    state.doubles_from_us = max(state.doubles_from_us, known_ms * 1_000)


def missing(state: State, hours: list[tuple[str, int]]) -> None:
    """Have these hours of organisations repaired from the ledger: rows of theirs may never have been folded."""
    for org_id, hour in hours:
        state.deferred[org_id, hour] = max(state.applied, 0)
        state.quiet_hours.discard((org_id, hour))
        if state.budgets.asks_for_more(org_id):
            state.unsettled[org_id] = max(state.applied, 0)


def open_hours(state: State) -> list[tuple[str, int]]:
    """Return the hours whose event ids are forgotten with the log: a resend may be counted twice until they seal."""
    found = set()
    for hour, cells in state.levels["hour"].items():
        if (hour + 1) * 3_600_000_000 > state.remember_from_us:
            orgs = np.flatnonzero(state.scopes.of_kind(cells.scopes, "org"))
            found |= {(state.scopes.names[number][0], hour) for number in cells.scopes[orgs].tolist()}
    return sorted(found)


def _new_source(source_id: str, appended_ms: int) -> Alert:
    at: datetime = (EPOCH + timedelta(milliseconds=appended_ms)).astimezone(UTC)
    return Alert(
        id=alert_id("new_epoch", topics.EVENTS, source_id),
        kind="new_epoch",
        severity="critical",
        org_id="",
        scope=PIPELINE,
        name=topics.EVENTS,
        period=f"{at:%Y-%m-%d}",
        received_at=at,
        text=f"{topics.EVENTS} was made anew: its offsets count from 0 again, and everything in it is read",
        facts={
            "stage": "watch",
            "topic": topics.EVENTS,
            "partition": 0,
            "first_offset": 0,
            "last_offset": 0,
            "topic_id": source_id,
        },
    )
