"""Top causes from ClickHouse, when it answers within a second; else an alert goes out with its own facts.

After a failure ClickHouse is left alone for half a minute: an outage costs one alert a second, not each of them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect_existing
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.notify.lifecycle import STEPS
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.notify.texts import Cause, Causes
from tollmeter.streams.rules.anomalies.words import KINDS as SUSPICIONS
from tollmeter.streams.rules.limits.periods import period_of

log = logging.getLogger("tollmeter.notify")

ANSWER_S = 1.0
PAUSE_S = 30.0
TOP = 2
WORTH_PCT = 10
"""A cause with a smaller share explains nothing."""
_SPANS_S = {"minute": 60, "ten_minutes": 600, "hour": 3_600}
_KINDS = STEPS | {"late_spend", "spend_spike", "ingest_loop", *SUSPICIONS}
_WEEK_S = 7 * 86_400


class Ledger:
    """Answers with `Causes`; empty ones when ClickHouse does not answer within `answer_s`."""

    def __init__(self, settings: Settings, clock: Callable[[], float], answer_s: float = ANSWER_S) -> None:
        self._settings = settings.model_copy(update={"clickhouse_timeout_s": 2.0})
        self._clock, self._answer_s = clock, answer_s
        self._client: ClickHouse | None = None
        self._not_before = 0.0

    async def causes(self, notice: Notice) -> Causes:
        """Return in time, whatever ClickHouse does."""
        if notice.kind not in _KINDS or self._clock() < self._not_before:
            return Causes()
        try:
            async with asyncio.timeout(self._answer_s):
                return await asyncio.to_thread(self._ask, notice)
        except (TimeoutError, Unavailable, Rejected) as error:
            self._not_before = self._clock() + PAUSE_S
            log.warning("alerts go out without causes for %g s: %s", PAUSE_S, str(error) or "ClickHouse takes too long")
            return Causes()

    def _ask(self, notice: Notice) -> Causes:
        if self._client is None:
            self._client = connect_existing(self._settings)
        org, scope, name = notice.scope
        since, until = span(notice)
        asked = {
            "org_id": org,
            "scope": scope,
            "name": name,
            "top": TOP,
            "since": _at(since),
            "until": _at(until),
        }
        top = shares(scope, self._client.query(load("alert_causes"), asked))
        if notice.kind != "spend_spike" or scope != "api_key":
            return Causes(top)
        week = {"org_id": org, "name": name, "since": _at(since - _WEEK_S), "until": _at(since)}
        usual = self._client.query(load("alert_usual"), week)
        return Causes(top, usual[0]["usual_nano"] or None if usual else None)


def _at(seconds: float) -> str:
    return moment(datetime.fromtimestamp(seconds, UTC))


def span(notice: Notice) -> tuple[float, float]:
    """Return the span of time that an alert is about: the open bucket or period, up to when it was raised."""
    window, until = str(notice.facts.get("window", "hour")), notice.raised_s
    if window in _SPANS_S:
        return until // _SPANS_S[window] * _SPANS_S[window], until + 1
    try:
        return float(period_of(window, str(notice.facts.get("timezone") or "UTC"), int(until))[0]), until + 1
    except (LookupError, ValueError, OverflowError, OSError):
        return until - 3_600, until + 1


def shares(scope: str, rows: Sequence[dict[str, Any]]) -> tuple[Cause, ...]:
    """Return what rows of `alert_causes` say: a part of a model's bill, and through what it came."""
    found = []
    for row in rows:
        pct = round(100 * int(row["cost_nano"]) / int(row["total_nano"]))
        if pct < WORTH_PCT:
            continue
        key, address = row["api_key_id"], row["client_ip"]
        origin = f" through key …{key[-4:]}" if key and scope != "api_key" else ""
        origin += f" from {address}" if address and scope != "client_ip" else ""
        found.append(Cause(pct, f"{row['model']} {row['part']}{origin}"))
    return tuple(found)
