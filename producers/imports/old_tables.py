"""Rows of three older meters as events: `usage_log` of a cost guardian, `token_usage` of a billing page and
`llm_operations` of a budget monitor; and `ingest_tokens`, which say whose they are. The same row gives the same id.

A stated cost is kept beside ours, never taken for it. What a row does not say stays unknown: without counts of both
kinds of tokens no price holds, so the call is there without a cost, its total in the tag `total_tokens`.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID, uuid5

from tollmeter.producers.extract.usage import usd_to_nano
from tollmeter.producers.imports.log_lines import provider_of
from tollmeter.schemas.event import EPOCH, MAX_TAG_CHARS, UsageEvent
from tollmeter.schemas.secrets import without_secrets
from tollmeter.schemas.times import is_number, micros_of

Row = Mapping[str, object]
NAMESPACE = UUID("5d1f6a50-0f0e-5a7c-9b0a-5a3d6f0f9c11")
PRODUCER = "old-table"
TOKENS = "ingest_tokens"
TABLES = ("usage_log", "token_usage", "llm_operations", TOKENS)
SUSPECT = "usage_suspect"
TOKEN_TAG = "tracking_token"  # noqa: S105 - the name of a tag
_IMAGES = ("dall-e", "gpt-image", "imagen", "stable-diffusion", "flux")

_PROMPT = ("prompt_tokens", "input_tokens", "tokens_in")
_COMPLETION = ("completion_tokens", "output_tokens", "tokens_out")
_TOTAL = ("total_tokens", "tokens_used", "tokens")
_TIME = ("created_at", "timestamp", "ts", "date")
_COST = ("cost_usd", "estimated_cost", "estimated_cost_usd", "cost")
_MODEL = ("model", "ai_model", "model_name")
_PROVIDER = ("provider", "ai_provider", "llm_provider")
_FAILED = frozenset({"0", "false", "error", "failed", "failure"})


@dataclass(frozen=True, slots=True)
class OldToken:
    """A tracking token as the older meter had it."""

    name: str
    value: str
    active: bool
    created_at: datetime


def table_of(row: Row) -> str:
    """Return the table that a row is of, by its columns; "" for none of these."""
    names = row.keys()
    if {"ai_provider", "ai_model"} <= names:
        return "token_usage"
    if {"tracking_token", "model"} <= names:
        return "usage_log"
    if "operation_name" in names and names & {*_MODEL, *_PROVIDER}:
        return "llm_operations"
    return TOKENS if {"name", "value", "active", "created_at"} <= names else ""


def token_of(row: Row) -> OldToken:
    """Return a row of `ingest_tokens`. Raises ValueError naming the column."""
    active = str(row["active"]).strip().lower() not in ("0", "false", "")
    return OldToken(_text(row, ("name",)) or "unnamed", _text(row, ("value",)), active, _time(row))


def event_of(table: str, row: Row, org: str, ordinal: int) -> UsageEvent:
    """Return the call that a row tells of. `ordinal` tells equal rows apart. Raises ValueError naming the column."""
    model = _text(row, _MODEL)
    if not model:
        raise ValueError("model: missing")
    counts, tags = _counts(row)
    if token := _text(row, ("tracking_token",)):
        tags[TOKEN_TAG] = token[:MAX_TAG_CHARS]
    fields = {
        "event_id": _event_id(table, row, ordinal),
        "occurred_at": _time(row),
        "service": _text(row, ("service",)) or table,
        "producer": PRODUCER,
        "org_id": org,
        "user_id": _text(row, ("user_id",)),
        "agent": _text(row, ("agent_id", "agent")),
        "feature": _text(row, ("operation_name",)),
        "request_id": _text(row, ("request_id",)),
        "provider": (_text(row, _PROVIDER) or provider_of(model)).lower(),
        "model_sent": model,
        "status": _status(row),
        "reported_cost_nano": _cost(row),
        "tags": tags,
        **counts,
    }
    if not any(counts.get(name) for name in ("input_tokens", "output_tokens")) and model.lower().startswith(_IMAGES):
        # how many images a row stands for it does not say: at least one, and marked as an estimate
        fields |= {"operation": "image", "extra_units": {"images": 1.0}, "usage_source": "ESTIMATED"}
    return UsageEvent.model_validate(without_secrets(fields))


def _counts(row: Row) -> tuple[dict[str, Any], dict[str, str]]:
    prompt, completion, total = (_whole(row, names) for names in (_PROMPT, _COMPLETION, _TOTAL))
    if prompt is None or completion is None:
        if prompt is not None or completion is not None:
            raise ValueError("tokens: prompt and completion tokens belong together, one of them is missing")
        return {"usage_source": "NONE"}, {} if not total else {"total_tokens": str(total)}
    if total is not None and total < prompt + completion:
        raise ValueError(f"total_tokens: {total} is less than prompt and completion together ({prompt + completion})")
    above = total is not None and total > prompt + completion
    tags = {SUSPECT: f"total_tokens {total} exceed the sum {prompt + completion}"} if above else {}
    return {"input_tokens": prompt, "output_tokens": completion, "usage_source": "PROVIDER"}, tags


def _status(row: Row) -> str:
    said = next((str(row[name]).strip().lower() for name in ("success", "status") if row.get(name) is not None), "")
    return "ERROR" if said in _FAILED else "OK"


def _cost(row: Row) -> int | None:
    name, value = _first(row, _COST)
    if value is None:
        return None
    nano = usd_to_nano(value)
    if nano is None:
        raise ValueError(f"{name}: {str(value)[:40]!r} is no amount in USD")
    return nano


def _time(row: Row) -> datetime:
    name, value = _first(row, _TIME)
    text = str(value).strip() if value is not None else ""
    micros = micros_of(text) if is_number(text) else None
    if micros is not None:
        return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name or _TIME[0]}: {text[:40]!r} is no time like 2026-11-22T10:00:00Z") from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if at < EPOCH:
        raise ValueError(f"{name}: {text[:40]!r} is before 1970")
    return at


def _whole(row: Row, names: tuple[str, ...]) -> int | None:
    name, value = _first(row, names)
    if value is None:
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if isinstance(value, bool) or not number.is_finite() or number != number.to_integral_value():
        raise ValueError(f"{name}: {str(value)[:40]!r} is no whole number")
    return int(number)


def _text(row: Row, names: tuple[str, ...]) -> str:
    value = _first(row, names)[1]
    return "" if value is None else str(value).strip()


def _first(row: Row, names: tuple[str, ...]) -> tuple[str, object]:
    """Return the first of these columns that says something, and what."""
    return next(((name, row[name]) for name in names if row.get(name) not in (None, "")), ("", None))


def _event_id(table: str, row: Row, ordinal: int) -> str:
    return str(uuid5(NAMESPACE, f"{table}/{ordinal}/{content_of(row)}"))


class Ordinals:
    """Counts equal rows of a table that has no `id`: two calls may look the same, and are two."""

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()

    def of(self, table: str, row: Row) -> int:
        """Return how many rows like this one came before it."""
        if row.get("id") is not None:
            return 0
        key = hash((table, content_of(row)))
        self._seen[key] += 1
        return self._seen[key] - 1


def content_of(row: Row) -> str:
    """Return all that a row says as one text, whatever it was read from."""
    return json.dumps({name: str(value) for name, value in sorted(row.items()) if value is not None}, ensure_ascii=True)
