"""The state of one partition of usage.priced: a function of that log's prefix and of nothing else.

No wall clock, no randomness, no set order: the only time it knows is `received_at` of the rows and the ticks.
"""

from dataclasses import dataclass, field

import numpy as np

from tollmeter.streams.rules.anomalies.detector import Detector
from tollmeter.streams.rules.anomalies.limits import Limits
from tollmeter.streams.rules.limits.bindings import Budgets
from tollmeter.streams.rules.windows.anomalies import SpikeFloors
from tollmeter.streams.rules.windows.cardinality import SCOPES_PER_ORG, Counts
from tollmeter.streams.rules.windows.dedupe import Dedupe
from tollmeter.streams.rules.windows.name_hashes import NameHashes, network_hash, scope_hash
from tollmeter.streams.rules.windows.scopes import Scopes
from tollmeter.streams.rules.windows.totals import COLUMNS, LEVELS, Matrix, Vector, brought_in
from tollmeter.streams.rules.windows.windows import Cells

SESSIONS_PER_ORG = 100_000
HISTORY_HOURS = 24
HISTORY_DAYS = 8
COUNTERS = ("accepted", "resends", "late_deferred", "replays", "doubled")

Identity = tuple[int, str, str]
"""Event time in microseconds since 1970 UTC, organisation, event id: what makes two rows the same call."""


@dataclass(frozen=True, slots=True)
class WatchRules:
    """What the fold is parameterised with; the same for every partition."""

    sources: int
    """Partitions of usage.events: the watermark waits for a clock of each."""
    horizon_s: int
    close_after_s: int
    seen_cap: int
    floors: SpikeFloors
    unpriced_share_pct: float
    limits: Limits
    scopes_per_org: int = SCOPES_PER_ORG
    """Names of one kind that have scopes of their own in a month, per organisation."""
    sessions_per_org: int = SESSIONS_PER_ORG
    """Sessions, and runs, that are remembered at a time, per organisation."""

    @property
    def horizon_ms(self) -> int:
        return self.horizon_s * 1000


