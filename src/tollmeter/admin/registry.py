"""Keys of the server, tracking tokens and labels of provider keys: made, changed and listed.

The same functions serve the commands and the server. Each change is answered when it is on the log and was read back;
secrets are shown once, by whoever asked for them.
"""

import secrets
import string
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from tollmeter.admin.secret import secret_of
from tollmeter.broker.registry import RegistryError, Rows, read, write
from tollmeter.schemas.access import EVERYONE
from tollmeter.schemas.registry import (
    BillKey,
    CostLine,
    KeyLabel,
    KeyUse,
    Role,
    ServerKey,
    TrackingToken,
    digest,
    secret_id,
)
from tollmeter.settings import Settings

KEY_MARK = "tmk_"
_KEY_CHARS = 40
_ALPHABET = string.ascii_letters + string.digits
TOKEN_LENGTHS = range(16, 41)

_Shape = TypeVar("_Shape", ServerKey, TrackingToken, KeyLabel)
_Row = TypeVar("_Row", bound=BaseModel)


class UnknownEntryError(RegistryError):
    """There is no such key, token or label (in that organisation)."""


class Issued(NamedTuple):
    """A key with its secret, which is nowhere else."""

    key: ServerKey
    secret: str


class ListedKey(NamedTuple):
    """A key, and when it was last used, to about an hour; None: never."""

    key: ServerKey
    used_at: datetime | None


# -- keys of the server ------------------------------------------------------------------------------------------------


def create_key(
    settings: Settings, org: str, role: Role, name: str, now: datetime, *, may_set_identity: bool = False
) -> Issued:
    """Return a new key of the server. Raises `RegistryError`, `SecretError`."""
    secret, presented = secret_of(settings), _fresh_key()
    _same_secret(read(settings), secret)
    made = _made(
        ServerKey,
        id=_fresh_id(),
        name=name,
        org_id=org,
        role=role,
        may_set_identity=may_set_identity,
        created_at=now,
        digest=digest(secret, presented),
        secret_id=secret_id(secret),
    )
    write(settings, {made.key: made})
    return Issued(made, presented)


def rotate_key(settings: Settings, id_: str, now: datetime, old_until: datetime | None, org: str = EVERYONE) -> Issued:
    """Return the key with a new secret; the one before works until `old_until`, None: no longer.

    Raises `UnknownEntryError`, `RegistryError`, `SecretError`.
    """
    secret, presented = secret_of(settings), _fresh_key()
    found = _key(settings, id_, org)
    made = found.model_copy(
        update={
            "digest": digest(secret, presented),
            "secret_id": secret_id(secret),
            "rotated_at": now,
            "earlier_digest": found.digest if old_until else None,
            "earlier_until": old_until,
        }
    )
    write(settings, {made.key: made})
    return Issued(made, presented)


def switch_key(settings: Settings, id_: str, active: bool, org: str = EVERYONE) -> ServerKey:
    """Switch a key off or on. Raises `UnknownEntryError`, `RegistryError`."""
    made = _key(settings, id_, org).model_copy(update={"active": active})
    write(settings, {made.key: made})
    return made


def delete_key(settings: Settings, id_: str, org: str = EVERYONE) -> None:
    """Take a key away for good. Raises `UnknownEntryError`, `RegistryError`."""
    found = _key(settings, id_, org)
    write(settings, {found.key: None, KeyUse(id=found.id, at=found.created_at).key: None})


def keys(settings: Settings, org: str = EVERYONE) -> list[ListedKey]:
    """Return the keys of an organisation, or of all, oldest first. Raises `RegistryError`."""
    rows = read(settings)
    used = {row.id: row.at for row in rows.values() if isinstance(row, KeyUse)}
    found = _of(rows, ServerKey, org)
    return [ListedKey(key, used.get(key.id)) for key in sorted(found, key=lambda key: (key.created_at, key.id))]


# -- tracking tokens ---------------------------------------------------------------------------------------------------


def create_token(settings: Settings, org: str, name: str, now: datetime, length: int) -> TrackingToken:
    """Return a new tracking token of so many characters. Raises `RegistryError`."""
    if length not in TOKEN_LENGTHS:
        raise RegistryError(f"a tracking token has {TOKEN_LENGTHS[0]} to {TOKEN_LENGTHS[-1]} characters, not {length}")
    value = "".join(secrets.choice(_ALPHABET) for _ in range(length))
    made = _made(TrackingToken, id=_fresh_id(), name=name, value=value, org_id=org, created_at=now)
    write(settings, {made.key: made})
    return made


def put_tokens(settings: Settings, tokens: Iterable[TrackingToken]) -> int:
    """Add tokens that exist elsewhere, and return how many were new. Raises `RegistryError`.

    One whose value another organisation has is refused: it says whose usage it is.
    """
    known = {token.value: token for token in _of(read(settings), TrackingToken, EVERYONE)}
    fresh = {}
    for token in tokens:
        there = known.get(token.value)
        if there is not None and there.org_id != token.org_id:
            raise RegistryError(f"tracking token {token.name!r} belongs to organisation {there.org_id} already")
        if there is None:
            fresh[token.key] = token
    write(settings, fresh)
    return len(fresh)


