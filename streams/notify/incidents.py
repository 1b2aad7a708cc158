"""One incident per scope: what several rules say of a key or an address is told once, and again when it grows.

The first alert opens it; the next ones belong to it, whatever rule they are of. It is told again when it is graver, or
twice as dear a quarter of an hour later, and it is over when none of its rules says anything any more.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tollmeter.streams.notify.notice import SEVERITIES, Notice, Scope
from tollmeter.streams.rules.anomalies.words import KINDS as SUSPICIONS

ANOMALIES = frozenset({"spend_spike", "ingest_loop", *SUSPICIONS})
"""Kinds of alerts about what is unlike a scope itself."""
AGAIN_S = 900.0
Facts = Mapping[str, Any]
Stated = tuple[Facts, str]
"""An alert as CloudEvent, and its state."""
Incident = dict[str, Any]
INCIDENT = "incident"
UNTOLD = ("old", "muted", "repeat", INCIDENT, "no route")
"""Why nobody at all hears of an alert: it counts for no storm and no cap."""


class Told:
    """What people know of each incident and of other alerts, and when each was last seen."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, Scope], Notice] = {}
        self._seen: dict[tuple[str, Scope], float] = {}
        self._open: dict[tuple[str, Scope], dict[str, None]] = {}

    def count(self, notice: Notice) -> None:
        """Take it for told."""
        self._last[subject(notice)] = notice

    def known(self, notice: Notice) -> Notice | None:
        """Return by what people know of it, None where it is news, or has grown."""
        told = self._last.get(subject(notice))
        return None if told is None or grows(notice, told) else told

    def keep(self, notice: Notice) -> None:
        """Take over a notice as it is now."""
        key = subject(notice)
        self._seen[key] = max(self._seen.get(key, notice.opened_s), notice.opened_s)
        told = self._open.setdefault(key, {})
        if notice.kind in ANOMALIES and notice.deliveries and notice.resolved_s is None:
            told[notice.id] = None
        else:
            told.pop(notice.id, None)

    def seen_s(self, notice: Notice) -> float:
        """Return when it, or another of its incident, was last seen."""
        return self._seen[subject(notice)]

    def ends_it(self, notice: Notice) -> bool:
        """Tell whether no other open notice of its incident was told: the last one says that it is over."""
        return not self._open.get(subject(notice), {}).keys() - {notice.id}


def subject(notice: Notice) -> tuple[str, Scope]:
    """Return what it is about: all anomalies of a scope are about the same, other kinds each about their own."""
    return (INCIDENT if notice.kind in ANOMALIES else notice.kind), notice.scope


def grows(notice: Notice, told: Notice) -> bool:
    """Tell whether people are to hear of it again, who know `told`: it is graver, or has become twice as dear."""
    if SEVERITIES.index(notice.severity) > SEVERITIES.index(told.severity):
        return True
    dearer = notice.kind in ANOMALIES and 0 < 2 * _nano(told.facts) <= _nano(notice.facts)
    return dearer and notice.raised_s >= told.raised_s + AGAIN_S


def incidents(alerts: Iterable[Stated]) -> list[Incident]:
    """Group anomalies (CloudEvent, state) by scope, dearest first: since when, how dear, and which rules agree."""
    found: dict[Scope, list[Stated]] = {}
    for event, state in alerts:
        data = event.get("data")
        if isinstance(data, dict) and data.get("kind") in ANOMALIES:
            scope = str(data.get("org_id", "")), str(data.get("scope", "")), str(data.get("name", ""))
            found.setdefault(scope, []).append((event, state))
    made = [_incident(scope, members) for scope, members in found.items()]
    return sorted(made, key=lambda one: (one["state"] == "resolved", -(one["cost_nano"] or 0), one["since"]))


def _incident(scope: Scope, members: list[Stated]) -> Incident:
    data = [event["data"] for event, _ in members]
    times = sorted(str(event.get("time", "")) for event, _ in members)
    gravest = max(data, key=lambda one: (_rank(one), _nano(one)))
    states = {state for _, state in members}
    return {
        "org_id": scope[0],
        "scope": scope[1],
        "name": scope[2],
        "state": "resolved" if states == {"resolved"} else "acknowledged" if "acknowledged" in states else "open",
        "severity": str(gravest.get("severity", "")),
        "cost_nano": max(map(_nano, data)) or None,  # a rule about tokens names no money: not known, and not 0
        "since": times[0],
        "last": times[-1],
        "kinds": sorted({str(one["kind"]) for one in data}),
        "alerts": [str(event.get("id", "")) for event, _ in members],
        "text": str(gravest.get("text", "")),
    }


def _rank(data: Facts) -> int:
    said = data.get("severity")
    return next((number for number, known in enumerate(SEVERITIES) if known == said), len(SEVERITIES))


def _nano(data: Facts) -> int:
    """Return the money that an alert names, 0 where it names none."""
    value = data.get("cost_nano")
    return value if isinstance(value, int) else 0
