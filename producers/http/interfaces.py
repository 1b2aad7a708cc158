"""What a meter is given: an HTTP request as values, a producer, a guard; and what it gives back to refuse a call."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs

from tollmeter.producers.guard.decision import Allow, Deny
from tollmeter.producers.http.quote import Quoting
from tollmeter.schemas.event import UsageEvent

_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")


class Producing(Protocol):
    """What a meter needs of a `UsageProducer`."""

    def record(self, event: UsageEvent, /) -> str: ...

    def key_id(self, secret: str | bytes) -> str: ...


class Guarding(Quoting, Protocol):
    """What a meter needs of a `Guard`."""

    def check(self, model: str, **question: object) -> Allow | Deny: ...

    def answered(self, sent: str, by: str, provider: str = "", api_host: str = "") -> None: ...


class Request(NamedTuple):
    """An HTTP request as far as it matters here."""

    host: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes


class Refusal(NamedTuple):
    """The answer that a refused call gets instead of the provider's."""

    http_status: int
    headers: dict[str, str]
    content: bytes


def key_of(request: Request) -> str:
    """Return the provider key that a request carries; "" when it carries none."""
    found = next((request.headers[name] for name in _KEY_HEADERS if request.headers.get(name)), "")
    if found:
        return found
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return secret.strip()
    return next(iter(parse_qs(request.query).get("key", [])), "")
