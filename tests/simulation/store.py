"""ClickHouse in memory: tables are sets in which the highest version wins, and statements fail as they do out there.

A statement may be refused, applied in part, applied without an answer, or applied a while after that was given up.
"""

import io
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from tests.simulation.row_state import LEVELS, Key, bucket_at
from tests.simulation.rows import Row
from tests.simulation.tags import named_by_id
from tests.simulation.world import Process, World
from tollmeter.schemas.policy import ASKED_COLUMNS
from tollmeter.sinks.clickhouse.client import Rejected, Unavailable
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.windows.profile_rows import PROFILE_SCHEMA
from tollmeter.streams.rules.windows.snapshot import CELL_SCHEMA
from tollmeter.streams.rules.windows.totals import MEASURES

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATEMENTS = (
    "rollup_progress",
    "rollup_dirty",
    "rollup_recompute",
    "watch_progress",
    "watch_policies",
    "watch_cells",
    "watch_profiles",
    "gap_hours",
    "repair_extras",
    "repair_ahead",
)
QUERIES = {load(name): name for name in STATEMENTS}
MINUTE_US = 60_000_000
OF_EACH_CALL = {"input_tokens": 10, "output_tokens": 2, "spend_eur_nano": 90}
"""What rows have beside their cost where production's fold reads them."""


