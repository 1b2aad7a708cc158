"""A service that reported and stops is told of; its own rhythm decides when it is late.

Asked of the ledger by whoever rolls it up. It takes at most one part in twenty of the time.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tollmeter.schemas.alert import Alert, alert_id
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.engine.incidents import Incidents
from tollmeter.streams.engine.runtime import Runtime
from tollmeter.streams.rules.windows.epochs import PIPELINE

EVERY_S = 30.0
_SHARE = 20


class Silence:
    """Asks every half minute, one question at a time, and raises one alert for each silence."""

    def __init__(self, runtime: Runtime, incidents: Incidents, client: Callable[[], ClickHouse]) -> None:
        self._runtime, self._incidents, self._client = runtime, incidents, client
        self._due_at = 0.0
        self._running: asyncio.Task[None] | None = None

    def step(self, now: float, *, ours: bool) -> None:
        """Ask if it is due and ours to ask; `now` is monotonic."""
        if ours and now >= self._due_at and (self._running is None or self._running.done()):
            self._due_at = now + EVERY_S
            self._running = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        began = self._runtime.monotonic()
        try:
            rows = await self._runtime.blocking(self._rows)
        except (Unavailable, Rejected):
            return  # whoever stores says so
        took_s = self._runtime.monotonic() - began
        self._due_at = max(self._due_at, began + _SHARE * took_s)
        for row in rows:
            await self._incidents.say(silent_alert(row, datetime.fromtimestamp(self._runtime.time(), UTC)))

    def _rows(self) -> list[dict[str, Any]]:
        return self._client().query(load("silent_services"))


def silent_alert(row: dict[str, Any], now: datetime) -> Alert:
    """Say that a service fell silent: once for each last call, however often it is found."""
    last: datetime = row["last"]
    text = (
        f"the service {row['service']} has been silent since {last:%Y-%m-%d %H:%M} UTC ({_span(row['silent_s'])}); "
        f"its longest pause of the last eight days was {_span(row['pause_s'])}"
    )
    return Alert(
        id=alert_id("silent", row["org_id"], row["service"], last.isoformat()),
        kind="silent",
        severity="warning",
        org_id=row["org_id"],
        scope=PIPELINE,
        name=row["service"],
        period=f"{last:%Y-%m-%d}",
        received_at=now,
        text=text,
        facts={"silent_s": row["silent_s"], "longest_pause_s": row["pause_s"], "calls": row["calls"]},
        source="tollmeter/ledger",
    )


def _span(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
