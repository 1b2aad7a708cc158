"""The minute rollup: a minute that changed is computed again from the ledger, as absolute values; the newest wins.

Why it is exact: the ledger read with FINAL is a set, the recomputation a pure function of it, and a minute stays dirty
while any of its rows was inserted at or after `computed_at - slack`. The slack is longer than an insert can take, so no
row becomes visible behind a computation that should have held it. All times are the server's and nothing is remembered
here: a run may die anywhere, and another may run beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import perf_counter

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment

SHARE = 0.05
"""Part of the time that the rollup may take; the pause after a step follows from it."""

SLACK_MARGIN_S = 15.0
_QUIET = timedelta(minutes=2)
"""How far behind the progress may stay noted while nothing comes: the next scan looks at so much more, of nothing."""
GAP_FACTOR = 10
"""A minute that keeps changing is computed every GAP_FACTOR × quiet seconds: no more often, and no later."""
_LEAST_QUIET_S = 0.2

# Bounds of one step and of one statement; what is left over waits for the next step.
_MINUTES_PER_STEP = 10_000
_STATEMENTS_PER_STEP = 50
_MINUTES_PER_STATEMENT = 2_000
_ROWS_PER_STATEMENT = 500_000
_JUMP_S = 3_600  # a statement reads the whole range between its minutes: scattered ones go apart

# A minute of which retention may have deleted rows is never computed again. Rows are deleted N days after their call or
# their arrival: younger minutes are whole, and so is everything in a database much younger than N.
_WHOLE_PART = 0.9
_YOUNG_PART = 0.5
_YOUNG_LEAST_DAYS = 30


@dataclass(frozen=True, slots=True)
class RollupResult:
    """What one step did. `waiting` minutes are dirty but not quiet yet, or left for the next step."""

    minutes: int
    waiting: int
    seconds: float
    pause_s: float


def step(client: ClickHouse, settings: Settings) -> RollupResult:
    """Compute the dirty minutes that are due, up to a bound; call it again after `pause_s`.

    Raises `Unavailable`; nothing is lost then, the next step covers more.
    """
    started = perf_counter()
    quiet_s = settings.rollup_quiet_s
    slack = timedelta(seconds=settings.clickhouse_timeout_s + SLACK_MARGIN_S)
    state = client.query(load("rollup_progress"))[0]
    now: datetime = state["now"]
    dirty = client.query(
        load("rollup_dirty"),
        {
            "covered_until": moment(state["covered_until"]),
            "oldest": moment(_oldest(now, state["created_at"], settings.retention_events_days)),
            "now": moment(now),
            "slack_us": _micros(slack),
            "quiet_us": _micros(timedelta(seconds=quiet_s)),
            "gap_us": _micros(timedelta(seconds=quiet_s * GAP_FACTOR)),
            "limit": _MINUTES_PER_STEP,
        },
    )
    done = 0
    due = [(row["minute"], row["rows"]) for row in dirty if row["due"]]
    for number, minutes in enumerate(_statements(due)):
        if number == _STATEMENTS_PER_STEP:
            break
        client.command(load("rollup_recompute"), {"minutes": list(minutes)})
        done += len(minutes)
    # As of the scan, hence before the statements: the next scan finds their minutes clean and moves on.
    covered_until = min(dirty[0]["uncovered_from"], now - slack) if dirty else now - slack
    if covered_until > state["covered_until"] + (timedelta() if dirty else _QUIET):
        client.insert_rows("rollup_progress", ("name", "covered_until"), [("usage_minutes", covered_until)])
    seconds = perf_counter() - started
    pause_s = _pause(seconds, quiet_s, left=len(due) > done)
    return RollupResult(done, (dirty[0]["dirty"] if dirty else 0) - done, seconds, pause_s)


def _pause(seconds: float, quiet_s: float, *, left: bool) -> float:
    """Return the pause after a step: by its share of the time, but never so long that minutes are computed too late."""
    wanted = max(seconds * (1 - SHARE) / SHARE, 0.0 if left else quiet_s / 6)
    return min(wanted, GAP_FACTOR * max(quiet_s, _LEAST_QUIET_S))


def _oldest(now: datetime, created_at: datetime, days: int) -> datetime:
    """Return the start of the time whose minutes are whole."""
    if days >= _YOUNG_LEAST_DAYS and now - created_at < timedelta(days=days * _YOUNG_PART):
        return datetime.fromtimestamp(0, tz=now.tzinfo)
    return now - timedelta(days=days * _WHOLE_PART)


def _statements(due: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Cut ascending (minute, rows) into lists of minutes that one statement each computes."""
    minutes: list[int] = []
    rows = 0
    for minute, count in due:
        full = len(minutes) == _MINUTES_PER_STATEMENT or rows >= _ROWS_PER_STATEMENT
        if minutes and (full or minute - minutes[-1] > _JUMP_S):
            yield minutes
            minutes, rows = [], 0
        minutes.append(minute)
        rows += count
    if minutes:
        yield minutes


def _micros(delta: timedelta) -> int:
    return delta // timedelta(microseconds=1)
