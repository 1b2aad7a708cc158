"""How long events and alerts take at a steady rate, with an hour of the same traffic in the tables already."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from benchmarks.line import check, wait_settled
from benchmarks.measure import quantile, wait_for
from benchmarks.preload import ORGS, SEED, preload
from tollmeter.broker.policies import set_policy
from tollmeter.embedded.stack import Stack
from tollmeter.producers.imports.publish import publish_timed
from tollmeter.schemas.codec import SINGLE_OBJECT_HEADER
from tollmeter.schemas.policy import Policy
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire

HOUR_SPAN_S = 3_300
"""An hour's worth of calls, in a little less than the horizon of an hour, so that none is late when it is loaded."""
STEP_S = 0.02
LOOK_S = 0.1
GRACE_S = 30.0
BEHIND_S = 30.0
"""So much later than it is due an event may be sent where the machine is busy: its time is when it was due."""
ID = slice(len(SINGLE_OBJECT_HEADER) + 1, len(SINGLE_OBJECT_HEADER) + 37)
"""The event id within a record: the first field of the body, 36 characters behind one byte of length."""
NEW_ROWS = "SELECT toString(event_id) AS id FROM usage_events WHERE event_time >= {since:DateTime64(6, 'UTC')}"
SPENT = """
SELECT org_id, name, toInt64(sum(cost_nano + at_risk_nano)) AS spent_nano FROM usage_windows FINAL
WHERE level = 'month' AND scope = 'api_key' GROUP BY org_id, name HAVING spent_nano > 1000000
ORDER BY spent_nano DESC LIMIT {most:UInt32}
"""
ALERTS = """
SELECT dateDiff('millisecond', received_at, appended_at) / 1000 AS delay_s FROM alerts FINAL
WHERE kind LIKE 'budget%' AND received_at >= {since:DateTime64(3, 'UTC')}
"""


@dataclass(frozen=True, slots=True)
class DelayResult:
    rate: int
    preloaded: int
    rows: list[float] = field(repr=False)
    alerts: list[float] = field(repr=False)

    @property
    def row_p99_s(self) -> float:
        return quantile(self.rows, 0.99)

    @property
    def alert_p95_s(self) -> float | None:
        return quantile(self.alerts, 0.95) if self.alerts else None


def run_delays(
    stack: Stack, rate: int, preload_events: int, live_s: int, policies: int, timeout_s: float
) -> DelayResult:
    """Load an hour of traffic, let the workers finish it, then send live and look. Raises `TooLateError`."""
    settings = stack.settings
    loaded = preload(settings, preload_events, HOUR_SPAN_S)
    for stage in ("price", "ledger", "watch"):
        stack.start_worker(stage)
    clickhouse = connect(settings)
    wait_settled(clickhouse, loaded, timeout_s)
    check(clickhouse, loaded)
    set_budgets(settings, clickhouse, policies, live_s * rate / preload_events)
    begun = datetime.now(UTC)
    live = Live(settings, rate, live_s)
    rows = live.run()
    wait_for("the last alerts", lambda: _quiet(clickhouse, begun), 60)
    alerts = [row["delay_s"] for row in clickhouse.query(ALERTS, {"since": begun})]
    clickhouse.close()
    return DelayResult(rate, loaded.records, rows, alerts)


def set_budgets(settings: Settings, clickhouse: ClickHouse, most: int, growth: float) -> None:
    """Give the dearest keys budgets that the live traffic will cross, each at a moment of its own."""
    rows = clickhouse.query(SPENT, {"most": most})
    for number, row in enumerate(rows):
        share = 0.1 + 0.7 * number / max(1, len(rows))
        limit_nano = row["spent_nano"] * (1 + growth * share)
        set_policy(
            settings,
            Policy(
                org_id=row["org_id"],
                scope="api_key",
                name=row["name"],
                monthly_limit_micro=max(1, round(limit_nano / 1000)),
                alert_pcts=(100,),
            ),
        )


class Live:
    """Steady traffic of this moment, and a reader that notes when each row can be seen."""

    def __init__(self, settings: Settings, rate: int, seconds: int) -> None:
        self._settings, self._rate, self._seconds = settings, rate, seconds
        self._sent: dict[str, float] = {}
        self._delays: list[float] = []
        self._done = threading.Event()

    def run(self) -> list[float]:
        """Send for so long; return the delay of every event, in seconds. Raises `TooLateError` when rows stay away."""
        reader = threading.Thread(target=self._read, name="reader", daemon=True)
        reader.start()
        now_us = time.time_ns() // 1_000
        wire = Wire(
            company(SEED, ORGS),
            self._rate * self._seconds,
            now_us,
            self._seconds * 1_000_000,
            duplicates=0.0,
            block=max(1, round(self._rate * STEP_S)),
        )
        asyncio.run(publish_timed(self._settings, self._paced(wire)))
        self._done.set()
        reader.join(GRACE_S + 10)
        missing = wire.sent_events - len(self._delays)
        wait_for(f"{missing} of {wire.sent_events} rows", lambda: missing == 0, 0)
        return self._delays

    async def _paced(self, wire: Wire) -> AsyncIterator[list[bytes]]:
        for due_us, values in wire.blocks():
            await asyncio.sleep(max(0.0, due_us / 1e6 - time.time()))
            now = time.time()
            for value in values:
                self._sent[value[ID].decode()] = now
            yield values

    def _read(self) -> None:
        """Look for new rows until all that was sent has been seen, or the grace is over."""
        clickhouse = connect(self._settings)
        seen: set[str] = set()
        since = datetime.now(UTC)
        ended: float | None = None
        while ended is None or time.monotonic() < ended + GRACE_S:
            oldest = min((at for id_, at in self._sent.copy().items() if id_ not in seen), default=time.time())
            since = datetime.fromtimestamp(oldest - BEHIND_S, UTC)
            found: list[dict[str, Any]] = clickhouse.query(NEW_ROWS, {"since": since})
            now = time.time()
            for row in found:
                if row["id"] in self._sent and row["id"] not in seen:
                    seen.add(row["id"])
                    self._delays.append(now - self._sent[row["id"]])
            if self._done.is_set():
                ended = ended or time.monotonic()
                if len(seen) == len(self._sent):
                    break
            time.sleep(LOOK_S)
        clickhouse.close()


def _quiet(clickhouse: ClickHouse, since: datetime) -> bool:
    """Tell whether no further alert has come for three seconds."""
    before = len(clickhouse.query(ALERTS, {"since": since}))
    time.sleep(3)
    return len(clickhouse.query(ALERTS, {"since": since})) == before
