"""Top causes from ClickHouse, when it answers within a second; else an alert goes out with its own facts.

After a failure ClickHouse is left alone for half a minute: an outage costs one alert a second, not each of them.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, Rejected, Unavailable, connect_existing
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.notify.evidence import Call, Cause, Causes
from tollmeter.streams.notify.incidents import ANOMALIES
from tollmeter.streams.notify.lifecycle import STEPS
from tollmeter.streams.notify.notice import Notice
from tollmeter.streams.rules.limits.periods import period_name, period_of

log = logging.getLogger("tollmeter.notify")

ANSWER_S = 1.0
PAUSE_S = 30.0
TOP, CALLS, OTHERS = 2, 5, 3
WORTH_PCT = 10
"""A cause with a smaller share explains nothing."""
_SPANS_S = {"minute": 60, "ten_minutes": 600, "hour": 3_600}
_KINDS = STEPS | ANOMALIES | {"late_spend"}
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
        found = [Causes()]
        try:
            async with asyncio.timeout(self._answer_s):
                await asyncio.to_thread(self._ask, notice, found)
        except (TimeoutError, Unavailable, Rejected) as error:
            self._not_before = self._clock() + PAUSE_S
            log.warning("alerts go out without causes for %g s: %s", PAUSE_S, str(error) or "ClickHouse takes too long")
        return found[-1]

    def _ask(self, notice: Notice, found: list[Causes]) -> None:
        """Ask one question after the other; `found` gets what is known after each, the last one is all."""
        if self._client is None:
            self._client = connect_existing(self._settings)
        ask = self._client.query
        org, scope, name = notice.scope
        since, until = span(notice)
        place = {"org_id": org, "scope": scope, "name": name, "since": _at(since), "until": _at(until)}
        causes = Causes(shares(scope, ask(load("alert_causes"), {**place, "top": TOP})))
        found.append(causes)
        if notice.kind not in ANOMALIES:
            return
        if scope in ("api_key", "org"):
            week = {"org_id": org, "name": name, "since": _at(since - _WEEK_S), "until": _at(since)}
            usual = ask(load("alert_usual"), week)
            causes = replace(causes, usual_nano=(usual[0]["usual_nano"] or None) if usual else None)
            found.append(causes)
        rows = ask(load("alert_calls"), {**place, "top": CALLS})
        calls = tuple(Call(**{**row, "at": row["at"].astimezone(UTC)}) for row in rows)
        causes = replace(causes, calls=calls)
        found.append(causes)
        if scope == "api_key":
            others = ask(load("alert_others"), {**place, "top": OTHERS})
            found.append(replace(causes, others=tuple((row["name"], row["cost_nano"]) for row in others)))


def _at(seconds: float) -> str:
    return moment(datetime.fromtimestamp(seconds, UTC))


def span(notice: Notice) -> tuple[float, float]:
    """Return the span of time that an alert is about: its bucket or period, up to when it was raised.

    Calls count where they were made: an alert that is raised behind midnight may be of the day before.
    """
    window, at_s, period = str(notice.facts.get("window", "hour")), notice.raised_s, notice.facts.get("period")
    if window in _SPANS_S:
        at_s = min(at_s, _hour_end_s(period) - 1)
        return at_s // _SPANS_S[window] * _SPANS_S[window], at_s + 1
    zone = str(notice.facts.get("timezone") or "UTC")
    try:
        since_s = period_of(window, zone, int(at_s))[0]
        named = period_name(window, zone, int(at_s))
        if not window.startswith("rolling") and period != named and len(str(period)) == len(named):
            at_s = since_s - 1
            since_s = period_of(window, zone, int(at_s))[0]
        return float(since_s), at_s + 1
    except (LookupError, ValueError, OverflowError, OSError):
        return at_s - 3_600, at_s + 1


def _hour_end_s(period: object) -> float:
    """Return when the hour that an alert names is over; never where it names none."""
    try:
        return datetime.strptime(str(period), "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp() + 3_600
    except ValueError:
        return math.inf


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
