"""What is common to all calls of one client, and how a fault of the meter is told: rarely, without anybody's text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tollmeter.producers.client.destinations import RateLimited
from tollmeter.producers.http.interfaces import Guarding, Producing
from tollmeter.producers.http.pending import Holding

HTTP_ERROR = 400
NOT_SENT = frozenset(
    (
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "LocalProtocolError",
        "ConnectionRefusedError",
        "gaierror",
    )
)
"""Errors of the HTTP library after which the provider has not seen the request: nothing was used."""
faults = RateLimited()


@dataclass(frozen=True)
class Meter:
    """What is common to all calls of one client. `fields` are event fields of each call; the scope's win over them."""

    producer: Producing | None = None
    guard: Guarding | None = None
    provider: str | None = None
    tokenizer: Callable[[str, bytes], int] | None = None
    """Counts the prompt's tokens, given model and request body."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    hold_s: float = 0.0
    """How long an estimate waits to be replaced before it is recorded."""
    holding: Holding = field(default_factory=Holding)
    signs_anew: bool = False
    """Whether the owner signs what it sends by itself, so that a request may be written anew."""
    surely: bool = False
    """Whether only what is surely a call to a model counts: the client may be used for anything."""


def said(error: Exception) -> str:
    """Name an error without its text: that may repeat what was sent."""
    return type(error).__name__