class Store:
    """The tables. `on_rows` is told of every row that becomes visible."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.events: dict[tuple[int, str, str], Row] = {}
        self.inserted: list[tuple[int, int]] = []
        """(inserted_at, minute) of every physical row, microseconds."""
        self.coverage: dict[tuple[int, int, int], tuple[Any, ...]] = {}
        self.alerts: dict[str, str] = {}
        self.windows: dict[Key, tuple[int, int, int]] = {}
        """Cell to (stamp, calls, cost)."""
        self.whole_cells: dict[Key, dict[str, Any]] = {}
        """Cells with all their columns, where production's own checkpoints wrote them."""
        self.profiles: dict[tuple[Any, ...], dict[str, Any]] = {}
        """What production remembers of a scope, by partition and scope."""
        self.policies: dict[tuple[int, str], tuple[int, int, str]] = {}
        self.progress: dict[int, tuple[int, str]] = {}
        self.minutes: dict[tuple[Any, ...], tuple[int, int, int]] = {}
        """Group to (computed_at, calls, cost)."""
        self.covered_until_us = 0
        self.books: set[str] = set()
        self.gaps: set[tuple[Any, ...]] = set()
        """Declared losses: stage, partition, first and last offset, kind, topic, topic id."""
        self.physical = 0

    def now_us(self) -> int:
        return int(self.world.wall() * 1_000_000)

    def insert(self, table: str, rows: Sequence[Any], inserted_us: int) -> None:
        put: Callable[[Any, int], None] = getattr(self, f"_put_{table}")
        for row in rows:
            put(row, inserted_us)

    def _put_usage_events(self, row: Row, inserted_us: int) -> None:
        self.physical += 1
        self.inserted.append((inserted_us, row.event_us // MINUTE_US))
        old = self.events.get(row.identity)
        if old is None or row.version >= old.version:
            self.events[row.identity] = row

    def _put_ledger_coverage(self, row: Sequence[Any], _us: int) -> None:
        self.coverage[row[0], row[1], row[2]] = tuple(row)

    def _put_ledger_gaps(self, row: Sequence[Any], _us: int) -> None:
        self.gaps.add(tuple(row))

    def _put_alerts(self, row: Sequence[Any], _us: int) -> None:
        self.alerts[json.loads(row[0])["id"]] = row[0]

    def _put_usage_windows(self, row: Any, _us: int) -> None:
        whole = row if isinstance(row, dict) else {}
        key, stamp, calls, cost_nano = row if not whole else _cell(row)
        if stamp >= self.windows.get(key, (-1,))[0]:
            self.windows[key] = stamp, calls, cost_nano
            self.whole_cells[key] = whole

    def _put_watch_profiles(self, row: dict[str, Any], _us: int) -> None:
        key = row["priced_partition"], row["org_id"], row["scope"], row["name"]
        if key not in self.profiles or row["stamp"] >= self.profiles[key]["stamp"]:
            self.profiles[key] = row

    def _put_watch_policies(self, row: Sequence[Any], _us: int) -> None:
        partition, policy_id, stamp, deleted, policy = row
        if stamp >= self.policies.get((partition, policy_id), (-1,))[0]:
            self.policies[partition, policy_id] = stamp, deleted, policy

    def _put_watch_progress(self, row: Sequence[Any], _us: int) -> None:
        partition, _applied, stamp, state = row
        if stamp >= self.progress.get(partition, (-1,))[0]:
            self.progress[partition] = stamp, state

    def _put_price_rules(self, row: Sequence[Any], _us: int) -> None:
        self.books.add(row[0])

    _put_fx_rates = _put_price_rules

    def _put_rollup_progress(self, row: Sequence[Any], _us: int) -> None:
        self.covered_until_us = max(self.covered_until_us, _micros(row[1]))

    # production's checkpoints -----------------------------------------------------------------------------------------

    def watch_progress(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = self.progress.get(wanted["partition"])
        return [] if found is None else [{"state": found[1]}]

    def watch_policies(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {"policy_id": policy_id, "policy": policy}
            for (partition, policy_id), (_, deleted, policy) in sorted(self.policies.items())
            if partition == wanted["partition"] and not deleted
        ]

    def watch_cells(self, wanted: Mapping[str, Any]) -> bytes:
        since = {level: wanted[f"{level}s_from"] for level in ("minute", "hour", "day", "month")}
        rows = [
            row
            for row in self.whole_cells.values()
            if row["priced_partition"] == wanted["partition"]
            and row["bucket"] >= since.get(row["level"], wanted["extras_from"])
            and (row["scope"] not in ASKED_COLUMNS or row["calls"] or row["stamp"] > wanted["applied"])
        ]
        out = io.BytesIO()
        pl.DataFrame(rows, schema=CELL_SCHEMA).write_ipc_stream(out)
        return out.getvalue()

    def watch_profiles(self, wanted: Mapping[str, Any]) -> bytes:
        rows = [row for key, row in sorted(self.profiles.items()) if key[0] == wanted["partition"]]
        out = io.BytesIO()
        found = pl.DataFrame(rows, schema=PROFILE_SCHEMA)
        found.with_columns(pl.col("state").bin.encode("base64")).write_ipc_stream(out)
        return out.getvalue()

    def gap_hours(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = (row for row in self.events.values() if row.priced_partition == wanted["partition"])
        inside = (row for row in rows if wanted["first"] <= row.priced_offset <= wanted["last"] or row.revision)
        found = sorted({(row.org, row.charged_us // (60 * MINUTE_US)) for row in inside})
        return [{"org_id": org, "hour": hour} for org, hour in found]

    # backfill ---------------------------------------------------------------------------------------------------------

    def repair_extras(self, wanted: Mapping[str, Any]) -> bytes:
        found: dict[tuple[int, str, str], dict[str, int]] = {}
        for row in self._asked_about(wanted):
            if row.priced_offset > wanted["upto"] or row.void:
                continue
            step = wanted["step"]
            start_s = row.charged_us // 1_000_000 // step * step if step else wanted["from"]
            named = {"org": "", "user": row.user, "api_key": row.key, **named_by_id(row.event_id)}
            for kind in wanted["kinds"]:
                name = named.get(kind)
                if name is None or (not name and kind != "org"):
                    continue
                totals = found.setdefault((start_s, kind, name), dict.fromkeys(MEASURES, 0))
                sums = {"calls": 1, "cost_nano": row.cost_nano, **OF_EACH_CALL}
                for measure, value in sums.items():
                    totals[measure] += value
        rows = [
            {"start_s": at, "scope": kind, "name": name, **sums} for (at, kind, name), sums in sorted(found.items())
        ]
        schema: Any = {"start_s": pl.Int64, "scope": pl.String, "name": pl.String, **dict.fromkeys(MEASURES, pl.Int64)}
        out = io.BytesIO()
        pl.DataFrame(rows, schema=schema).write_ipc_stream(out)
        return out.getvalue()

    def repair_ahead(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        ahead = [row for row in self._asked_about(wanted) if row.revision and row.priced_offset > wanted["upto"]]
        return [{"n": len(ahead)}]

    def _asked_about(self, wanted: Mapping[str, Any]) -> list[Row]:
        return [
            row
            for row in self.events.values()
            if (row.org, row.priced_partition) == (wanted["org"], wanted["partition"])
            and wanted["from"] <= row.charged_us // 1_000_000 < wanted["until"]
        ]

    # the rollup's statements ------------------------------------------------------------------------------------------

    def rollup_progress(self, _parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        now = EPOCH + timedelta(microseconds=self.now_us())
        covered = EPOCH + timedelta(microseconds=self.covered_until_us)
        return [{"now": now, "covered_until": covered, "created_at": now - timedelta(days=1)}]

    def rollup_dirty(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        now_us, since_us = _micros(wanted["now"]), _micros(wanted["covered_until"])
        computed: dict[int, int] = defaultdict(int)
        for key, (at_us, _, _) in self.minutes.items():
            computed[key[0]] = max(computed[key[0]], at_us)
        found: dict[int, list[int]] = defaultdict(list)
        for inserted_us, minute in self.inserted:
            if inserted_us >= since_us:
                found[minute].append(inserted_us)
        dirty = []
        for minute, times in sorted(found.items()):
            reached = computed[minute] - wanted["slack_us"]
            if max(times) < reached:
                continue
            uncovered = max(min(times), reached)
            quiet = now_us - max(times) >= wanted["quiet_us"] or now_us - uncovered >= wanted["gap_us"]
            due = quiet and now_us - computed[minute] >= wanted["gap_us"]
            dirty.append({"minute": minute * 60, "rows": len(times), "due": due, "uncovered": uncovered})
        first = EPOCH + timedelta(microseconds=min((row["uncovered"] for row in dirty), default=0))
        dirty.sort(key=lambda row: (not row["due"], row["minute"]))
        return [{**row, "dirty": len(dirty), "uncovered_from": first} for row in dirty]

    def rollup_recompute(self, wanted: Mapping[str, Any]) -> None:
        minutes, now_us = {second // 60 for second in wanted["minutes"]}, self.now_us()
        emptied = {key: (0, 0) for key in self.minutes if key[0] in minutes}
        for key, totals in (emptied | minute_totals(self.events.values(), minutes)).items():
            self.minutes[key] = now_us, *totals


def minute_totals(rows: Any, minutes: set[int] | None = None) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Return calls and cost by (minute, org, key) of event time."""
    found: dict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in rows:
        minute = row.event_us // MINUTE_US
        if not row.void and (minutes is None or minute in minutes):
            calls, cost = found[minute, row.org, row.key]
            found[minute, row.org, row.key] = calls + 1, cost + row.cost_nano
    return dict(found)


def _cell(row: Mapping[str, Any]) -> tuple[Key, int, int, int]:
    level, start_s = row["level"], int(row["bucket"].timestamp())
    bucket = bucket_at(level, start_s) if level in LEVELS else start_s // 900
    key = row["level"], bucket, row["org_id"], row["scope"], row["name"]
    return key, row["stamp"], row["calls"], row["cost_nano"]


def _micros(at: Any) -> int:
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - EPOCH) // timedelta(microseconds=1)


def _some(rows: Sequence[Any], rng: random.Random) -> list[Any]:
    """Return the rows that an insert of which a part was applied has left: those of one event lie in one part."""
    kept: dict[Any, bool] = {}
    return [
        row for place, row in enumerate(rows) if kept.setdefault(getattr(row, "identity", place), rng.random() < 0.5)
    ]


class Client:
    """One process's connection; stands in for `sinks.clickhouse.ClickHouse`."""

    def __init__(self, store: Store, process: Process, timeout_s: float) -> None:
        self._store, self._process, self._timeout_s = store, process, timeout_s

    def insert_arrow(self, table: str, stream: Any, _columns: Sequence[str]) -> None:
        """Insert rows, encoded or not."""
        if isinstance(stream, bytes):
            stream = pl.read_ipc_stream(io.BytesIO(stream)).to_dicts()
        if table == "usage_events" and any(row.poison for row in stream):
            self._process.point()
            raise Rejected("a row is wrong", 117)
        self._insert(table, stream)

    def insert_rows(self, table: str, _columns: Sequence[str], rows: Any) -> None:
        self._insert(table, list(rows))

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        self._ask()
        return getattr(self._store, QUERIES[sql])(parameters or {})

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.query(sql, parameters)
        if self._store.world.chance(self._store.world.faults.store_lost):
            raise Unavailable("no answer")

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> bytes:
        answer: bytes = self.query(sql, parameters)
        return answer

    def close(self) -> None:
        """Nothing to close."""

    def _ask(self) -> None:
        self._process.point()
        if self._store.world.chance(self._store.world.faults.store_away):
            raise Unavailable("away")

    def _insert(self, table: str, rows: Sequence[Any]) -> None:
        """Apply an insert: whole, in part, late or not at all."""
        if not rows:
            return
        self._ask()
        world, store, at = self._store.world, self._store, self._store.now_us()
        if world.chance(world.faults.store_half):
            store.insert(table, _some(rows, world.rng), at)
            raise Unavailable("no answer")
        if world.chance(world.faults.store_lost):
            if world.rng.random() < 0.5:
                store.insert(table, rows, at)
            else:
                delay = world.rng.random() * self._timeout_s
                world.after(delay, lambda: store.insert(table, rows, store.now_us() - int(delay * 1e6)))
            raise Unavailable("no answer")
        store.insert(table, rows, at)
        self._process.point()