@dataclass(slots=True)
class State:
    """Everything WATCH knows about a partition. `applied` is the last folded offset, `high` per source partition."""

    partition: int
    rules: WatchRules
    applied: int = -1
    halted: str = ""
    """Why the fold of this partition does not go on, "" while it does."""
    halted_at: int = -1
    """The place of the record that it stands at."""
    passed: set[int] = field(default_factory=set)
    """Places of records that a person has passed over."""
    base: int = 0
    """What is added to the log's offsets: in a log that was made anew they begin at 0 again, and here never fall."""
    log_id: str = ""
    """The id of the topic behind the log, "" while unknown."""
    epochs: list[str] = field(default_factory=list)
    """The ids of the source topic, one after another: a topic made anew has another one."""
    high: dict[int, int] = field(default_factory=dict)
    clocks: dict[int, int] = field(default_factory=dict)
    """Running maximum of received_at per source partition, milliseconds since 1970 UTC."""
    remember_from_us: int = 0
    """Event time from which on ids are remembered; rows from before it are deferred. Moves at barriers only."""
    lost_to: int = -1
    """The place up to which records are gone that another owner may have folded; once `applied` is beyond it, it says
    nothing any more."""
    doubles_from_us: int = 0
    """Event time from which on it is sure which of several times of an id came first: nothing of it is forgotten."""
    doubled: set[Identity] = field(default_factory=set)
    """Rows that are never counted since their id came first at another time, until the log says that they are void."""
    to_void: list[Identity] = field(default_factory=list)
    """Those of them that nobody has been told of yet; whoever voids them takes them out."""
    closed_minute: int = -1
    """Every minute before this one is closed: statistics have stepped over it."""
    closed_hour: int = -1
    ended_minute: int = -1
    """When it was last looked for sessions that are over."""
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    raised: dict[str, int] = field(default_factory=dict)
    """Alerts found at barriers, with the second at which their period is over: none is emitted twice."""
    touched: set[tuple[str, int]] = field(default_factory=set)
    """Closed buckets that a late row changed since the last barrier."""
    deferred: dict[tuple[str, int], int] = field(default_factory=dict)
    """(org_id, hour) of late rows, with the offset up to which the batch that saw the last one went: to be repaired."""
    quiet_hours: set[tuple[str, int]] = field(default_factory=set)
    """Those of them that only rows wait for that were brought in afterwards: their repair alerts nobody."""
    unread: list[tuple[int, int]] = field(default_factory=list)
    """First and last offset of records that are gone and were never folded: once LEDGER has passed them, the hours of
    those it holds are repaired."""
    repaired: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Last repair round accepted per organisation: its id, and the offset of its last record."""
    changed_policies: dict[str, bool] = field(default_factory=dict)
    """Policies, and members ("member:<id>"), set (True) or deleted (False) since the last snapshot."""
    unsettled: dict[str, int] = field(default_factory=dict)
    """Organisations whose extra totals lack rows at or before this offset: a policy came later, or the rows did."""
    touched_rolling: set[int] = field(default_factory=set)
    """Scopes with a rolling limit that used something since the last barrier."""
    touched_budgets: set[int] = field(default_factory=set)
    """Scopes with a budget of a period that used something since the last barrier."""
    to_publish: set[int] = field(default_factory=set)
    """Scopes whose spend rows have changed; whoever publishes them takes them out."""
    scopes: Scopes = field(default_factory=Scopes)
    month_names: dict[int, Counts] = field(default_factory=dict)
    """By month how many names have scopes of their own; follows from the cells."""
    budgets: Budgets = field(init=False)
    levels: dict[str, dict[int, Cells]] = field(default_factory=lambda: {level: {} for level in LEVELS})
    seen: Dedupe = field(init=False)
    detector: Detector = field(init=False)

    def __post_init__(self) -> None:
        self.seen = Dedupe(self.rules.seen_cap)
        self.budgets = Budgets(self.scopes)
        names, networks = NameHashes(self.scopes, scope_hash), NameHashes(self.scopes, network_hash)
        self.detector = Detector(self.rules.limits, names, networks)

    def cells(self, level: str, bucket: int) -> Cells:
        """Return the cells of a bucket, empty ones for a new bucket."""
        buckets = self.levels.setdefault(level, {})
        if bucket not in buckets:
            buckets[bucket] = Cells()
        return buckets[bucket]

    @property
    def newest_stamp(self) -> int:
        """Highest stamp of anything loaded: up to it, records have to be folded one by one."""
        cells = (cells.newest_stamp for buckets in self.levels.values() for cells in buckets.values())
        return max(self.detector.newest_stamp, max(cells, default=-1))

    def move_clock(self, source: int, now_ms: int) -> None:
        """Let the clock of a source partition go on. Nobody waits for one that the layout has not: it may go again."""
        if source < self.rules.sources:
            self.clocks[source] = max(now_ms, self.clocks.get(source, 0))

    def watermark_ms(self) -> int | None:
        """Return the slowest source clock; None until every source partition has one."""
        if len(self.clocks) < self.rules.sources:
            return None
        return min(self.clocks.values())

    def past_peaks(self, scopes: Vector, column: int) -> Vector:
        """Return the dearest closed minute or hour of each scope over the days in memory."""
        peaks = np.zeros(scopes.size, dtype=np.int64)
        for cells in self.levels["day"].values():
            np.maximum(peaks, cells.take(scopes)[:, column], out=peaks)
        return peaks

    def live(self, level: str, bucket: int, scopes: Vector, values: Matrix) -> Matrix:
        """Return the values of scopes in a bucket without what was brought in afterwards."""
        aside = self.levels.get(brought_in(level), {}).get(bucket)
        return values if aside is None else values - aside.take(scopes)[:, : values.shape[1]]

    def history(self, scope: int) -> Matrix:
        """Return the totals of a scope in the closed hours in memory."""
        one = np.array([scope], dtype=np.int64)
        hours = [(hour, cells) for hour, cells in sorted(self.levels["hour"].items()) if hour < self.closed_hour]
        closed = [self.live("hour", hour, one, cells.take(one)) for hour, cells in hours]
        return np.concatenate(closed) if closed else np.empty((0, len(COLUMNS)), dtype=np.int64)
