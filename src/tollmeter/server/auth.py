"""Who asks? A key leads to a `Caller`, a tracking token to a `TrackingToken`; a directory knows both.

`Directory` is the border: whoever keeps keys and tokens (a registry) implements its methods, which are called once a
request and must neither wait nor raise. `SettingsKeys` knows the keys of the environment alone; `Directories` asks
several, first come, first served. Keys are looked up by a keyed digest, never compared one by one, and never kept.
"""

import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, Protocol

from tollmeter.server.problems import Problem
from tollmeter.server.settings import ServerSettings

Role = Literal["admin", "ingest", "read"]
ADMIN, INGEST = "x-api-key", "x-ingest-key"
"""Headers of the keys; each key also goes as `Authorization: Bearer`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what for. `key_id` names the key in logs and limits, "" where none was asked for."""

    key_id: str
    role: Role
    org_id: str
    may_set_identity: bool = False
    """Whether organisation, user and group in what he sends are believed."""


@dataclass(frozen=True, slots=True)
class TrackingToken:
    """A public name under which calls are attributed; no secret, no right to anything."""

    token_id: str
    name: str
    value: str
    org_id: str
    active: bool = True
    group_id: str = ""


class Directory(Protocol):
    """Knows keys and tokens. Lookups answer from memory; `active_tokens` is None while that is not known."""

    def caller(self, secret: str) -> Caller | None:
        """Return whom a key belongs to; None for one that is unknown, revoked or expired."""

    def token(self, value: str) -> TrackingToken | None:
        """Return a tracking token, also one that is switched off; None for one that nobody made."""

    @property
    def active_tokens(self) -> int | None: ...

    @property
    def loaded(self) -> bool:
        """Whether a key that it does not know is unknown; else nobody has told it yet."""


class SettingsKeys:
    """The keys that the environment names: API_KEY, INGEST_KEY, READ_KEY, all of one organisation; no tokens."""

    active_tokens: int | None = 0
    loaded: bool = True

    def __init__(self, settings: ServerSettings, org: str) -> None:
        self._salt = os.urandom(32)
        identity = settings.ingest_may_set_identity
        callers = (
            (settings.read_key.get_secret_value(), Caller("READ_KEY", "read", org)),
            (settings.ingest_key.get_secret_value(), Caller("INGEST_KEY", "ingest", org, identity)),
            (settings.api_key.get_secret_value(), Caller("API_KEY", "admin", org, True)),
        )
        self._callers = {self._digest(secret): caller for secret, caller in callers if secret}

    def caller(self, secret: str) -> Caller | None:
        return self._callers.get(self._digest(secret))

    def token(self, value: str) -> TrackingToken | None:
        return None

    def _digest(self, secret: str) -> bytes:
        return hmac.digest(self._salt, secret.encode("utf-8", "surrogateescape"), sha256)


class Directories:
    """Asks several directories in order."""

    def __init__(self, directories: Sequence[Directory]) -> None:
        self._directories = tuple(directories)

    def caller(self, secret: str) -> Caller | None:
        for one in self._directories:
            if (found := one.caller(secret)) is not None:
                return found
        return None

    def token(self, value: str) -> TrackingToken | None:
        for one in self._directories:
            if (found := one.token(value)) is not None:
                return found
        return None

    @property
    def active_tokens(self) -> int | None:
        counts = [one.active_tokens for one in self._directories]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def loaded(self) -> bool:
        return all(one.loaded for one in self._directories)


class Doorman:
    """Says who a request is from, or why it is refused. Without keys in development everybody may do everything."""

    def __init__(self, settings: ServerSettings, org: str, directory: Directory) -> None:
        self._directory = directory
        everybody = Caller("", "admin", org, True)
        self._open: dict[Role, Caller] = {}
        if not settings.production:
            if not settings.ingest_key.get_secret_value():
                self._open["ingest"] = everybody
            if not settings.api_key.get_secret_value():
                self._open |= {"admin": everybody, "read": everybody}

    def asks_for(self, role: Role) -> bool:
        """Tell whether a key is asked for."""
        return role not in self._open

    def identify(self, headers: Mapping[str, str], roles: Sequence[Role]) -> Caller:
        """Return who asks, in one of these roles; an admin may do what all may. Raises `Problem` 401 or 403."""
        secret = presented(headers)
        caller = self._directory.caller(secret) if secret else None
        if caller is not None and (caller.role in roles or caller.role == "admin"):
            return caller
        if (everybody := self._open.get(roles[0])) is not None:
            return everybody
        if caller is not None:
            raise Problem(403, "wrong_role", f"this key is for {caller.role}; {' or '.join(roles)} is asked for here")
        if secret and not self._directory.loaded:
            raise Problem(503, "keys_not_known", "keys are not known yet: try again", headers={"retry-after": "2"})
        what = "no such key" if secret else "no key"
        how = INGEST if roles[0] == "ingest" else ADMIN
        raise Problem(
            401,
            "bad_key" if secret else "no_key",
            f"{what}: send it in the header {how}, or as Authorization: Bearer",
            headers={"www-authenticate": 'Bearer realm="tollmeter"'},
        )


def presented(headers: Mapping[str, str]) -> str:
    """Return the key that a request carries; "" for none. The header for it counts before a bearer."""
    own = headers.get(INGEST) or headers.get(ADMIN)
    if own:
        return own.strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""
