"""What must hold when a run is over: the invariants, from the broker's logs alone.

Truth is what the broker took of the producers; nothing here asks the stages what they think they have done.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from faust.types import TP

from tests.simulation import fold, limits, row_state
from tests.simulation.broker import Broker, Log
from tests.simulation.columns import ColumnFolding, rules_of
from tests.simulation.incidents import Incident, draw
from tests.simulation.kernels import SETTINGS, SOURCES, TARGETS, totals_of
from tests.simulation.line import Line
from tests.simulation.rows import Event, Row
from tests.simulation.spend import Guard, promises
from tests.simulation.store import minute_totals
from tests.simulation.traffic import Traffic
from tests.suspects import profiles_of
from tollmeter.schemas import topics
from tollmeter.schemas.control import Correction, Round
from tollmeter.schemas.priced import H_CORRECTION, H_KIND, H_REPAIR, H_SOURCE_ID, H_SOURCES, KIND_REPAIR
from tollmeter.streams.rules.limits.spend_rows import spend_rows
from tollmeter.streams.rules.windows.state import State

KINDS = ("org", "user", "api_key")
"""The scopes that differ from row to row here."""
SAID_AGAIN = ("gap", "new_epoch", "paused", "late_spend")
"""Alerts that a stage gives about its logs, when it finds something there; and about periods that are over, when a
restart has left them out of memory: a repair then tells a policy that came later what had been there before it."""


class Oracle:
    """The state of a settled line against the truth."""

    def __init__(self, line: Line, traffic: Traffic, incident: Incident | None = None) -> None:
        self._line, self._traffic, self._incident = line, traffic, incident or draw(line, 0, "")
        self._broker, self._store = line.broker, line.store
        self._rows = [(record, row) for record in self._priced() for row in record.value]
        self._undisturbed_folds: dict[TP, tuple[State, list[Any]]] = {}
        self._spend_at: dict[tuple[int, int], list[Any]] = {}
        self._counted: dict[Any, Row] = {}
        """By identity the first row of all, which WATCH counts."""
        self._first: dict[Any, Row] = {}
        """By identity the first row that ClickHouse takes: the same, unless that came from the dead letters."""
        for record, row in self._rows:
            self._counted.setdefault(row.identity, row)
            if not row.poison:
                self._first.setdefault(row.identity, row._replace(priced_offset=record.offset))
        self._stored = dict(self._first)
        """By identity what ClickHouse shall hold: the highest revision, and of those the first."""
        self._corrected: list[Row] = []
        """What corrections took away, and what they put there."""
        for record in self._of_kind(b"correction"):
            was = Correction.model_validate_json(dict(record.headers)[H_CORRECTION]).was
            self._corrected += record.value
            for row in (row for row in record.value[was:] if not row.poison):
                if row.identity not in self._stored or row.revision > self._stored[row.identity].revision:
                    self._stored[row.identity] = row._replace(priced_offset=record.offset)
        self._gone = self._incident.lost - set(self._store.events)
        """What was deleted before anybody had stored it."""

    def problems(self) -> list[str]:
        """Return what is wrong, in words."""
        return list(self.found())

    def found(self) -> Iterator[str]:
        """Find what is wrong, one after the other."""
        checks = (
            self._converged,
            self._ledger,
            self._dead_letters,
            self._coverage,
            self._windows,
            self._rollup,
            self._alerts,
            self._profiles,
            self._states,
            self._spend,
            self._declared,
            self._doubled,
        )
        for check in checks:
            yield from check()

    def _priced(self) -> Iterator[Any]:
        return self._of_kind(b"rows")

    def _of_kind(self, kind: bytes) -> Iterator[Any]:
        for log in self._broker.ever(topics.PRICED):
            yield from (record for record in log.history if dict(record.headers)[H_KIND] == kind)

    def _converged(self) -> Iterator[str]:
        """I7: without a hand, nothing is left to do."""
        for group, tp, at in behind(self._broker):
            yield f"I7: {group} stands at {at} of {self._broker.end(tp)} in {tp.topic}/{tp.partition}"

    def _ledger(self) -> Iterator[str]:
        """I1, I2, I9: the accepted events, each once, as first priced."""
        sent = {
            record.value.identity: record.value
            for log in self._broker.ever(topics.EVENTS)
            for record in log.history
            if isinstance(record.value, Event) and not record.value.poison
        }
        corrected = {
            row.identity for row in self._corrected if not row.poison
        }  # what takes a refused row out is refused
        wanted = (sent.keys() | corrected) - self._gone
        yield from _differences("I1: ledger", wanted, set(self._store.events))
        prices = {"book-1": 1_000_000, "book-2": 1_700_000}
        for identity, row in sorted(self._store.events.items()):
            first = self._stored[identity]
            stored, wanted_row = ((r.cost_nano, r.book, r.priced_offset) for r in (row, first))
            if stored != wanted_row and not self._incident.priced_lost:
                yield f"I2: {row.event_id} is stored as of offset {row.priced_offset}, not of {first.priced_offset}"
            if not row.revision and row.cost_nano != sent[identity].units * prices[row.book]:
                yield f"I9: {row.event_id} costs {row.cost_nano}"

    def _dead_letters(self) -> Iterator[str]:
        """I1: what is no event, and what ClickHouse refuses, is named by its place."""
        wanted = {
            (log.tp.partition, record.offset)
            for log in self._broker.ever(topics.EVENTS)
            for record in log.history
            if not isinstance(record.value, Event)
        }
        for record in self._priced():  # of resends in one record LEDGER takes the first
            first = {row.identity: (row.src_partition, row.src_offset) for row in reversed(record.value) if row.poison}
            wanted |= set(first.values())
        found = set()
        for log in self._broker.of(topics.DLQ):
            for record in log.history:
                headers = dict(record.headers)
                found.add((int(headers["source_partition"]), int(headers["source_offset"])))
        if self._incident.declared:  # nobody may have read them before they were deleted
            wanted &= found
        yield from _differences("I1: dead letters", wanted, found)

    def _coverage(self) -> Iterator[str]:
        """I1: each source offset was read, and read = accepted + rejected."""
        if self._incident.priced_lost:
            return  # coverage says which record of usage.priced told it, and that may be gone
        covered: dict[tuple[str, int], set[int]] = defaultdict(set)
        passes: dict[tuple[Any, ...], int] = defaultdict(int)
        for number, offset, source, first, last, records, rejected, rows, _, boot in self._store.coverage.values():
            told_by = self._broker.logs[TP(topics.PRICED, number)].history[offset]
            covered[_source_id(told_by), source] |= set(range(first, last + 1))
            # with its counts: where the topic was made anew, one process may have read the same offsets twice
            passes[boot, source, first, last, records, rejected] += rows
        for log in self._broker.ever(topics.EVENTS):
            known_lost = self._lost_offsets(log)
            found = covered[log.log_id, log.tp.partition]
            wanted = set(range(len(log.history))) - (known_lost - found)
            # whoever had not heard yet that the topic was made anew took it for the old one
            once = self._incident.declared == "new_epoch"
            yield from _differences(f"I1: coverage of {log.tp.partition}", wanted, found, only_missing=once)
        complete = self._complete_passes()
        for key, rows in sorted(passes.items()):
            *_, records, rejected = key
            if key in complete and records != rejected + rows:
                yield f"I1: pass {key} read {records}, rejected {rejected}, carried {rows}"

    def _lost_offsets(self, log: Log) -> set[int]:
        """Return the source offsets that were deleted, as far as somebody declared them or their topic is gone."""
        if log in self._broker.former:
            return set(range(len(log.history)))
        found = set()
        for stage, partition, first, last, kind, topic, _ in self._store.gaps:
            if (stage, partition, kind, topic) == ("price", log.tp.partition, "gap", topics.EVENTS):
                found |= set(range(first, last + 1))
        return found

    def _declared(self) -> Iterator[str]:
        """What is gone was said: as a gap, or as another log under the name; and no more than was deleted."""
        kinds = {(kind, topic) for _, _, _, _, kind, topic, _ in self._store.gaps}
        known = True
        if self._incident.topic == topics.EVENTS and self._broker.former:
            read = {(record.partition, _source_id(record)) for record, _ in self._rows}
            old, new = self._broker.former[0].log_id, self._broker.topic_id(topics.EVENTS)
            # the first row of the new one tells
            known = any({(number, old), (number, new)} <= read for number in range(TARGETS))
        if self._gone and known and (self._incident.declared, self._incident.topic) not in kinds:
            yield f"I1: {len(self._gone)} events are gone, and nobody says so"
        yield from (
            f"I1: {kind} of {topic} is declared, and was none"
            for kind, topic in kinds
            if (kind, topic) != (self._incident.declared, self._incident.topic)
        )
        for stage, partition, first, last, kind, topic, _ in self._store.gaps:
            if kind == "gap" and last >= self._broker.logs[TP(topic, partition)].first:
                yield f"I1: {stage} declares {first} to {last} of {topic}/{partition} as gone, and they are not"

    def _doubled(self) -> Iterator[str]:
        """Of an id with several times the first in the log counts, everywhere and without a hand.

        Beyond the horizon, and of what is ahead of its arrival, nobody is held to it here. What ClickHouse refuses
        counts nowhere, and once it is taken like any other.
        """
        told = [row for record in self._of_kind(b"correction") for row in record.value if _voids(record)]
        void, taken = {row.identity for row in told}, {row.identity for row in told if not row.poison}
        times: dict[tuple[str, str], dict[Any, Row]] = defaultdict(dict)
        stored, sealed = set[Any](), set[Any]()
        clocks: dict[int, int] = defaultdict(int)
        for record, row, brought in self._told():
            clocks[record.partition] = max(clocks[record.partition], row.received_ms, record.timestamp * brought)
            known = times[row.org, row.event_id]
            first = known.setdefault(row.identity, row)
            if (first is not row and row.poison) or row.identity in stored:
                continue
            if not row.poison:
                stored.add(row.identity)
            if len(known) == 1 and row.identity in void and not self._incident.declared:  # what came before may be gone
                yield f"I10: {row.event_id} at {row.event_us} came first and is void"
            since_us = (clocks[record.partition] - SETTINGS.horizon_s * 1000) * 1000
            if brought and row.charged_us < since_us:  # its hour is sealed: it reaches the windows by repair alone
                sealed.add(row.identity)
            sure = [one for one in known.values() if one.event_us >= since_us and not _ahead(one)]
            sure = [one for one in sure if one.identity not in sealed and (one is first or one.identity not in void)]
            counts = row.identity in stored and row.identity not in taken
            if counts and first in sure[1:] and not brought and not self._incident.declared:
                yield f"I10: {row.event_id} counts at {row.event_us}, too"
        for (_, event_id), identities in times.items():
            if void.issuperset(identities):
                yield f"I10: {event_id} counts at none of its times"

    def _told(self) -> Iterator[tuple[Any, Row, bool]]:
        """Yield the rows that bring an identity, in log order; True of those that an operator moved there."""
        for log in self._broker.ever(topics.PRICED):
            for record in log.history:
                headers = dict(record.headers)
                if headers[H_KIND] == b"rows":
                    yield from ((record, row, False) for row in record.value)
                elif headers[H_KIND] == b"correction" and not _voids(record):
                    was = Correction.model_validate_json(headers[H_CORRECTION]).was
                    yield from ((record, row, True) for row in record.value[2 * was :])

    def _complete_passes(self) -> set[tuple[Any, ...]]:
        """Return the batches whose rows are all in the log: a killed worker's last batch may not be."""
        carried: dict[tuple[Any, ...], int] = defaultdict(int)
        for record in self._priced():
            headers = dict(record.headers)
            boot = headers["boot"].decode()
            for source, first, last, records, rejected, rows in json.loads(headers[H_SOURCES]):
                carried[boot, source, first, last, records, rejected] += rows
        return {key for key, rows in carried.items() if rows == key[-2] - key[-1]}

    def _windows(self) -> Iterator[str]:
        """I3: WATCH's cells are the group-by of the distinct rows, late ones repaired."""
        rows = list((self._store.events if self._incident.priced_lost else self._stored).values())
        poison = {
            key
            for identity, row in self._counted.items()
            for stored in [self._first.get(identity, row)]
            if row.poison and (stored is row or _weight(stored) != _weight(row))
            for key in _totals_of([row, stored])
        }
        # what LEDGER lost WATCH may have counted; sent again, it may stand at another time in the ledger
        told = [*(row for _, row in self._rows), *self._corrected]
        poison |= set(_totals_of([row._replace(void=False) for row in told if row.identity in self._incident.lost]))
        wanted = {key: totals for key, totals in _totals_of(rows).items() if any(totals) and key not in poison}
        found = {
            key: (calls, cost)
            for key, (_, calls, cost) in self._store.windows.items()
            if (calls or cost) and key not in poison and key[0] in row_state.LEVELS and key[3] in KINDS
        }
        # an open day takes the change of an hour, and a checkpoint may have been under way when the log went
        levels = row_state.LEVELS[:2] if self._incident.priced_lost else row_state.LEVELS
        for key in sorted({*wanted, *found}):
            if key[0] in levels and wanted.get(key) != found.get(key):
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
        told = [json.loads(record.value) for log in self._broker.of(topics.ALERTS) for record in log.history]
        yield from _differences("I5: stored alerts", {alert["id"] for alert in told}, set(self._store.alerts))
        if self._incident.priced_lost:
            return  # what was folded is no function of one log
        found = [alert for log in self._broker.of(topics.PRICED) for alert in self._undisturbed(log)]
        wanted = {alert.id for alert in found if not _of_policy(alert.scope, alert.facts)}
        told = [alert for alert in told if not _of_policy(alert["data"]["scope"], alert["data"])]
        sent = {alert["id"] for alert in told if alert["data"]["kind"] not in SAID_AGAIN or alert["id"] in wanted}
        yield from _differences("I5: alerts", wanted, sent)
        if not self._line.columns:  # ids differ there: the law of the two folds compares them by what they say
            yield from _differences("I5: alerts by sums", self._due_alerts(), wanted, only_missing=True)

    def _undisturbed(self, log: Log) -> list[Any]:
        """Return the alerts of one fold over a whole log."""
        if self._line.columns:
            return self._folded(log)[1]
        return fold.fold(row_state.RowState(log.tp.partition, SOURCES, SETTINGS.horizon_s), log.history, None)

    def _folded(self, log: Log) -> tuple[State, list[Any]]:
        """Return the state and the alerts of one fold over a whole log, by columns; note what guards shall read."""
        if log.tp not in self._undisturbed_folds:
            number = log.tp.partition
            state, folding = State(number, rules_of(SETTINGS, SOURCES)), ColumnFolding(SETTINGS, self._broker, None)
            stamps = {promise.stamp for _, promise in promises(self._broker) if promise and promise.partition == number}
            alerts: list[Any] = []
            begin = 0
            for stamp in sorted(stamps):
                alerts += folding.fold(state, log.history[begin : stamp + 1], None)
                self._spend_at[number, stamp] = spend_rows(state, state.budgets.scopes)
                begin = max(begin, stamp + 1)
            alerts += folding.fold(state, log.history[begin:], None)
            self._undisturbed_folds[log.tp] = state, alerts
        return self._undisturbed_folds[log.tp]

    def _profiles(self) -> Iterator[str]:
        """I5: what the rules about identity remember is what an undisturbed fold does, bit by bit."""
        if not self._line.columns or self._incident.priced_lost:
            return
        for log in self._broker.of(topics.PRICED):
            state, number = self._folded(log)[0], log.tp.partition
            wanted = {scope: np.array(row, dtype="<i8").tobytes() for scope, row in profiles_of(state).items()}
            found = {key[1:]: row["state"] for key, row in self._store.profiles.items() if key[0] == number}
            for scope in sorted(wanted):
                if wanted[scope] != found.get(scope):
                    yield f"I5: the profile of {scope} in partition {number} differs"

    def _due_alerts(self) -> set[str]:
        """Return the alerts that totals ask for, of policies that were there from the start and never changed."""
        totals = _totals_of(list(self._counted.values()))
        for round_ in self._rounds():  # spend that came when its day was sealed alerts nobody
            for key in [key for key in totals if key[2] == round_.org_id]:
                if any(row_state.bucket_at(key[0], hour * 3_600) == key[1] for hour in round_.hours):
                    del totals[key]
        for key in _totals_of([row._replace(void=False) for row in self._corrected]):
            totals.pop(key, None)
        due = set()
        for policy in self._traffic.first_policies.values():
            if policy.policy_id in self._traffic.changed:
                continue
            for (level, bucket, *scope), (_, cost) in totals.items():
                if scope == [policy.org_id, policy.scope, policy.name]:
                    for limit in fold._limits(policy, level):
                        due |= {
                            fold.budget(policy, level, limit, bucket, pct, 0, policy.name).id
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
        if self._line.columns and not self._incident.priced_lost:
            for log in self._broker.of(topics.PRICED):
                self._folded(log)
            yield from islice(Guard(self._broker, self._spend_at).problems(), 3)
            yield from islice(limits.wrong(self._line), 3)
            yield from islice(limits.told(self._line), 3)

    def _states(self) -> Iterator[str]:
        """I3: the newest checkpoint has read its log, and counts each accepted source record once."""
        for log in self._broker.of(topics.PRICED):
            number = log.tp.partition
            if number not in self._store.progress:
                yield f"I7: partition {number} has no checkpoint"
                continue
            progress = json.loads(self._store.progress[number][1])
            accepted = {
                (_source_id(record), row.src_partition, row.src_offset)
                for record, row in self._rows
                if record.partition == number
            }
            counted = progress["counters"]["accepted"] if self._line.columns else progress["accepted"]
            # what one worker had read and another found deleted comes behind what followed: repaired, and not counted;
            # so does what was read of a new topic by a worker that took it for the old one
            known = counted <= len(accepted) if self._incident.declared else counted == len(accepted)
            if not known and not self._incident.priced_lost:
                yield f"I3: partition {number} counts {counted} accepted, not {len(accepted)}"
            if progress["deferred"] or progress["unread"]:
                yield f"I7: partition {number} has {progress['deferred']} and {progress['unread']} still to be repaired"


def behind(broker: Broker) -> Iterator[tuple[str, TP, int]]:
    """Yield the groups that have not committed what is theirs to store: group, partition, and where it stands."""
    for group, wanted in (("price", (topics.EVENTS,)), ("ledger", (topics.PRICED, topics.ALERTS, topics.PRICES))):
        for tp, log in sorted(broker.logs.items()):
            at = broker.committed[group].get(tp, 0)
            left = {_kind(record) for record in log.read(at, log.end)}
            if tp.topic in wanted and left - {b"tick", KIND_REPAIR}:  # of those LEDGER stores nothing
                yield group, tp, at


def _weight(row: Row) -> tuple[int, int]:
    return row.cost_nano, row.charged_us


def _of_policy(scope: str, facts: Any) -> bool:
    """Tell whether an alert is about totals that begin with a policy.

    Settling makes them whole, and what it finds missing depends on the checkpoint that a worker began at.
    """
    plain = facts.get("window") in (None, "minute", "hour", "day", "month") and facts.get("timezone", "UTC") == "UTC"
    return scope in ("tag", "session", "run") or not plain


def _voids(record: Any) -> bool:
    return Correction.model_validate_json(dict(record.headers)[H_CORRECTION]).doubled


def _ahead(row: Row) -> bool:
    return row.event_us > (row.received_ms + 600_000) * 1000


def _source_id(record: Any) -> str:
    source_id: bytes = dict(record.headers)[H_SOURCE_ID]
    return source_id.decode()


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
