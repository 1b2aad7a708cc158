"""A policy: the rule an admin wrote about a scope. Limits are integers, their measure names the unit; absent = none."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tollmeter.schemas.addresses import named_address
from tollmeter.schemas.names import plain_model, plain_provider, without_date

ScopeKind = Literal[
    "org",
    "group",
    "user",
    "api_key",
    "client_ip",
    "agent",
    "model",
    "provider",
    "tag",
    "version",
    "feature",
    "session",
    "run",
]
SCOPE_KINDS: tuple[ScopeKind, ...] = get_args(ScopeKind)
SCOPE_COLUMNS = {
    "org": "org_id",
    "group": "group_id",
    "user": "user_id",
    "api_key": "api_key_id",
    "client_ip": "client_ip",
    "agent": "agent",
    "model": "model_id",
    "provider": "provider_id",
    "version": "model",
    "feature": "operation_name",
}
"""The priced column that names each kind of scope that every row is folded into. A model is all its versions together,
a version one of them, by the exact name in the answer. Every scope belongs to one
organisation. A tag scope has no column: its name is "key=value", and it is folded only where a policy asks for it."""
ASKED_COLUMNS = {"session": "session_id", "run": "trace_id"}
"""The columns of scopes that are many and end: folded only where a policy asks, and while its period lasts."""
MEMBER_SCOPES: tuple[ScopeKind, ...] = ("user", "api_key", "agent", "session", "run")
"""Whose members may have a default: a policy without a name, for each of them that has none of its own."""

DEFAULT_WARN_PCT = 80
DEFAULT_ALERT_PCTS = (20, 50, 80, 100)
Currency = Literal["USD", "EUR", "RUB"]
Applies = Literal["each_member", "pool"]
Amount = Annotated[int, Field(gt=0, le=10**15, strict=True)]
Percent = Annotated[int, Field(gt=0, le=1000, strict=True)]
MAX_ROLLING_HOURS = 62 * 24


def known_zone(name: str) -> str:
    """Return the name of a time zone. Raises `ValueError` for one that is not in the IANA database."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name!r}: write for example UTC or Europe/Berlin") from None
    return name


TimeZone = Annotated[str, AfterValidator(known_zone)]


class Limit(BaseModel):
    """One limit: an amount of a measure within a period.

    `amount` is micro-units of the policy's currency for money, else a count. A rolling period is the last `hours`
    hours, in steps of 15 minutes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    period: Literal["day", "week", "month", "rolling"]
    measure: Literal["money", "tokens", "requests"] = "money"
    amount: Amount
    hours: Annotated[int, Field(gt=0, le=MAX_ROLLING_HOURS, strict=True)] | None = None

    @model_validator(mode="after")
    def _hours_belong_to_rolling(self) -> Self:
        if (self.period == "rolling") != (self.hours is not None):
            raise ValueError("a rolling limit needs hours, and no other limit takes them")
        return self

    @property
    def window(self) -> str:
        """Name of the period without its zone: day, week, month, rolling24h."""
        return self.period if self.hours is None else f"rolling{self.hours}h"

    @property
    def key(self) -> str:
        """What distinguishes the limits of one policy: day/money, rolling24h/tokens."""
        return f"{self.window}/{self.measure}"


class Adjustment(BaseModel):
    """A limit that is otherwise for a time, with who wants it and why.

    `amount` holds in place of the limit's own, `added` on top: what was used when it was reset. Both in its unit. With
    neither it says that the limit was put back before its time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[str, Field(max_length=64)]
    """The key of the limit: day/money."""
    amount: Amount | None = None
    added: Annotated[int, Field(ge=0, le=10**15, strict=True)] = 0
    since_ms: int
    until_ms: int
    """Milliseconds since 1970 UTC; at this time it is over."""
    by: Annotated[str, Field(min_length=1, max_length=256)]
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]

    @property
    def puts_back(self) -> bool:
        """Tell whether this ends what was raised."""
        return self.amount is None and not self.added


_FORMS: Mapping[str, Callable[[str], str]] = {
    "client_ip": named_address,
    "model": plain_model,
    "provider": plain_provider,
    "version": str.strip,
}


def _is_empty(value: object) -> bool:
    return not value


