"""A policy: the rule an admin wrote about a scope. Limits are integers, micro-units of its currency; absent = none."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SCOPE_KINDS = ("org", "group", "user", "api_key", "client_ip", "agent", "model", "provider")
ScopeKind = Literal["org", "group", "user", "api_key", "client_ip", "agent", "model", "provider"]
SCOPE_COLUMNS = {
    "org": "org_id", "group": "group_id", "user": "user_id", "api_key": "api_key_id",
    "client_ip": "client_ip", "agent": "agent", "model": "model", "provider": "provider",
}  # fmt: skip
"""The priced column that names each kind of scope. Every scope belongs to one organisation."""

DEFAULT_WARN_PCT = 80
DEFAULT_ALERT_PCTS = (20, 50, 80, 100)
Currency = Literal["USD", "EUR", "RUB"]


class Policy(BaseModel):
    """Limits of one scope of one organisation. `name` is "" for the organisation itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_id: Annotated[str, Field(max_length=256)]
    scope: ScopeKind = "org"
    name: Annotated[str, Field(max_length=256)] = ""
    applies: Literal["pool"] = "pool"
    daily_limit_micro: Annotated[int, Field(gt=0, le=10**15, strict=True)] | None = None
    monthly_limit_micro: Annotated[int, Field(gt=0, le=10**15, strict=True)] | None = None
    currency: Currency = "USD"
    alert_pcts: tuple[Annotated[int, Field(gt=0, le=1000, strict=True)], ...] = DEFAULT_ALERT_PCTS

    @property
    def policy_id(self) -> str:
        """The key of the policy: one per scope and currency; "/" inside a part is escaped, so no two parts collide."""
        parts = (self.org_id, self.scope, self.name, self.currency)
        return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
