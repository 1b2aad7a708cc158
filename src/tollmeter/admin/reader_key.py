"""Whose figures a key of the server may read: the same answer as the server's, from the registry."""

from datetime import datetime

from tollmeter.admin.secret import secret_of
from tollmeter.broker.registry import read
from tollmeter.schemas.access import EVERYONE
from tollmeter.schemas.registry import ServerKey, digest
from tollmeter.settings import Settings


class NoReaderError(Exception):
    """The key may not read; the text says why and what to do."""


def readable_org(settings: Settings, presented: str, now: datetime) -> str:
    """Return the organisation whose figures the key reads, "" for all of them.

    Raises `NoReaderError`, `RegistryError`, `SecretError`.
    """
    wanted = digest(secret_of(settings), presented)
    for key in read(settings).values():
        if not isinstance(key, ServerKey):
            continue
        earlier = key.earlier_until is not None and now < key.earlier_until and key.earlier_digest == wanted
        if key.digest == wanted or earlier:
            if not key.active:
                raise NoReaderError(f"the key {key.name!r} is switched off")
            if key.role not in ("read", "admin"):
                raise NoReaderError(f"the key {key.name!r} is for {key.role}: make one with --role read")
            return "" if key.org_id == EVERYONE else key.org_id
    raise NoReaderError("nobody knows this key: make one with 'tollmeter server-key create --role read'")
