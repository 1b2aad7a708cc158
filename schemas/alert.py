"""An alert: an edge, once per (rule, limit, scope, period, threshold). On the wire: CloudEvents 1.0 structured JSON."""

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

from tollmeter.schemas.escapes import json_text

SOURCE = "tollmeter/watch"
CONTENT_TYPE = [("content-type", b"application/cloudevents+json")]
"""Headers of the record that carries one."""
Severity = Literal["info", "warning", "critical"]


def whom(org_id: str, scope: str, name: str) -> str:
    """Name a scope in a sentence; calls may have no organisation."""
    if scope == "org":
        return org_id or "the calls without an organisation"
    return f"{scope} {name} of {org_id}" if org_id else f"{scope} {name}"


def alert_id(*parts: str) -> str:
    """Return 32 hex of a hash over length-prefixed parts, so that ("a", "bc") and ("ab", "c") differ."""
    joined = b"".join(
        len(data).to_bytes(4, "big") + data for data in (part.encode("utf-8", "surrogatepass") for part in parts)
    )
    return sha256(joined).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Alert:
    """What `source` found. `received_at`: append time of the event that crossed; `period` like 2026-11-22 or 2026-11.

    `facts` holds integers with their unit in the name (spent_nano, limit_nano, threshold_pct ...), JSON-ready.
    """

    id: str
    kind: str
    severity: Severity
    org_id: str
    scope: str
    name: str
    period: str
    received_at: datetime
    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    source: str = SOURCE
    late_s: int = 0
    """Seconds between the newest event that may have caused it and its arrival; not on the wire."""

    def cloudevent(self) -> dict[str, Any]:
        """Return the CloudEvent; its `time` is that of the event that caused it, so a replay gives the same bytes."""
        data = {
            "kind": self.kind,
            "severity": self.severity,
            "org_id": self.org_id,
            "scope": self.scope,
            "name": self.name,
            "period": self.period,
            "text": self.text,
            **self.facts,
        }
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": f"tollmeter.alert.{self.kind}",
            "subject": f"{self.org_id}/{self.scope}/{self.name}",
            "time": _rfc3339(self.received_at),
            "datacontenttype": "application/json",
            "data": data,
        }

    def wire(self) -> bytes:
        return json_text(self.cloudevent(), compact=True).encode()


def _rfc3339(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