class Policy(BaseModel):
    """Limits of one scope of one organisation. `name` is "" for the organisation itself.

    `pool` limits what all calls of the scope spend together; `each_member` what each user of an organisation or group
    may spend for himself. Of scope user, api_key, agent, session or run, `each_member` without a name is the default:
    what each may spend that has no policy of its own. `warn_threshold_pct` is one more alert threshold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_id: Annotated[str, Field(max_length=256)]
    scope: ScopeKind = "org"
    name: Annotated[str, Field(max_length=512)] = ""
    applies: Applies = "pool"
    daily_limit_micro: Amount | None = None
    monthly_limit_micro: Amount | None = None
    limits: tuple[Limit, ...] = ()
    """Limits beyond the daily and monthly ones."""
    currency: Currency = "USD"
    timezone: TimeZone = "UTC"
    warn_threshold_pct: Annotated[int, Field(gt=0, le=100, strict=True)] = DEFAULT_WARN_PCT
    alert_pcts: tuple[Percent, ...] = DEFAULT_ALERT_PCTS
    alert_remaining_micro: Amount | None = None
    """Alert once a period when less than this remains of a money limit."""
    adjustments: Annotated[tuple[Adjustment, ...], Field(max_length=100, exclude_if=_is_empty)] = ()
    """What holds in place of limits for a time. Absent where there is none: readers that know none read on."""

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, fields: object) -> object:
        """Keep names as both sides of a comparison know them; a model's name with a date is a version of it.

        Of many sessions or runs nobody is told each step, unless asked.
        """
        if isinstance(fields, dict) and fields.get("scope") in ASKED_COLUMNS:
            fields = {"alert_pcts": (100,), **fields}
        if not isinstance(fields, dict) or not isinstance(name := fields.get("name"), str) or not name:
            return fields
        scope = fields.get("scope")
        if scope == "model" and without_date(name.strip()):
            return {**fields, "scope": "version", "name": name.strip()}
        form = _FORMS.get(scope) if isinstance(scope, str) else None
        return fields if form is None else {**fields, "name": form(name)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        named, each = bool(self.name), self.applies == "each_member"
        if (self.scope == "org") == named and not self.is_default:
            either = " but a default (each_member)" if self.scope in MEMBER_SCOPES else ""
            raise ValueError(
                f"name says which group, user, key ...: it is empty for scope org, and for no other{either}"
            )
        if each and self.scope not in ("org", "group") and not self.is_default:
            raise ValueError(f"each_member needs members: a {self.scope} has none; use pool")
        if self.scope in ASKED_COLUMNS and any(limit.period == "rolling" for limit in self.limits):
            raise ValueError(f"a {self.scope} is limited by the day, week or month: rolling hours are not kept of it")
        if self.scope == "tag" and "=" not in self.name:
            raise ValueError("the name of a tag scope is key=value")
        keys = [limit.key for limit in self.all_limits]
        if len(set(keys)) < len(keys):
            raise ValueError("two limits of the same period and measure")
        return self

    @property
    def is_default(self) -> bool:
        """Whether it is for each member of its scope that has no policy of its own."""
        return self.applies == "each_member" and not self.name and self.scope in MEMBER_SCOPES

    @property
    def policy_id(self) -> str:
        """The key of the policy: one per scope, way it applies and currency; "/" inside a part is escaped."""
        parts = (self.org_id, self.scope, self.name, self.applies, self.currency)
        return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)

    @property
    def all_limits(self) -> tuple[Limit, ...]:
        """Every limit, the daily and the monthly one first."""
        daily = () if self.daily_limit_micro is None else (Limit(period="day", amount=self.daily_limit_micro),)
        monthly = () if self.monthly_limit_micro is None else (Limit(period="month", amount=self.monthly_limit_micro),)
        return daily + monthly + self.limits

    @property
    def thresholds(self) -> tuple[int, ...]:
        """The percentages that alert, ascending: `alert_pcts` and `warn_threshold_pct`."""
        return tuple(sorted({*self.alert_pcts, self.warn_threshold_pct}))


class Member(BaseModel):
    """Who belongs to which groups: a user (external id), or a group inside other groups."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org_id: Annotated[str, Field(max_length=256)]
    kind: Literal["user", "group"] = "user"
    name: Annotated[str, Field(min_length=1, max_length=256)]
    groups: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = ()

    @model_validator(mode="after")
    def _not_inside_itself(self) -> Self:
        if self.kind == "group" and self.name in self.groups:
            raise ValueError(f"group {self.name} contains itself")
        return self

    @property
    def member_id(self) -> str:
        """The key of the member: organisation, kind, name; "/" inside a part is escaped."""
        return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in (self.org_id, self.kind, self.name))
