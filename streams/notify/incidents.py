"""One incident per scope: what several rules say of a key or an address is told once, and again when it grows.

The first alert opens it; the next ones belong to it, whatever rule they are of. It is told again when it is graver, or
twice as dear a quarter of an hour later, and it is over when none of its rules says anything any more. What speaks
again within six hours opens it again, under the same id. Pure: time is an argument.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tollmeter.schemas.alert import alert_id
from tollmeter.streams.notify.notice import SEVERITIES, Notice, Scope
from tollmeter.streams.rules.anomalies.words import HOURLY
from tollmeter.streams.rules.anomalies.words import KINDS as SUSPICIONS

ANOMALIES = frozenset({"spend_spike", "ingest_loop", *SUSPICIONS, *HOURLY})
"""Kinds of alerts about what is unlike a scope itself."""
AGAIN_S = 900.0
REOPENS_S = 6 * 3_600.0
SHARE_PCT = 60
"""A key that has so much of what its organisation's incident is about is told beside it."""
INCIDENT, ORGANISATION, KEY = "incident", "organisation", "key"
UNTOLD = ("old", "muted", "expected", "repeat", INCIDENT, ORGANISATION, KEY, "no route")
"""Why nobody at all hears of an alert: it counts for no storm and no cap."""
_Subject = tuple[str, Scope]


class Told:
    """What people know of each incident and of other alerts, and when each was last seen."""

    def __init__(self) -> None:
        self._last: dict[_Subject, Notice] = {}
        self._seen: dict[_Subject, float] = {}
        self._open: dict[_Subject, dict[str, None]] = {}
        self._over_s: dict[_Subject, float] = {}
        """When people were last told that it is over."""

    def count(self, notice: Notice) -> None:
        """Take it for told."""
        self._last[subject(notice)] = notice

    def known(self, notice: Notice) -> Notice | None:
        """Return by what people know of it, None where it is news, has grown, or was told to be over."""
        told = self._last.get(subject(notice))
        if told is None or self._over_s.get(subject(notice), told.opened_s - 1) >= told.opened_s:
            return None
        return None if grows(notice, told) else told

    def keep(self, notice: Notice) -> None:
        """Take over a notice as it is now."""
        key = subject(notice)
        self._seen[key] = max(self._seen.get(key, notice.opened_s), notice.opened_s)
        told = self._open.setdefault(key, {})
        if notice.kind in ANOMALIES and notice.deliveries and notice.resolved_s is None:
            told[notice.id] = None
        else:
            told.pop(notice.id, None)
        if notice.resolved_s is not None and any(one.about == "resolved" for one in notice.deliveries):
            self._over_s[key] = max(self._over_s.get(key, notice.resolved_s), notice.resolved_s)

    def seen_s(self, notice: Notice) -> float:
        """Return when it, or another of its incident, was last seen."""
        return self._seen[subject(notice)]

    def ends_it(self, notice: Notice) -> bool:
        """Tell whether no other open notice of its incident was told: the last one says that it is over."""
        return not self._open.get(subject(notice), {}).keys() - {notice.id}

    def within(self, notice: Notice) -> bool:
        """Tell whether people hear of it by an incident of its organisation: told, open, as grave, and mostly others'.

        What cannot be compared is told: money that one of them does not name, or that is of another span of time.
        """
        org, scope, _ = notice.scope
        whole = INCIDENT, (org, "org", "")
        told = self._last.get(whole)
        if scope == "org" or notice.kind not in ANOMALIES or told is None or not self._open.get(whole):
            return False
        part, total = nano(notice), nano(told)
        comparable = part and total and window(notice) == window(told)
        return bool(comparable) and not graver(notice, told) and part * 100 < total * SHARE_PCT

    def of_key(self, notice: Notice) -> bool:
        """Tell whether people hear of it by an incident of the key that it names: told, open, as grave."""
        org, scope, _ = notice.scope
        key = INCIDENT, (org, "api_key", str(notice.facts.get("key", "")))
        told = self._last.get(key)
        if scope == "api_key" or notice.kind not in ANOMALIES or told is None or not self._open.get(key):
            return False
        return not graver(notice, told)


class Turn(NamedTuple):
    """Which incident an anomaly belongs to, how often that has opened, and what the anomaly is to it."""

    incident: str
    number: int
    opens: bool


class Standing(NamedTuple):
    """An incident as it stands: since when, the rules that spoke in their order, and who else of the organisation."""

    since_s: float
    signals: tuple[Notice, ...] = ()
    """Of each rule its first alert of the highest severity."""
    beside: tuple[Scope, ...] = ()
    """Other scopes of the organisation with something open."""


