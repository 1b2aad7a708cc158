"""Incidents as they are listed, by command, page and API: alerts of ClickHouse grouped, dearest first. Pure.

What notify has not taken, or not yet, is one incident for each scope, without an id.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tollmeter.schemas.json_values import loads
from tollmeter.streams.notify.incidents import ANOMALIES, KEY
from tollmeter.streams.notify.notice import SEVERITIES, Scope

Row = Mapping[str, Any]
"""A row of `incident_alerts`: event (the CloudEvent as text), state, held, incident, turn, body."""
Incident = dict[str, Any]
Document = Mapping[str, Any]
KINDS = tuple(sorted(ANOMALIES))


def incidents(rows: Iterable[Row]) -> list[Incident]:
    """Group alerts by incident: those that go on first, then by money at stake. Rows are in order of time.

    What is told by the incident of a key alone, of its user, address or organisation, is not listed beside it.
    """
    groups: dict[tuple[str, Scope], list[tuple[Row, Document]]] = {}
    for row in rows:
        event = loads(row["event"])
        data = event.get("data") if isinstance(event, dict) else None
        if isinstance(data, dict) and data.get("kind") in ANOMALIES:
            scope = str(data.get("org_id", "")), str(data.get("scope", "")), str(data.get("name", ""))
            groups.setdefault((str(row["incident"]), scope), []).append((row, event))
    told = {key: rows for key, rows in groups.items() if any(row["held"] != KEY for row, _ in rows)}
    made = [_incident(*key, members) for key, members in told.items()]
    return sorted(made, key=lambda one: (one["state"] == "resolved", -(one["cost_nano"] or 0), one["since"], one["id"]))


def _incident(identity: str, scope: Scope, members: list[tuple[Row, Document]]) -> Incident:
    data = [event["data"] for _, event in members]
    times = sorted(str(event.get("time", "")) for _, event in members)
    gravest = max(data, key=lambda one: (_rank(one), _nano(one)))
    told = [row for row, _ in members if row["held"] in ("", "storm", "cap")]
    bodies = [str(row["body"]) for row in told if row["body"]]
    text = bodies[-1] if bodies else str(gravest.get("text", ""))
    return {
        "id": identity,
        "org_id": scope[0],
        "scope": scope[1],
        "name": scope[2],
        "state": _state([str(row["state"]) for row, _ in members], [str(row["state"]) for row in told]),
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


def _state(states: list[str], told: list[str]) -> str:
    """Return the state: somebody takes care of it while what people were told last of it is acknowledged."""
    if set(states) == {"resolved"}:
        return "resolved"
    going = [state for state in told if state != "resolved"] or states
    return "acknowledged" if going[-1] == "acknowledged" else "open"


def _rank(data: Document) -> int:
    said = data.get("severity")
    return next((number for number, known in enumerate(SEVERITIES) if known == said), len(SEVERITIES))


def _nano(data: Document) -> int:
    """Return the money that an alert names, 0 where it names none."""
    value = data.get("cost_nano")
    return value if isinstance(value, int) else 0