def switch_token(settings: Settings, id_: str, active: bool, org: str = EVERYONE) -> TrackingToken:
    """Switch a tracking token off or on. Raises `UnknownEntryError`, `RegistryError`."""
    made = _token(settings, id_, org).model_copy(update={"active": active})
    write(settings, {made.key: made})
    return made


def delete_token(settings: Settings, id_: str, org: str = EVERYONE) -> None:
    """Take a tracking token away; what it has named stays. Raises `UnknownEntryError`, `RegistryError`."""
    write(settings, {_token(settings, id_, org).key: None})


def tokens(settings: Settings, org: str = EVERYONE) -> list[TrackingToken]:
    """Return the tracking tokens of an organisation, or of all, oldest first. Raises `RegistryError`."""
    return sorted(_of(read(settings), TrackingToken, org), key=lambda token: (token.created_at, token.id))


# -- labels of provider keys -------------------------------------------------------------------------------------------


def label_keys(
    settings: Settings, org: str, ids: Sequence[str], label: str, owner: str = "", cost_centre: str = ""
) -> list[KeyLabel]:
    """Give provider keys one label, in place of any they had there. Raises `RegistryError`."""
    made = [
        _made(KeyLabel, org_id=org, api_key_id=id_, label=label, owner=owner, cost_centre=cost_centre) for id_ in ids
    ]
    write(settings, {one.key: one for one in made})
    return made


def unlabel_key(settings: Settings, org: str, id_: str) -> None:
    """Take the label of a provider key away; an absent one is no error. Raises `RegistryError`."""
    write(settings, {_made(KeyLabel, org_id=org, api_key_id=id_, label="-").key: None})


def labels(settings: Settings, org: str = EVERYONE) -> list[KeyLabel]:
    """Return the labels that an organisation's calls get, or all, by label. Raises `RegistryError`."""
    rows = [row for row in read(settings).values() if isinstance(row, KeyLabel)]
    found = [row for row in rows if EVERYONE in (org, row.org_id) or row.org_id == org]
    return sorted(found, key=lambda row: (row.label, row.org_id, row.api_key_id))


# -- what bills say ----------------------------------------------------------------------------------------------------


def put_bill_key(settings: Settings, provider: str, ref: str, api_key_id: str) -> BillKey:
    """State which key of ours a provider means by its name of one. Raises `RegistryError`."""
    made = _made(BillKey, provider=provider, ref=ref, api_key_id=api_key_id)
    write(settings, {made.key: made})
    return made


def delete_bill_key(settings: Settings, provider: str, ref: str) -> None:
    """Forget it; an unknown one is no error. Raises `RegistryError`."""
    write(settings, {_made(BillKey, provider=provider, ref=ref, api_key_id="-").key: None})


def bill_keys(settings: Settings) -> list[BillKey]:
    """Return what was stated, by provider and name. Raises `RegistryError`."""
    rows = [row for row in read(settings).values() if isinstance(row, BillKey)]
    return sorted(rows, key=lambda row: (row.provider, row.ref))


def put_cost_line(settings: Settings, fields: dict[str, object]) -> CostLine:
    """Book a cost that no call shows with each month, in place of one of its name. Raises `RegistryError`."""
    made = _made(CostLine, **fields)
    write(settings, {made.key: made})
    return made


def delete_cost_line(settings: Settings, org: str, name: str) -> None:
    """Take it away; an absent one is no error. Raises `RegistryError`."""
    write(settings, {_made(CostLine, org_id=org, name=name, provider="-", unit_nano=1, since="2000-01").key: None})


def token_id(value: str) -> str:
    """Return the id of a tracking token that exists elsewhere: imported again it is the same row."""
    return sha256(f"tracking token\0{value}".encode()).hexdigest()[:12]


def _of(rows: Rows, shape: type[_Shape], org: str) -> list[_Shape]:
    return [row for row in rows.values() if isinstance(row, shape) and org in (EVERYONE, row.org_id)]


def _key(settings: Settings, id_: str, org: str) -> ServerKey:
    found = [key for key in _of(read(settings), ServerKey, org) if key.id == id_]
    if not found:
        raise UnknownEntryError(f"no key of the server has the id {id_!r}")
    return found[0]


def _token(settings: Settings, id_: str, org: str) -> TrackingToken:
    found = [token for token in _of(read(settings), TrackingToken, org) if token.id == id_]
    if not found:
        raise UnknownEntryError(f"no tracking token has the id {id_!r}")
    return found[0]


def _same_secret(rows: Rows, secret: bytes) -> None:
    """Raise `RegistryError` where the keys in force were hashed under another secret: no server would know this one."""
    others = {key.secret_id for key in _of(rows, ServerKey, EVERYONE) if key.active} - {secret_id(secret)}
    if others:
        raise RegistryError(
            "the keys in force were made under another secret: set TOLLMETER_SECRET to the one of the servers; "
            "where it is lost, delete those keys first"
        )


def _made(shape: type[_Row], **fields: object) -> _Row:
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise RegistryError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _fresh_id() -> str:
    return secrets.token_hex(6)


def _fresh_key() -> str:
    return KEY_MARK + "".join(secrets.choice(_ALPHABET) for _ in range(_KEY_CHARS))
