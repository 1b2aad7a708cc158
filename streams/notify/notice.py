"""A notice: what notify knows about one alert. A value; every change is a new value that goes into the journal whole.

Times are seconds since 1970 UTC by notify's clock.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollmeter.schemas.alert import Severity

FORMAT = 1
AHEAD_S = 86_400.0
"""A clock that is further ahead is not believed."""
AGAIN = "The limit is in force again, within the same period."
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
Scope = tuple[str, str, str]
"""Organisation, kind of scope, name."""


class Delivery(BaseModel):
    """One message to one consumer: that the alert opened, or that it resolved."""

    model_config = ConfigDict(frozen=True)

    consumer: str
    about: Literal["opened", "resolved"] = "opened"
    status: Literal["pending", "sent", "failed", "digest", "digested"] = "pending"
    since_s: float
    """Queued at; given up so long after it."""
    next_s: float = 0.0
    attempts: int = 0
    error: str = ""


class Notice(BaseModel):
    """An alert with its state, its text and its deliveries. `event` is the CloudEvent as WATCH, a guard ... sent it."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    id: str
    """That of its event; of a limit that is in force again, with the number of the opening behind it."""
    opening: int = 1
    event: dict[str, Any]
    state: Literal["open", "acknowledged", "resolved"] = "open"
    opened_s: float
    held: str = ""
    """Why nobody is told at once: muted, expected, repeat, incident, organisation, key, old, storm, cap, no route;
    empty when the consumers are."""
    incident: str = ""
    """The id of the incident that an anomaly belongs to; empty for other kinds."""
    turn: int = 1
    """How often its incident had opened by then."""
    change: Literal["opened", "updated", "reopened"] = "opened"
    """What it is to its incident: the first alert of a turn is what opens it, or opens it again."""
    title: str = ""
    body: str = ""
    deliveries: tuple[Delivery, ...] = ()
    covers: tuple[str, ...] = ()
    """A digest: the ids of the notices it tells of."""
    acknowledged_by: str = ""
    resolved_s: float | None = None
    resolution: str = ""

    @property
    def base_id(self) -> str:
        """Return the id of the alert that WATCH raises, whichever opening this is."""
        return self.id if self.opening == 1 else self.id.removesuffix(f"-{self.opening}")

    @property
    def kind(self) -> str:
        return self._text("kind")

    @property
    def severity(self) -> Severity:
        """Return the severity; of an unknown word that nobody is to miss, critical."""
        said = self._text("severity")
        return next((known for known in SEVERITIES if known == said), "critical")

    @property
    def scope(self) -> Scope:
        return self._text("org_id"), self._text("scope"), self._text("name")

    @property
    def facts(self) -> dict[str, Any]:
        """Return the data of the event."""
        data = self.event.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def raised_s(self) -> float:
        """Return when the event that caused the alert was received; when the notice opened where that cannot be."""
        try:
            raised = datetime.fromisoformat(self.event["time"]).timestamp()
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            return self.opened_s
        return raised if raised < self.opened_s + AHEAD_S else self.opened_s

    def reworded(self, said: "Notice") -> "Notice":
        """Return the notice with what it shall say instead, its state and deliveries as they are."""
        names = ("event", "title", "body", "resolution", "acknowledged_by")
        return self.model_copy(update={name: getattr(said, name) for name in names})

    def _text(self, name: str) -> str:
        value = self.facts.get(name, "")
        return value if isinstance(value, str) else str(value)

    def changed(self, delivery: Delivery) -> "Notice":
        """Return the notice with this delivery in place of the one to the same consumer about the same."""
        same = (delivery.consumer, delivery.about)
        return self.model_copy(
            update={"deliveries": tuple(delivery if (d.consumer, d.about) == same else d for d in self.deliveries)}
        )


def reopened(notice: Notice, at_s: float) -> Notice:
    """Return the next opening of a notice that was resolved, not yet told to anybody."""
    opening = notice.opening + 1
    identity = f"{notice.base_id}-{opening}"
    event = {**notice.event, "id": identity, "time": datetime.fromtimestamp(at_s, UTC).isoformat()}
    body = f"{AGAIN}\n{notice.body.removeprefix(AGAIN).lstrip()}"
    return Notice(id=identity, opening=opening, event=event, opened_s=at_s, title=notice.title, body=body)


class Mute(BaseModel):
    """Alerts that match are recorded and told to nobody until `until_s`. Empty fields match everything."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    kind: str = ""
    org: str = ""
    scope: str = ""
    name: str = ""
    until_s: float
    by: str = ""
    reason: str = ""

    @property
    def id(self) -> str:
        """What is muted, as one name: the same selection again replaces the mute."""
        parts = (self.kind, self.org, self.scope, self.name)
        return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:16]

    def matches(self, kind: str, scope: Scope) -> bool:
        """Tell whether it mutes an alert of this kind and scope."""
        wanted = ((self.kind, kind), *zip((self.org, self.scope, self.name), scope, strict=True))
        return all(not mine or mine == given for mine, given in wanted)


class Acknowledgement(BaseModel):
    """Somebody takes care of an alert."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    by: str = Field(max_length=200)
    at_s: float
