"""A message to one consumer: made from a notice, the same on every attempt; its `key` tells a receiver of a repeat."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tollmeter.schemas.alert import Severity
from tollmeter.schemas.escapes import json_text


class Away(Exception):  # noqa: N818 - a state, not a mistake
    """The consumer does not work now: try again later, in `wait_s` at the earliest, and nothing else before."""

    def __init__(self, said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.wait_s = wait_s


class Unsure(Exception):  # noqa: N818 - a state, not a mistake
    """The consumer did not take this message and does not say why: it waits, the others are tried, but not at once."""


class Refused(Exception):  # noqa: N818 - a verdict
    """The consumer works and does not take this message."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a consumer gets. `event` is the CloudEvent of the alert."""

    key: str
    about: Literal["opened", "resolved"]
    kind: str
    severity: Severity
    title: str
    body: str
    at_s: float
    event: Mapping[str, Any] = field(repr=False)

    def document(self) -> bytes:
        """Return the message as JSON, the same bytes on every attempt."""
        fields = {
            "id": self.key,
            "type": f"tollmeter.alert.{self.about}",
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "text": self.body,
            "alert": self.event,
        }
        return json_text(fields, compact=True).encode()


class Channel(Protocol):
    """Takes messages. Called in a thread; one message at a time."""

    def deliver(self, message: Message) -> None:
        """Return when the consumer has taken the message. Raises `Away`, `Refused` or `Unsure`."""
