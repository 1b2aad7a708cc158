"""Incidents as they are listed, by command, page and API: alerts of ClickHouse grouped, dearest first. Pure.

What notify has not taken, or not yet, is one incident for each scope, without an id.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tollmeter.schemas.json_values import loads
from tollmeter.streams.notify.incidents import ANOMALIES
from tollmeter.streams.notify.notice import SEVERITIES, Scope

Row = Mapping[str, Any]
"""A row of `incident_alerts`: event (the CloudEvent as text), state, held, incident, turn, body."""
Incident = dict[str, Any]
Document = Mapping[str, Any]
KINDS = tuple(sorted(ANOMALIES))


def incidents(rows: Iterable[Row]) -> list[Incident]:
    """Group alerts by incident: those that go on first, then by money at stake. Rows are in order of time."""
    groups: dict[tuple[str, Scope], list[tuple[Row, Document]]] = {}
    for row in rows:
        event = loads(row["event"])
        data = event.get("data") if isinstance(event, dict) else None
        if isinstance(data, dict) and data.get("kind") in ANOMALIES:
            scope = str(data.get("org_id", "")), str(data.get("scope", "")), str(data.get("name", ""))
            groups.setdefault((str(row["incident"]), scope), []).append((row, event))
    made = [_incident(*key, members) for key, members in groups.items()]
    return sorted(made, key=lambda one: (one["state"] == "resolved", -(one["cost_nano"] or 0), one["since"], one["id"]))


def _incident(identity: str, scope: Scope, members: list[tuple[Row, Document]]) -> Incident:
    data = [event["data"] for _, event in members]
    times = sorted(str(event.get("time", "")) for _, event in members)
    gravest = max(data, key=lambda one: (_rank(one), _nano(one)))
    told = [str(row["body"]) for row, _ in members if row["body"] and row["held"] in ("", "storm", "cap")]
    text = told[-1] if told else str(gravest.get("text", ""))
    return {
        "id": identity,
        "org_id": scope[0],
        "scope": scope[1],
        "name": scope[2],
        "state": _state({str(row["state"]) for row, _ in members}),
        "turns": max(int(row["turn"] or 1) for row, _ in members),
        "severity": str(gravest.get("severity", "")),
        "cost_nano": max(map(_nano, data)) or None,  # a rule about tokens names no money: not known, and not 0
        "since": times[0],
        "last": times[-1],
        "kinds": sorted({str(one["kind"]) for one in data}),
        "alerts": [str(event.get("id", "")) for _, event in members],
        "held": sum(bool(row["held"]) for row, _ in members),
        "text": text.partition("\n")[0],
        "evidence": text.split("\n")[1:],
    }


def _state(states: set[str]) -> str:
    if states == {"resolved"}:
        return "resolved"
    return "acknowledged" if "acknowledged" in states else "open"


def _rank(data: Document) -> int:
    said = data.get("severity")
    return next((number for number, known in enumerate(SEVERITIES) if known == said), len(SEVERITIES))


def _nano(data: Document) -> int:
    """Return the money that an alert names, 0 where it names none."""
    value = data.get("cost_nano")
    return value if isinstance(value, int) else 0
