"""The states of alerts as a table in ClickHouse, for `alerts list` and dashboards: a copy that follows the journal.

ClickHouse away: what changed waits here; after a restart everything is copied again. Newest row wins.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from time import time

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect_existing
from tollmeter.streams.notify.notice import Notice

log = logging.getLogger("tollmeter.notify")

COLUMNS = (
    *("id", "state", "held", "told", "resolution", "acknowledged_by", "opened_at", "resolved_at"),
    *("incident", "turn", "title", "body", "written_at"),
)
PAUSE_S = 15.0
AT_ONCE = 5_000


def row(notice: Notice, written_s: float) -> tuple[object, ...]:
    """Return the columns of a notice; `told` reads like "ops: sent, hook: pending (3 attempts: it answered 500)"."""
    told = ", ".join(
        f"{d.consumer}: {d.status}" + (f" ({d.attempts} attempts: {d.error})" if d.error else "")
        for d in notice.deliveries
        if d.about == "opened"
    )
    return (
        notice.base_id,
        notice.state,
        notice.held,
        told,
        notice.resolution,
        notice.acknowledged_by,
        _at(notice.opened_s),
        None if notice.resolved_s is None else _at(notice.resolved_s),
        notice.incident,
        notice.turn,
        notice.title,
        notice.body,
        _at(written_s),
    )


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class States:
    """Rows that are still to be written."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.model_copy(update={"clickhouse_timeout_s": 10.0})
        self._client: ClickHouse | None = None
        self._waiting: dict[str, Notice] = {}
        self._openings: dict[str, int] = {}
        self._not_before = 0.0
        self._writing: asyncio.Task[None] | None = None

    def all(self, notices: Mapping[str, Notice]) -> None:
        """Have everything written again."""
        self._waiting.clear()
        self.changed(notices.values())

    def changed(self, notices: Iterable[Notice]) -> None:
        """Have these written; of an alert that opened again the last opening alone."""
        for notice in notices:
            if notice.opening >= self._openings.get(notice.base_id, 1):
                self._waiting[notice.base_id] = notice
                if notice.opening > 1:
                    self._openings[notice.base_id] = notice.opening

    async def flush(self) -> None:
        """Start writing what waits, unless that is going on or ClickHouse failed a moment ago; never wait for it."""
        if self._writing is not None and self._writing.done():
            self._writing.result()
            self._writing = None
        if self._waiting and self._writing is None and time() >= self._not_before:
            piece = dict(list(self._waiting.items())[:AT_ONCE])
            for notice_id in piece:
                del self._waiting[notice_id]
            self._writing = asyncio.create_task(self._write(piece))

    async def _write(self, piece: dict[str, Notice]) -> None:
        try:
            await asyncio.to_thread(self._insert, [row(notice, time()) for notice in piece.values()])
        except (Unavailable, Rejected) as error:
            self._not_before = time() + PAUSE_S
            self._waiting = piece | self._waiting
            log.warning("the states of %d alerts wait for ClickHouse: %s", len(self._waiting), error)

    def _insert(self, rows: list[tuple[object, ...]]) -> None:
        if self._client is None:
            self._client = connect_existing(self._settings)
        self._client.insert_rows("alert_states", COLUMNS, rows)
