"""Once an hour the hour that is over is held against four weeks, and each key's day against its peers.

Asked of the ledger's minutes by whoever rolls them up, a quarter of an hour after the hour's end, so that they are
complete. An hour that nobody asked about, the line being down, is not made up for: its money is in the next day's.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Protocol

from tollmeter.schemas.alert import Alert, Severity, alert_id, whom
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable
from tollmeter.sinks.clickhouse.queries import load
from tollmeter.streams.engine.runtime import Runtime
from tollmeter.streams.rules.anomalies.hourly import FLOOR_NANO, Peer, Season, Unlike, off_season, unlike_peers
from tollmeter.streams.rules.anomalies.words import said
from tollmeter.streams.rules.windows.totals import bucket_at, period_text

AFTER_S = 900
LOOK_S = 30.0
_FORM = "%Y-%m-%d %H:%M:%S"
SOURCE = "tollmeter/ledger"
_SEVERITIES: dict[str, Severity] = {"off_season": "warning", "unlike_peers": "info"}


class Says(Protocol):
    """Whoever raises an alert once."""

    async def say(self, alert: Alert) -> None:
        """Return when it is on its way."""


class Hourly:
    """Asks about each hour once; what it says again after a restart is the same alert."""

    def __init__(self, runtime: Runtime, incidents: Says, client: Callable[[], ClickHouse]) -> None:
        self._runtime, self._incidents, self._client = runtime, incidents, client
        self._asked = -1
        self._due_at = 0.0
        self._running: asyncio.Task[None] | None = None

    def step(self, now: float, *, ours: bool) -> None:
        """Ask if an hour is over that was not asked about, and it is ours to ask; `now` is monotonic."""
        if self._running is not None:
            if not self._running.done():
                return
            asked, self._running = self._running, None
            if (error := asked.exception()) is not None:
                self._runtime.crash(error)
        if not ours or now < self._due_at:
            return
        self._due_at = now + LOOK_S
        hour = (int(self._runtime.time()) - AFTER_S) // 3_600 - 1
        if hour > self._asked:
            self._running = asyncio.create_task(self._ask(hour))

    async def _ask(self, hour: int) -> None:
        try:
            seasons, peers = await self._runtime.blocking(self._rows, hour)
        except (Unavailable, Rejected):
            return  # whoever stores says so; it is asked again
        for alert in alerts(seasons, peers, hour):
            await self._incidents.say(alert)
        self._asked = hour

    def _rows(self, hour: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        start = datetime.fromtimestamp(hour * 3_600, UTC)
        until = (start + timedelta(hours=1)).strftime(_FORM)
        seasons = self._client().query(load("hour_of_week"), {"hour": start.strftime(_FORM), "floor": FLOOR_NANO})
        return seasons, self._client().query(load("peer_days"), {"until": until})


def alerts(seasons: list[dict[str, Any]], peers: list[dict[str, Any]], hour: int) -> Iterator[Alert]:
    """Yield what the rows of `hour_of_week` and `peer_days` say of an hour (counted since 1970)."""
    for row in seasons:
        season = off_season(row["cost_nano"], row["past"], row["weeks"])
        if season is not None:
            yield _off_season(row, season, hour)
    for (org, model), group in groupby(peers, key=lambda row: (row["org_id"], row["main"])):
        keys = [Peer(*(row[name] for name in Peer._fields)) for row in group]
        for one in unlike_peers(keys):
            yield _unlike_peers(org, model, one, hour)


def _off_season(row: dict[str, Any], season: Season, hour: int) -> Alert:
    facts = {"window": "hour", "cost_nano": row["cost_nano"], "usual_nano": season.usual_nano}
    facts |= {"threshold_nano": season.threshold_nano}
    key = row["org_id"], row["api_key_id"]
    return _alert("off_season", key, hour, period_text("hour", hour), facts)


def _unlike_peers(org: str, model: str, one: Unlike, hour: int) -> Alert:
    day = period_text("day", bucket_at("day", hour * 3_600))
    facts = {
        "window": "day",
        "model": model,
        "cost_nano": one.peer.cost_nano,
        "calls": one.peer.calls,
        "per_call_nano": one.peer.per_call_nano,
        "peers_per_call_nano": one.peers_per_call_nano,
        "peers": one.peers,
    }
    return _alert("unlike_peers", (org, one.peer.name), hour, day, facts)


def _alert(kind: str, key: tuple[str, str], hour: int, period: str, facts: dict[str, Any]) -> Alert:
    org, name = key
    return Alert(
        id=alert_id(kind, org, "api_key", name, period),
        kind=kind,
        severity=_SEVERITIES[kind],
        org_id=org,
        scope="api_key",
        name=name,
        period=period,
        received_at=datetime.fromtimestamp((hour + 1) * 3_600, UTC),
        text=f"{whom(org, 'key', name)} {said(kind, facts)}",
        facts=facts,
        source=SOURCE,
    )
