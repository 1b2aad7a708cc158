"""Who may call at all, and how often: rows of `usage.policies` that only guards and the gateway read.

Keys are `block:<org>/<scope>/<name>` and `rate:<org>/<scope>/<name>`; a record without a value takes the row away.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

BLOCK_PREFIX = "block:"
RATE_PREFIX = "rate:"
EVERYONE = "*"
"""As an organisation: all of them. As the name of a rate limit: each key or address by itself."""

BlockScope = Literal["api_key", "client_ip", "user"]
RateScope = Literal["api_key", "client_ip"]
_Org = Annotated[str, Field(max_length=256)]
_Name = Annotated[str, Field(min_length=1, max_length=512)]


class Block(BaseModel):
    """A key, address or user that is refused until it is unblocked or `until` passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_id: _Org = EVERYONE
    scope: BlockScope
    name: _Name
    reason: Annotated[str, Field(min_length=1, max_length=512)]
    until: AwareDatetime | None = None

    @property
    def key(self) -> str:
        """The key of its row."""
        return BLOCK_PREFIX + access_id(self.org_id, self.scope, self.name)


class RateLimit(BaseModel):
    """At most `requests` calls in `window_s` seconds on average, of which `burst` may come at once.

    Counted by all processes of one user on one machine together; behind several machines a caller gets as many times
    as much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_id: _Org = EVERYONE
    scope: RateScope
    name: _Name = EVERYONE
    requests: Annotated[int, Field(gt=0, le=10**6, strict=True)]
    window_s: Annotated[int, Field(gt=0, le=31 * 86_400, strict=True)]
    burst: Annotated[int, Field(gt=0, le=10**6, strict=True)] = 1
    until: AwareDatetime | None = None

    @property
    def key(self) -> str:
        """The key of its row."""
        return RATE_PREFIX + access_id(self.org_id, self.scope, self.name)


def access_id(org_id: str, scope: str, name: str) -> str:
    """Return organisation, scope and name as one text; "/" inside a part is escaped."""
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in (org_id, scope, name))
