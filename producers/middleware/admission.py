"""What happens to a request before the application sees it: an id of our own, who asks, from where, and may they.

The same for ASGI and WSGI, and without either. Refusals look as the guard words them.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypedDict

from tollmeter.producers.client.ids import Ids
from tollmeter.producers.client.scope import Scope
from tollmeter.producers.guard.decision import Deny
from tollmeter.producers.http.meter import faults, said
from tollmeter.producers.middleware.forwarded import Proxies, caller_address, checked_proxies
from tollmeter.schemas.secrets import IpMode, mask_ip

REQUEST_ID_HEADER = "x-request-id"
_ids = Ids()

Identify = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""Given ASGI scope or WSGI environment, returns event fields of the caller (user_id, org_id ...) and `groups`."""


class Admitting(Protocol):
    """What the door needs of a `Guard`."""

    def admit(self, **question: object) -> Deny | None: ...


class Entry(NamedTuple):
    """A request on its way in: the id that its answer bears, what is known of it, and the refusal if it is refused."""

    request_id: str
    scope: Scope
    deny: Deny | None

    @property
    def refusal(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the answer to a refused request."""
        assert self.deny is not None
        headers = {"content-type": "application/json", REQUEST_ID_HEADER: self.request_id, **self.deny.headers}
        return self.deny.http_status, headers, json.dumps(self.deny.body).encode()


class Options(TypedDict, total=False):
    """What a middleware hands on to its `Admission`."""

    guard: Admitting | None
    identify: Identify | None
    trusted_proxies: int | Iterable[str]
    ip_mode: IpMode
    ip_salt: str


def admission(options: Options) -> "Admission":
    """Return the admission of a middleware. Raises ValueError as `Admission` does."""
    proxies = checked_proxies(options.get("trusted_proxies", ()))
    return Admission(**{**options, "trusted_proxies": proxies})  # type: ignore[arg-type]  # the names are its own


@dataclass(frozen=True)
class Admission:
    """`trusted_proxies` are addresses or networks whose X-Forwarded-For is believed, or how many proxies there are.
    `ip_mode` says how much of the address events keep (full, truncated, hashed with `ip_salt`, none); the guard looks
    at the whole of it.
    """

    guard: Admitting | None = None
    identify: Identify | None = None
    trusted_proxies: Proxies = ()
    ip_mode: IpMode = "full"
    ip_salt: str = ""

    def __post_init__(self) -> None:
        checked_proxies(self.trusted_proxies)
        mask_ip("192.0.2.1", self.ip_mode, self.ip_salt)

    def enter(self, headers: Iterable[tuple[str, str]], peer: str | None, request: Mapping[str, object]) -> Entry:
        """Return what is known of a request; never raises. `identify` that fails leaves the caller unknown."""
        request_id, _ = _ids.next()
        address = caller_address(headers, peer, self.trusted_proxies)
        kept = mask_ip(address, self.ip_mode, self.ip_salt)
        scope = self._identified(request).with_fields({"request_id": request_id, "client_ip": kept})
        if self.guard is not None:  # the key of a provider is only seen at the call, and counted there
            kinds = {"client_ip": address, "api_key": scope.fields.get("api_key_id")}
            scope = scope._replace(counted=frozenset(kind for kind, name in kinds.items() if name))
        return Entry(request_id, scope, self._refused(scope, address, kept))

    def _identified(self, request: Mapping[str, object]) -> Scope:
        try:
            return Scope().with_fields((self.identify(request) if self.identify is not None else None) or {})
        except Exception as error:
            faults.warn("a caller could not be identified, the request goes on without: %s", said(error))
            return Scope()

    def _refused(self, scope: Scope, address: str, kept: str) -> Deny | None:
        if self.guard is None:
            return None
        known = dict(scope.fields)
        org, user, key = (str(known.pop(name, "")) for name in ("org_id", "user_id", "api_key_id"))
        del known["client_ip"]
        try:
            return self.guard.admit(org=org, user=user, api_key_id=key, client_ip=address, kept_ip=kept, **known)
        except Exception as error:
            faults.warn("the guard failed, the request goes on unchecked: %s", said(error))
            return None
