"""Control records and ticks: what reaches WATCH in its own partition of `usage.priced` beside the priced rows."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollmeter.schemas.policy import Member, Policy
from tollmeter.schemas.priced import FIRST_FORMAT


class PolicySet(BaseModel):
    """A policy replaces any earlier one with the same `policy_id`; it is evaluated at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["policy_set"] = "policy_set"
    policy: Policy


class PolicyDelete(BaseModel):
    """The policy is gone; deleting an absent one is no error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["policy_delete"] = "policy_delete"
    policy_id: str


class MemberSet(BaseModel):
    """A user's or group's groups replace any it had; limits of the members are evaluated at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["member_set"] = "member_set"
    member: Member


class MemberDelete(BaseModel):
    """The member is in no group any more; deleting an absent one is no error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["member_delete"] = "member_delete"
    member_id: str


Control = Annotated[PolicySet | PolicyDelete | MemberSet | MemberDelete, Field(discriminator="type")]


class ControlRecord(BaseModel):
    model_config = ConfigDict(frozen=True)
    format: int = FIRST_FORMAT
    body: Control


class Tick(BaseModel):
    """PRICE stood at the head of these source partitions at these times (milliseconds since 1970 UTC)."""

    model_config = ConfigDict(frozen=True)
    format: int = FIRST_FORMAT
    clocks: dict[int, int]


class Round(BaseModel):
    """One repair of an organisation's totals from the ledger, in one or more records of the same `id`.

    `base` is the checkpoint's offset it was computed at: a round that another one has overtaken since is ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    org_id: str
    base: int
    hours: tuple[int, ...]
    quiet: bool = False
    """Nothing is late in these hours but what was brought in afterwards: what they cross alerts nobody."""
    extras: bool = False
    """The round also completes the totals that begin with a policy, as of `base`."""


class Correction(BaseModel):
    """Rows of one organisation that replace what the ledger has, in one record of `usage.priced`.

    The record's first `was` rows are as the ledger had them; among the others, in the same order, first the rows
    that replace them: same identity (event_time, org_id, event_id), the next revision. The rows behind these came from
    another organisation. Of several corrections to the same revision the first in the log counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    org_id: str
    was: int = Field(ge=0)
    reason: str = ""
    doubled: bool = False
    """The rows are empty ones of calls whose id came first at another time: nothing of them was ever counted."""
