"""Logs with suspects for tests of the rules about identity: rows and ticks, folded by production's own fold."""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from tests import watch_rows
from tests.laws.test_fold import Record, rows_record
from tollmeter.schemas.alert import Alert
from tollmeter.schemas.envelope import tick_record
from tollmeter.streams.rules.anomalies.layout import KEPT_WINDOWS, WINDOW
from tollmeter.streams.rules.windows.profile_rows import saved_as
from tollmeter.streams.rules.windows.state import State
from tollmeter.streams.watch.records import fold_records

USD = 10**9
Step = tuple[float, Sequence[dict[str, Any]]]
"""A time in seconds, and the columns of calls that differ."""
_pasts: dict[str, tuple[State, list[Alert]]] = {}


def tick(offset: int, at_s: float) -> Record:
    """Return a tick of both source partitions."""
    value, headers = tick_record(dict.fromkeys(range(watch_rows.RULES.sources), round(at_s * 1_000)))
    return Record(offset, 0, headers, value)


def a_log(steps: Iterable[Step], place: int = 0, number: int = 0) -> Iterator[Record]:
    """Return a log with one record of rows and a tick for each step, behind so many steps and calls."""
    for at_s, calls in steps:
        rows = [watch_rows.row(number + n, at_s, **call) for n, call in enumerate(calls)]
        yield rows_record(2 * place, rows)
        yield tick(2 * place + 1, at_s + 0.5)
        place, number = place + 1, number + len(rows)


def told(records: Iterable[Record], state: State | None = None) -> list[Alert]:
    """Fold a log record by record; return the alerts."""
    state = state or watch_rows.new_state()
    return [alert for record in records for alert in fold_records(state, [record])]


def told_after(past: Sequence[Step], steps: Iterable[Step]) -> list[Alert]:
    """Return the alerts of a log; its past is folded once for all that begin with it."""
    named = repr(past)
    if named not in _pasts:
        state = watch_rows.new_state()
        _pasts[named] = state, told(a_log(past), state)
    state, alerts = deepcopy(_pasts[named])
    return alerts + told(a_log(steps, len(past), sum(len(calls) for _, calls in past)), state)


def profiles_of(state: State) -> dict[tuple[str, str, str], tuple[int, ...]]:
    """Return every profile by its scope, but for those that nobody looks back at."""
    tables = [(kind, *table.held()[:2]) for kind, table in state.detector.tables.items()]
    newest = max(int(values[:, WINDOW].max(initial=0)) for _, _, values in tables)
    return {
        saved_as(kind, state.scopes.names[scope]): tuple(row)
        for kind, scopes, values in tables
        for scope, row in zip(scopes.tolist(), values.tolist(), strict=True)
        if row[WINDOW] >= newest - KEPT_WINDOWS
    }
