"""What must hold when a run is over, and while it goes on: the invariants, from the broker's logs alone.

Truth is what the broker took of the producers; nothing here asks the stages what they think they have done.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

from faust.types import TP

from tests.simulation import fold, row_state
from tests.simulation.broker import Log
from tests.simulation.columns import ColumnFolding
from tests.simulation.kernels import SETTINGS, SOURCES, totals_of
from tests.simulation.line import Line
from tests.simulation.rows import Event, Row
from tests.simulation.spend import Guard
from tests.simulation.store import minute_totals
from tests.simulation.traffic import Traffic
from tollmeter.schemas import topics
from tollmeter.schemas.control import Round
from tollmeter.schemas.priced import H_KIND, H_REPAIR, H_SOURCES, KIND_REPAIR
from tollmeter.streams.folding import rules_from
from tollmeter.streams.rules.state import State

KINDS = ("org", "user", "api_key")
"""The scopes that differ from row to row here."""


class Watcher:
    """I6, at every commit: nothing is acked before what it causes is durable."""

    def __init__(self, line: Line) -> None:
        self.problems: list[str] = []
        self._line = line
        self._checked: dict[tuple[str, TP], int] = defaultdict(int)
        self._out: set[tuple[int, int]] = set()
        """(partition, offset) of the source records of which a row or a dead letter is in the log."""
        line.broker.on_commit = self._on_commit
        line.broker.on_append.append(self._on_append)

    def _on_append(self, tp: TP) -> None:
        record = self._line.broker.logs[tp].records[-1]
        if tp.topic == topics.PRICED and dict(record.headers)[H_KIND] == b"rows":
            self._out |= {(row.src_partition, row.src_offset) for row in record.value}
        elif tp.topic == topics.DLQ:
            headers = dict(record.headers)
            self._out.add((int(headers["source_partition"]), int(headers["source_offset"])))

    def _on_commit(self, group: str, tp: TP, offset: int) -> None:
        log, store = self._line.broker.logs[tp], self._line.store
        begin = self._checked[group, tp]
        self._checked[group, tp] = max(begin, offset)
        for record in log.read(begin, offset - begin):
            if group == "price":
                if (tp.partition, record.offset) not in self._out:
                    self._note(f"I6: price committed {tp.partition}/{record.offset} before its row or dead letter")
            elif group == "ledger" and tp.topic == topics.PRICED and dict(record.headers)[H_KIND] == b"rows":
                missing = [row for row in record.value if not row.poison and row.identity not in store.events]
                if missing:
                    self._note(f"I6: ledger committed {tp.partition}/{record.offset} before its insert")

    def _note(self, text: str) -> None:
        if len(self.problems) < 3:
            self.problems.append(text)


class Oracle:
    """The state of a settled line against the truth."""

    def __init__(self, line: Line, traffic: Traffic) -> None:
        self._line, self._traffic = line, traffic
        self._broker, self._store = line.broker, line.store
        self._rows = [(record, row) for record in self._priced() for row in record.value]
        self._counted: dict[Any, Row] = {}
        """By identity the first row of all, which WATCH counts."""
        self._first: dict[Any, Row] = {}
        """By identity the first row that ClickHouse takes: the same, unless that came from the dead letters."""
        for record, row in self._rows:
            self._counted.setdefault(row.identity, row)
            if not row.poison:
                self._first.setdefault(row.identity, row._replace(priced_offset=record.offset))

    def problems(self) -> list[str]:
        """Return what is wrong, in words."""
        checks = (
            self._converged, self._ledger, self._dead_letters, self._coverage, self._windows, self._rollup,
            self._alerts, self._states, self._spend,
        )  # fmt: skip
        return [problem for check in checks for problem in check()]

    def _priced(self) -> Iterator[Any]:
        for log in self._broker.of(topics.PRICED):
            yield from (record for record in log.history if dict(record.headers)[H_KIND] == b"rows")

    def _converged(self) -> Iterator[str]:
        """I7: without a hand, nothing is left to do."""
        for group, wanted in (("price", (topics.EVENTS,)), ("ledger", (topics.PRICED, topics.ALERTS, topics.PRICES))):
            for tp, log in sorted(self._broker.logs.items()):
                at = self._broker.committed[group].get(tp, 0)
                if tp.topic in wanted and any(_kind(record) != b"tick" for record in log.read(at, log.end)):
                    yield f"I7: {group} stands at {at} of {log.end} in {tp.topic}/{tp.partition}"

    def _ledger(self) -> Iterator[str]:
        """I1, I2, I9: the accepted events, each once, as first priced."""
        sent = {
            record.value.identity: record.value
            for log in self._broker.of(topics.EVENTS)
            for record in log.history
            if isinstance(record.value, Event) and not record.value.poison
        }
        wanted = set(sent)
        yield from _differences("I1: ledger", wanted, set(self._store.events))
        prices = {"book-1": 1_000_000, "book-2": 1_700_000}
        for identity, row in sorted(self._store.events.items()):
            first = self._first[identity]
            if (row.cost_nano, row.book, row.priced_offset) != (first.cost_nano, first.book, first.priced_offset):
                yield f"I2: {row.event_id} is stored as of offset {row.priced_offset}, not of {first.priced_offset}"
            if row.cost_nano != sent[identity].units * prices[row.book]:
                yield f"I9: {row.event_id} costs {row.cost_nano}"

    def _dead_letters(self) -> Iterator[str]:
        """I1: what is no event, and what ClickHouse refuses, is named by its place."""
        wanted = {
            (tp.partition, record.offset)
            for tp, log in self._broker.logs.items()
            if tp.topic == topics.EVENTS
            for record in log.history
            if not isinstance(record.value, Event) or record.value.poison
        }
        found = set()
        for log in self._broker.of(topics.DLQ):
            for record in log.history:
                headers = dict(record.headers)
                found.add((int(headers["source_partition"]), int(headers["source_offset"])))
        yield from _differences("I1: dead letters", wanted, found)

    def _coverage(self) -> Iterator[str]:
        """I1: each source offset was read, and read = accepted + rejected."""
        covered: dict[int, set[int]] = defaultdict(set)
        passes: dict[tuple[Any, ...], list[int]] = {}
        for _, _, source, first, last, records, rejected, rows, _, boot in self._store.coverage.values():
            covered[source] |= set(range(first, last + 1))
            known = passes.setdefault((boot, source, first, last), [records, rejected, 0])
            known[2] += rows
        for log in self._broker.of(topics.EVENTS):
            yield from _differences(
                f"I1: coverage of {log.tp.partition}", set(range(log.end)), covered[log.tp.partition]
            )
        complete = self._complete_passes()
        for key, (records, rejected, rows) in sorted(passes.items()):
            if key in complete and records != rejected + rows:
                yield f"I1: pass {key} read {records}, rejected {rejected}, carried {rows}"

    def _complete_passes(self) -> set[tuple[Any, ...]]:
        """Return the passes whose rows are all in the log: a killed worker's last pass may not be."""
        carried: dict[tuple[Any, ...], int] = defaultdict(int)
        read: dict[tuple[Any, ...], int] = {}
        for record in self._priced():
            headers = dict(record.headers)
            boot = headers["boot"].decode()
            for source, first, last, records, rejected, rows in json.loads(headers[H_SOURCES]):
                carried[boot, source, first, last] += rows
                read[boot, source, first, last] = records - rejected
        return {key for key, rows in carried.items() if rows == read[key]}

    def _windows(self) -> Iterator[str]:
        """I3: WATCH's cells are the group-by of the distinct rows, late ones repaired."""
        rows = list(self._first.values())
        poison = {
            key
            for identity, row in self._counted.items()
            for stored in [self._first.get(identity, row)]
            if row.poison and (stored is row or _weight(stored) != _weight(row))
            for key in _totals_of([row, stored])
        }
        wanted = {key: totals for key, totals in _totals_of(rows).items() if any(totals) and key not in poison}
        found = {
            key: (calls, cost)
            for key, (_, calls, cost) in self._store.windows.items()
            if (calls or cost) and key not in poison and key[0] in row_state.LEVELS and key[3] in KINDS
        }
        for key in sorted({*wanted, *found}):
            if wanted.get(key) != found.get(key):
                yield f"I3: {key} is {found.get(key)}, not {wanted.get(key)}"

    def _rollup(self) -> Iterator[str]:
        """I4: the rollup is the group-by of the ledger."""
        wanted = minute_totals(self._store.events.values())
        found = {key: totals[1:] for key, totals in self._store.minutes.items() if any(totals[1:])}
        yield from _differences(
            "I4: rollup",
            set(wanted.items()),
            set(found.items()) | {item for item in wanted.items() if not any(item[1])},
        )

    def _alerts(self) -> Iterator[str]:
        """I5: the alerts of an undisturbed fold of the same log, each as one id; all of them stored."""
        wanted = {alert.id for log in self._broker.of(topics.PRICED) for alert in self._undisturbed(log)}
        sent = {json.loads(record.value)["id"] for log in self._broker.of(topics.ALERTS) for record in log.history}
        yield from _differences("I5: alerts", wanted, sent)
        yield from _differences("I5: stored alerts", sent, set(self._store.alerts))
        if not self._line.columns:  # ids differ there: the law of the two folds compares them by what they say
            yield from _differences("I5: alerts by sums", self._due_alerts(), wanted, only_missing=True)

    def _undisturbed(self, log: Log) -> list[Any]:
        """Return the alerts of one fold over a whole log."""
        if self._line.columns:
            folding = ColumnFolding(SETTINGS, self._broker, None)
            return folding.fold(State(log.tp.partition, rules_from(SETTINGS, SOURCES)), log.history, None)
        return fold.fold(row_state.RowState(log.tp.partition, SOURCES, SETTINGS.horizon_s), log.history, None)

    def _due_alerts(self) -> set[str]:
        """Return the alerts that totals ask for, of policies that were there from the start and never changed."""
        totals = _totals_of(list(self._counted.values()))
        for round_ in self._rounds():  # spend that came when its day was sealed alerts nobody
            for key in [key for key in totals if key[2] == round_.org_id]:
                if any(row_state.bucket_at(key[0], hour * 3_600) == key[1] for hour in round_.hours):
                    del totals[key]
        due = set()
        for policy in self._traffic.first_policies.values():
            if policy.policy_id in self._traffic.changed:
                continue
            for (level, bucket, *scope), (_, cost) in totals.items():
                if scope == [policy.org_id, policy.scope, policy.name]:
                    for limit in fold._limits(policy, level):
                        due |= {
                            fold.budget(policy, level, limit, bucket, pct, 0).id
                            for pct in policy.thresholds
                            if cost * 100 >= pct * limit
                        }
        return due

    def _rounds(self) -> Iterator[Round]:
        for log in self._broker.of(topics.PRICED):
            for record in log.history:
                if _kind(record) == KIND_REPAIR:
                    yield Round.model_validate_json(dict(record.headers)[H_REPAIR])

    def _spend(self) -> Iterator[str]:
        """What guards were told."""
        if self._line.columns:
            yield from islice(Guard(SETTINGS, self._broker).problems(), 3)

    def _states(self) -> Iterator[str]:
        """I3: the newest checkpoint has read its log, and counts each accepted source record once."""
        for log in self._broker.of(topics.PRICED):
            number = log.tp.partition
            if number not in self._store.progress:
                yield f"I7: partition {number} has no checkpoint"
                continue
            progress = json.loads(self._store.progress[number][1])
            accepted = {(row.src_partition, row.src_offset) for record, row in self._rows if record.partition == number}
            counted = progress["counters"]["accepted"] if self._line.columns else progress["accepted"]
            if counted != len(accepted):
                yield f"I3: partition {number} counts {counted} accepted, not {len(accepted)}"
            if progress["deferred"]:
                yield f"I7: partition {number} has {progress['deferred']} still to be repaired"


def _weight(row: Row) -> tuple[int, int]:
    return row.cost_nano, row.charged_us


def _kind(record: Any) -> bytes:
    return dict(record.headers).get(H_KIND, b"")


def _totals_of(rows: list[Row]) -> dict[row_state.Key, tuple[int, int]]:
    return {key: totals for level in row_state.LEVELS for key, totals in totals_of(level, rows).items()}


def _differences(what: str, wanted: set[Any], found: set[Any], *, only_missing: bool = False) -> Iterator[str]:
    missing, extra = wanted - found, set() if only_missing else found - wanted
    if missing:
        yield f"{what}: {len(missing)} missing, such as {min(missing)}"
    if extra:
        yield f"{what}: {len(extra)} too many, such as {min(extra)}"