class Incidents:
    """The incident of each scope: the last one, its members, and when the last of them was over."""

    def __init__(self) -> None:
        self._turns: dict[Scope, Turn] = {}
        self._open: dict[Scope, set[str]] = {}
        self._ended_s: dict[Scope, float] = {}
        self._scopes: dict[str, Scope] = {}
        self.members: dict[str, dict[str, None]] = {}
        """The ids of the notices of each incident, in their order."""

    def turn_of(self, notice: Notice, now_s: float) -> Turn:
        """Return where a new alert belongs."""
        if notice.kind not in ANOMALIES:
            return Turn("", 1, True)
        last = self._turns.get(notice.scope)
        if last is not None and self._open.get(notice.scope):
            return last._replace(opens=False)
        if last is not None and now_s - self._ended_s.get(notice.scope, now_s) <= REOPENS_S:
            return Turn(last.incident, last.number + 1, True)
        return Turn(alert_id(INCIDENT, *notice.scope, notice.base_id), 1, True)

    def keep(self, notice: Notice) -> None:
        """Take over a notice as it is now."""
        if not notice.incident:
            return
        last = self._turns.get(notice.scope)
        if last is None or last.incident != notice.incident or last.number < notice.turn:
            self._turns[notice.scope] = Turn(notice.incident, notice.turn, True)
        self.members.setdefault(notice.incident, {})[notice.id] = None
        was = self._scopes.setdefault(notice.id, notice.scope)
        if was != notice.scope:  # somebody is forgotten, and the notice names nobody any more
            self._scopes[notice.id] = notice.scope
            self._leave(was, notice.id)
        still = self._open.setdefault(notice.scope, set())
        if notice.resolved_s is None:
            still.add(notice.id)
        else:
            still.discard(notice.id)
            self._ended_s[notice.scope] = max(self._ended_s.get(notice.scope, notice.resolved_s), notice.resolved_s)

    def _leave(self, scope: Scope, notice_id: str) -> None:
        still = self._open.get(scope, set())
        still.discard(notice_id)
        if not still:
            self._open.pop(scope, None)

    def standing(self, notice: Notice, notices: Mapping[str, Notice]) -> Standing:
        """Return how the incident of a notice stands; `notices` are all by id."""
        if not notice.incident:
            return Standing(notice.raised_s)
        members = [notices[one] for one in self.members.get(notice.incident, ()) if one in notices]
        signals: dict[str, Notice] = {}
        for one in in_order(one for one in members if one.turn == notice.turn):
            if one.kind not in signals or graver(one, signals[one.kind]):
                signals[one.kind] = one
        since_s = min((one.raised_s for one in members if one.turn == notice.turn), default=notice.raised_s)
        beside = {one for one, ids in self._open.items() if ids and one[0] == notice.scope[0]} - {notice.scope}
        return Standing(since_s, tuple(signals.values()), tuple(sorted(beside)))

    def forget(self, notice: Notice) -> None:
        """Drop what is over for so long that nobody will send it again."""
        if not notice.incident:
            return
        self._leave(self._scopes.pop(notice.id, notice.scope), notice.id)
        members = self.members.get(notice.incident, {})
        members.pop(notice.id, None)
        if not members:
            self.members.pop(notice.incident, None)
            if self._turns.get(notice.scope, Turn("", 1, True)).incident == notice.incident:
                for table in (self._turns, self._open, self._ended_s):
                    table.pop(notice.scope, None)


def subject(notice: Notice) -> _Subject:
    """Return what it is about: all anomalies of a scope are about the same, other kinds each about their own."""
    return (INCIDENT if notice.kind in ANOMALIES else notice.kind), notice.scope


def graver(notice: Notice, told: Notice) -> bool:
    """Tell whether an alert is graver than what people know."""
    return SEVERITIES.index(notice.severity) > SEVERITIES.index(told.severity)


def grows(notice: Notice, told: Notice) -> bool:
    """Tell whether people are to hear of it again, who know `told`: it is graver, or has become twice as dear."""
    if graver(notice, told):
        return True
    dearer = notice.kind in ANOMALIES and 0 < 2 * nano(told) <= nano(notice)
    return dearer and notice.raised_s >= told.raised_s + AGAIN_S


def nano(notice: Notice) -> int:
    """Return the money that an alert names, 0 where it names none."""
    value = notice.facts.get("cost_nano")
    return value if isinstance(value, int) else 0


def window(notice: Notice) -> str:
    """Return the span of time that its money is of."""
    return str(notice.facts.get("window", ""))


def in_order(notices: Iterable[Notice]) -> list[Notice]:
    """Return notices as they were raised."""
    return sorted(notices, key=lambda one: (one.raised_s, one.id))
