"""A table or view that is gone is made again while the line runs, and told; the log fills it as far as it reaches.

Looked for every few seconds by whoever rolls the ledger up, and at once by whoever finds it missing when it stores.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tollmeter.schemas.alert import Alert, alert_id
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse import migrate
from tollmeter.sinks.clickhouse.client import Rejected, Unavailable
from tollmeter.sinks.clickhouse.codes import UNKNOWN_DATABASE, UNKNOWN_TABLE
from tollmeter.streams.engine.incidents import Incidents
from tollmeter.streams.engine.runtime import Runtime
from tollmeter.streams.rules.windows.epochs import PIPELINE

log = logging.getLogger("tollmeter.ledger")

EVERY_S = 15.0
MISSING = frozenset({UNKNOWN_TABLE, UNKNOWN_DATABASE})
"""Codes of answers that a table or its database is not there."""
FROM_LOG = frozenset({"usage_events", "ledger_coverage", "usage_minutes", "rollup_progress", "usage_windows"})
"""What is a function of the log: `verify --repair` fills it."""
Mend = Callable[[Settings], list[str]]


class Tables:
    """Makes again what is gone. `refill` is called when the log has to fill some of it."""

    def __init__(
        self,
        runtime: Runtime,
        incidents: Incidents,
        settings: Settings,
        refill: Callable[[], None],
        mend: Mend | None = None,
    ) -> None:
        self._runtime, self._incidents, self._settings = runtime, incidents, settings
        self._refill, self._mend = refill, mend or migrate.Mender()
        self._due_at = 0.0
        self._running: asyncio.Task[None] | None = None
        self._complaint = ""

    def step(self, now: float, *, ours: bool) -> None:
        """Look if it is due and ours to look; `now` is monotonic."""
        if ours and now >= self._due_at and (self._running is None or self._running.done()):
            self._due_at = now + EVERY_S
            self._running = asyncio.create_task(self.look())

    async def look(self) -> None:
        """Make what is missing; where that cannot be done the log says why, once."""
        try:
            gone = await self._runtime.blocking(self._mend, self._settings)
        except (Unavailable, Rejected, migrate.SchemaError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("tables are not looked after: %s", error)
            return
        self._complaint = ""
        if gone:
            await self._incidents.say(missing_alert(gone, datetime.fromtimestamp(self._runtime.time(), UTC)))
            if FROM_LOG.intersection(gone):
                self._refill()


def missing_alert(gone: Sequence[str], now: datetime) -> Alert:
    """Say what was gone and was made again."""
    filled = [name for name in gone if name in FROM_LOG]
    then = f"; {', '.join(filled)} fill again from the log, as far as it reaches" if filled else ""
    return Alert(
        id=alert_id("table_missing", *gone, now.isoformat(timespec="seconds")),
        kind="table_missing",
        severity="critical",
        org_id="",
        scope=PIPELINE,
        name=gone[0],
        period=f"{now:%Y-%m-%d}",
        received_at=now,
        text=f"{', '.join(gone)} had vanished from ClickHouse and were made again, empty{then}"[:500],
        facts={"missing": ", ".join(gone)[:500]},
        source="tollmeter/ledger",
    )
