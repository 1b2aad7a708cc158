"""What these rules would have told of the last days, what was lost before, and what people have said of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tollmeter.admin.replay.history import History, pages
from tollmeter.admin.replay.lost import LONGEST_S, Lost, Minute, lost
from tollmeter.admin.replay.told import Found, Telling
from tollmeter.broker.policies import Rules
from tollmeter.sinks.clickhouse.client import ClickHouse
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.notify.feedback import Feedback
from tollmeter.streams.notify.incidents import ANOMALIES
from tollmeter.streams.rules.windows.state import WatchRules

PACES = frozenset({"burn_rate", "forecast"})
LEARN = timedelta(days=7)
"""Calls of so long before are learned from, and nothing is told of them."""
BESIDE_S = 3_600.0
"""What people called real is found if something is told of the scope at most so long before or after."""


class Asked(NamedTuple):
    """The rules, the limits in force, and of which time it is told."""

    rules: WatchRules
    limits: Rules
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Replay:
    """What would have been told between two times; `lost` beside each incident, None for a budget's pace."""

    since: datetime
    until: datetime
    calls: int
    found: Sequence[tuple[Found, Lost | None]]
    real: Sequence[tuple[Feedback, bool]]
    """Of incidents that were real, and of those that were expected, whether something would have been told."""
    expected: Sequence[tuple[Feedback, bool]]

    @property
    def lost_nano(self) -> int:
        """All that was lost before the first alert of each incident."""
        return sum(one.before_nano for _, one in self.found if one is not None)

    def document(self) -> dict[str, Any]:
        """Return it as JSON carries it; amounts are nano-USD."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "calls": self.calls,
            "told": sum(found.told for found, _ in self.found),
            "lost_before_first_alert_nano": self.lost_nano,
            "incidents": [_document(found, money) for found, money in self.found],
            "real": _counted(self.real),
            "expected": _counted(self.expected),
        }


def count(ledger: ClickHouse, since: datetime, until: datetime) -> int:
    """Return how many calls a replay reads."""
    rows = ledger.query(load("history_count"), {"since": moment(since - LEARN), "until": moment(until)})
    return int(rows[0]["calls"])


def replay(ledger: ClickHouse, asked: Asked, said: Sequence[Feedback], advance: Callable[[int], None]) -> Replay:
    """Fold the calls and return what is found. Raises `Unavailable`, `Rejected`."""
    since, until, begin = asked.since, asked.until, asked.since - LEARN
    history = History(asked.rules, begin, asked.limits.policies.values(), asked.limits.groups.members)
    telling, calls = Telling(), 0
    for rows in pages(ledger, begin, until):
        alerts = history.fold(rows, advance)
        calls += rows.height
        wanted = [one for one in alerts if one.received_at >= since and one.kind in ANOMALIES | PACES]
        telling.take(one.cloudevent() for one in wanted)
    found = telling.found()
    money = [_money(ledger, one, begin, until) if set(one.kinds) & ANOMALIES else None for one in found]
    judged = [one for one in said if one.last_s >= since.timestamp() and one.since_s < until.timestamp()]
    by_verdict = {
        verdict: [(one, _told_of(one, found)) for one in judged if one.verdict == verdict]
        for verdict in ("real", "expected")
    }
    together = list(zip(found, money, strict=True))
    return Replay(since, until, calls, together, by_verdict["real"], by_verdict["expected"])


def _money(ledger: ClickHouse, found: Found, begin: datetime, until: datetime) -> Lost:
    end = min(until, datetime.fromtimestamp(found.last_s + LONGEST_S, UTC))
    org, scope, name = found.scope
    asked = {"org_id": org, "scope": scope, "name": name, "since": moment(begin), "until": moment(end)}
    asked["first"] = moment(datetime.fromtimestamp(found.first_s, UTC))
    rows = ledger.query(load("scope_minutes"), asked)
    minutes = {int(row["minute_s"]): Minute(int(row["cost_nano"]), int(row["before_nano"])) for row in rows}
    return lost(minutes, found.first_s, found.last_s)


def _told_of(said: Feedback, found: Sequence[Found]) -> bool:
    scope = said.org, said.scope, said.name
    near = [one for one in found if one.scope == scope]
    return any(one.first_s <= said.last_s + BESIDE_S and one.last_s >= said.since_s - BESIDE_S for one in near)


def _counted(judged: Sequence[tuple[Feedback, bool]]) -> dict[str, Any]:
    return {"incidents": [one.incident for one, _ in judged], "told": sum(told for _, told in judged)}


def _document(found: Found, money: Lost | None) -> dict[str, Any]:
    org, scope, name = found.scope
    return {
        "org_id": org,
        "scope": scope,
        "name": name,
        "kinds": list(found.kinds),
        "severity": found.severity,
        "first_told": _iso(found.first_s),
        "last": _iso(found.last_s),
        "alerts": found.alerts,
        "told": found.told,
        "cost_nano": found.cost_nano,
        "began": None if money is None else _iso(money.began_s),
        "usual_ten_minutes_nano": None if money is None else money.usual_nano,
        "lost_before_first_alert_nano": None if money is None else money.before_nano,
        "lost_nano": None if money is None else money.all_nano,
        "text": found.text,
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
