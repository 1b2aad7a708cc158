"""Do WATCH's totals equal the ledger as of the offset that its checkpoint speaks of? Every scope, open buckets too."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from tollmeter.admin.verify.count import Difference
from tollmeter.schemas.policy import SCOPE_COLUMNS
from tollmeter.schemas.progress import LogPosition
from tollmeter.schemas.progress import Progress as StoredProgress
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.rules.windows.repair import sealed
from tollmeter.streams.rules.windows.totals import MEASURES, bucket_at, bucket_start_s

EDGE_S = 5
"""Rows this close to the horizon may count as late or not: WATCH's clock also moves by ticks."""
FOLDED = "*"
_HOUR_S = 3_600


class Progress(NamedTuple):
    """A partition's checkpoint: up to where it is folded, the slowest source clock, and what waits for a repair.

    `applied` is an offset of the present log, `stamp` says the same to cells and repairs: it never falls.
    """

    partition: int
    applied: int
    stamp: int
    watermark_s: int
    deferred: frozenset[tuple[str, int]]

    def waits(self, level: str, start_s: int, org: str) -> bool:
        """Tell whether late rows of the organisation in this bucket still wait for their repair."""
        end_s = bucket_start_s(level, bucket_at(level, start_s) + 1)
        return any(
            org == waiting and start_s < (hour + 1) * _HOUR_S and hour * _HOUR_S < end_s
            for waiting, hour in self.deferred
        )


@dataclass(frozen=True, slots=True)
class WrongCell:
    """A total that differs. `window`, `low`, `high` hold MEASURES: what it is, and between what it should be."""

    level: str
    start_s: int
    org_id: str
    scope: str
    name: str
    window: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    sealed: bool

    @property
    def where(self) -> str:
        at = datetime.fromtimestamp(self.start_s, tz=UTC)
        return f"{self.level} {at:%Y-%m-%dT%H:%MZ}, org {self.org_id}, {self.scope} {self.name}".rstrip()

    def differences(self) -> Iterator[Difference]:
        for measure, has, low, high in zip(MEASURES, self.window, self.low, self.high, strict=True):
            if not low <= has <= high:
                off = low - has if has < low else has - high
                yield Difference(f"window_{measure}", self.where, off, f"the window has {has}, the ledger {low}")


@dataclass
class WindowCheck:
    compared: int = 0
    waiting: int = 0
    """Totals that lack late or corrected rows until their repair or the next checkpoint."""
    ahead: int = 0
    """Of those, totals that wait because the ledger has rows as they were corrected behind the checkpoint."""
    wrong: dict[int, list[WrongCell]] = field(default_factory=dict)
    """By partition of usage.priced."""

    def __add__(self, other: "WindowCheck") -> "WindowCheck":
        return WindowCheck(
            self.compared + other.compared,
            self.waiting + other.waiting,
            self.ahead + other.ahead,
            self.wrong | other.wrong,
        )

    def differences(self) -> list[Difference]:
        return [found for cells in self.wrong.values() for cell in cells for found in cell.differences()]


def progress(client: ClickHouse) -> dict[int, Progress]:
    """Return the newest checkpoint of each partition."""
    found = {}
    for row in client.query(load("verify_progress")):
        saved, number = StoredProgress.read(row["state"]), row["priced_partition"]
        deferred = frozenset((org, hour) for org, hour, _ in saved.deferred)
        offset, watermark_s = LogPosition.of(saved.applied).offset, (saved.watermark_ms or 0) // 1000
        found[number] = Progress(number, offset, saved.applied, watermark_s, deferred)
    return found


def check(client: ClickHouse, at: Progress, horizon_s: int, since_s: int) -> WindowCheck:
    """Compare the buckets of one partition that begin at `since_s` or later. LEDGER must be beyond `at.applied`."""
    into = WindowCheck()
    row = client.query(
        load("verify_windows"),
        {
            "partition": at.partition,
            "applied": at.applied,
            "stamp": at.stamp,
            "from": since_s,
            "late": horizon_s - EDGE_S,
            "renewed_ms": at.watermark_s * 1000 if at.stamp > at.applied else 0,
            "scopes": list(SCOPE_COLUMNS),
        },
    )[0]
    into.compared += row["compared"]
    # Asked behind the sums: what hides a row of theirs is seen here.
    later = at._replace(deferred=_corrected(client, at, since_s) if row["found"] else frozenset())
    for level, start_s, org, scope, name, _, window, low, high in row["found"]:
        ahead = later.waits(level, start_s, org)
        if ahead or at.waits(level, start_s, org):
            into.waiting += 1
            into.ahead += ahead
            into.compared -= 1
            continue
        done = sealed(level, bucket_at(level, start_s), at.watermark_s, horizon_s)
        cell = WrongCell(level, start_s, org, scope, name, tuple(window), tuple(low), tuple(high), sealed=done)
        into.wrong.setdefault(at.partition, []).append(cell)
    return into


def _corrected(client: ClickHouse, at: Progress, since_s: int) -> frozenset[tuple[str, int]]:
    """Return the hours of organisations whose rows were corrected behind the checkpoint: as of it nobody knows them."""
    wanted = {"partition": at.partition, "applied": at.applied, "from": since_s}
    return frozenset((row["org_id"], row["hour"]) for row in client.query(load("verify_corrected"), wanted))
