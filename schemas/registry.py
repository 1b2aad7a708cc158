"""Who may ask the server, which tokens name a sender, and what people call a provider key: rows of `usage.registry`.

Each row is a JSON document under its key; a record without a value takes the row away. Secrets are known by a keyed
hash alone. A tracking token is no secret: it says whose usage it is, and stands in pages of browsers.
"""

import hmac
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tollmeter.schemas.access import EVERYONE, access_id
from tollmeter.schemas.json_values import loads

KEY_PREFIX, TOKEN_PREFIX, LABEL_PREFIX, USED_PREFIX = "key:", "token:", "label:", "used:"
BILL_KEY_PREFIX, COST_LINE_PREFIX = "bill_key:", "cost_line:"
Role = Literal["admin", "ingest", "read"]
ROLES: tuple[Role, ...] = ("admin", "ingest", "read")
DIGEST_PATTERN = r"^[0-9a-f]{64}$"

_Org = Annotated[str, Field(min_length=1, max_length=256)]
_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
_Name = Annotated[str, Field(min_length=1, max_length=128)]
_Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]
_MONTH = r"^\d{4}-(0[1-9]|1[0-2])$"
_PRIVATE = frozenset({"digest", "earlier_digest", "secret_id"})
"""What the copy in ClickHouse leaves out."""


class ServerKey(BaseModel):
    """A key of the server: what it may do, for one organisation. `admin` may do what `ingest` and `read` may, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Id
    name: _Name
    org_id: _Org
    role: Role
    may_set_identity: bool = False
    """Whether organisation, user and group in a body, span or header are believed."""
    active: bool = True
    created_at: AwareDatetime
    rotated_at: AwareDatetime | None = None
    digest: _Digest
    earlier_digest: _Digest | None = None
    """Of the secret before the last rotation, which works until `earlier_until`."""
    earlier_until: AwareDatetime | None = None
    secret_id: str
    """Which secret made the digests (`secret_id`): under another one the key is never recognised."""

    @property
    def key(self) -> str:
        """The key of its row."""
        return KEY_PREFIX + self.id


class KeyUse(BaseModel):
    """When a server key was last used, to about an hour; written by servers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Id
    at: AwareDatetime

    @property
    def key(self) -> str:
        """The key of its row."""
        return USED_PREFIX + self.id


class TrackingToken(BaseModel):
    """Attribution of usage that clients push: whose it is. Not a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Id
    name: _Name
    value: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,40}$")]
    org_id: _Org
    active: bool = True
    created_at: AwareDatetime

    @property
    def key(self) -> str:
        """The key of its row."""
        return TOKEN_PREFIX + self.id


class KeyLabel(BaseModel):
    """What people call a provider key, by the id that events carry. Old and new id of a rotated key share one label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_id: _Org = EVERYONE
    """Organisation, or `*`: wherever no organisation has a label of its own for it."""
    api_key_id: Annotated[str, Field(min_length=1, max_length=256)]
    label: _Name
    owner: Annotated[str, Field(max_length=256)] = ""
    cost_centre: Annotated[str, Field(max_length=128)] = ""

    @property
    def key(self) -> str:
        """The key of its row."""
        return f"{LABEL_PREFIX}{access_id(self.org_id, 'api_key', self.api_key_id)}"


class BillKey(BaseModel):
    """Which key of ours a provider means by its own name of a key on its bills."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Annotated[str, Field(min_length=1, max_length=64)]
    ref: Annotated[str, Field(min_length=1, max_length=256)]
    api_key_id: Annotated[str, Field(min_length=1, max_length=256)]

    @property
    def key(self) -> str:
        """The key of its row."""
        return f"{BILL_KEY_PREFIX}{access_id(self.provider, 'ref', self.ref)}"


class CostLine(BaseModel):
    """A cost of each month that no call shows: a subscription, seats, a fee; below zero a credit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_id: Annotated[str, Field(max_length=256)]
    name: _Name
    provider: Annotated[str, Field(min_length=1, max_length=64)]
    quantity: Annotated[int, Field(gt=0, le=10**7, strict=True)] = 1
    unit_nano: Annotated[int, Field(ge=-(10**16), le=10**16, strict=True)]
    """What one costs a month, in nano-units of `currency`."""
    currency: Literal["USD", "EUR", "RUB"] = "USD"
    since: Annotated[str, Field(pattern=_MONTH)]
    """The first month, of UTC."""
    until: Annotated[str, Field(pattern=_MONTH)] | None = None
    """The last month; None: on and on."""
    cost_centre: Annotated[str, Field(max_length=128)] = ""

    @property
    def key(self) -> str:
        """The key of its row."""
        return f"{COST_LINE_PREFIX}{access_id(self.org_id, 'line', self.name)}"


Entry = ServerKey | KeyUse | TrackingToken | KeyLabel | BillKey | CostLine
Shape = TypeVar("Shape", ServerKey, KeyUse, TrackingToken, KeyLabel, BillKey, CostLine)
_SHAPES: Mapping[str, type[Entry]] = {
    KEY_PREFIX: ServerKey,
    USED_PREFIX: KeyUse,
    TOKEN_PREFIX: TrackingToken,
    LABEL_PREFIX: KeyLabel,
    BILL_KEY_PREFIX: BillKey,
    COST_LINE_PREFIX: CostLine,
}


def read_entry(key: str, value: bytes) -> Entry | None:
    """Return the row of a record; None for a kind that this version does not know. Raises `ValueError`."""
    shape = _SHAPES.get(f"{key.partition(':')[0]}:")
    if shape is None:
        return None
    try:
        return shape.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{key}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def public(value: bytes) -> str:
    """Return a row as its copy in ClickHouse holds it: without what secrets were made into. Raises `ValueError`."""
    document = loads(value)
    if not isinstance(document, dict):
        raise ValueError("a row of the registry is an object")
    return json.dumps({name: field for name, field in document.items() if name not in _PRIVATE}, ensure_ascii=False)


def digest(secret: bytes, presented: str) -> str:
    """Return what a key of the server is known by: HMAC-SHA256 under the set-up's secret, as hex."""
    return hmac.new(secret, b"server key\0" + presented.encode("utf-8", "surrogateescape"), sha256).hexdigest()


def secret_id(secret: bytes) -> str:
    """Return the name of a secret: it tells two apart and gives neither away."""
    return hmac.new(secret, b"secret id", sha256).hexdigest()[:12]
