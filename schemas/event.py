"""A usage event: one call to a model API, immutable, identified by (event_time, org_id, event_id).

Counters are inclusive: input contains cached and written input, output contains reasoning. Absent text is "".
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

MAX_TOKENS = 10_000_000
MAX_TOTAL_TOKENS = 2 * MAX_TOKENS
MAX_TAGS = 16
MAX_TAG_CHARS = 128

Count = Annotated[int, Field(ge=0, le=MAX_TOKENS, strict=True)]
Text = Annotated[str, Field(max_length=256, strict=True)]
OptionalInt = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] | None
OptionalNano = Annotated[int, Field(ge=0, le=10**12, strict=True)] | None
EventId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]

BillingScope = Literal["UNKNOWN", "ORG", "USER"]
Processing = Literal["REALTIME", "BATCH"]
CallStatus = Literal["UNKNOWN", "OK", "ERROR", "BLOCKED", "CANCELLED"]
UsageSource = Literal["UNKNOWN", "PROVIDER", "ESTIMATED", "NONE"]


class UsageEvent(BaseModel):
    """One finished, failed or refused call. Field meanings: `avro/usage_event.v2.avsc`, whose order this keeps.

    `occurred_at` is an aware UTC datetime here and microseconds since 1970 on the wire. Raises
    `pydantic.ValidationError` on unknown fields, negative or absurd counts, and counters above their parent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: EventId
    occurred_at: AwareDatetime
    request_id: Text = ""
    provider_request_id: Text = ""
    trace_id: Text = ""
    span_id: Text = ""
    service: Text
    environment: Text = ""
    producer: Text = ""
    org_id: Text = ""
    group_id: Text = ""
    user_id: Text = ""
    agent: Text = ""
    feature: Text = ""
    session_id: Text = ""
    api_key_id: Text = ""
    billing_scope: BillingScope = "UNKNOWN"
    client_ip: Text = ""
    provider: Text
    api_host: Text = ""
    region: Text = ""
    operation: Text = "chat"
    model_sent: Text
    model_used: Text = ""
    deployment: Text = ""
    fallback_from: Text = ""
    service_tier: Text = ""
    processing: Processing = "REALTIME"
    stream: bool = False
    status: CallStatus = "UNKNOWN"
    http_status: OptionalInt = None
    error_type: Text = ""
    latency_ms: OptionalInt = None
    ttft_ms: OptionalInt = None
    usage_source: UsageSource = "UNKNOWN"
    input_tokens: Count = 0
    cache_read_tokens: Count = 0
    cache_write_tokens: Count = 0
    cache_write_1h_tokens: Count = 0
    output_tokens: Count = 0
    reasoning_tokens: Count = 0
    extra_units: dict[Text, Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]] = {}
    est_cost_nano: OptionalNano = None
    reported_cost_nano: OptionalNano = None
    prompt_chars: OptionalInt = None
    prompt_hash: Text = ""
    tags: dict[Annotated[str, Field(max_length=MAX_TAG_CHARS)], Annotated[str, Field(max_length=MAX_TAG_CHARS)]] = {}
    total_tokens: Annotated[int, Field(ge=0, le=MAX_TOTAL_TOKENS, strict=True)] | None = None
    backfill: bool = False

    @model_validator(mode="after")
    def _parts_within_their_whole(self) -> "UsageEvent":
        problem = counter_problem(
            self.input_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cache_write_1h_tokens,
            self.output_tokens,
            self.reasoning_tokens,
        )
        problem = problem or total_problem(self.total_tokens, self.input_tokens + self.output_tokens)
        if problem:
            raise ValueError(problem)
        if len(self.tags) > MAX_TAGS:
            raise ValueError(f"{len(self.tags)} tags; at most {MAX_TAGS} are kept")
        return self

    def wire(self) -> dict[str, Any]:
        """Return the fields as Avro and JSON carry them: `occurred_at` as integer microseconds since 1970 UTC."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        fields["occurred_at"] = micros(self.occurred_at)
        return fields


def counter_problem(input_: int, read: int, write: int, write_1h: int, output: int, reasoning: int) -> str:
    """Say which counter exceeds its parent; "" when none does. A child above its parent would earn a credit."""
    if read + write > input_:
        return f"cached ({read}) and written ({write}) input exceed input_tokens ({input_})"
    if write_1h > write:
        return f"cache_write_1h_tokens ({write_1h}) exceed cache_write_tokens ({write})"
    if reasoning > output:
        return f"reasoning_tokens ({reasoning}) exceed output_tokens ({output})"
    return ""


def total_problem(total: int | None, sum_: int) -> str:
    """Say that a stated total falls short of what was counted; "" when it does not."""
    if total is not None and total < sum_:
        return f"total_tokens ({total}) are less than input_tokens and output_tokens together ({sum_})"
    return ""


def micros(at: datetime) -> int:
    """Return an aware datetime as exact microseconds since 1970 UTC (no float on the way)."""
    delta = at - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
