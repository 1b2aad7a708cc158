"""`POST /ingest`: a call's counts by the names of the answer they come from, or a usage event as Kafka takes it.

An object with `model` is the first, under a tracking token; one with `model_sent` the second. One object, an array, or
lines. A member that is neither's is refused: a misspelt counter must not read as 0.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tollmeter.schemas.event import MAX_TOKENS, MAX_TOTAL_TOKENS
from tollmeter.server import replies
from tollmeter.server.door import Answer, Bad, Call, Door, Events, Outcome, Posted, Reading
from tollmeter.server.doors import event_body
from tollmeter.server.json_body import LINES, MAX_EVENT_BYTES, TOO_DEEP, entries, places
from tollmeter.server.times import to_micros

MAX_CALLS = 1_000
Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
Text = Annotated[str, Meta(max_length=256)]


class Usage(msgspec.Struct, forbid_unknown_fields=True):
    """A call as its tracking token counts it. `total_tokens` may exceed the sum, never fall short of it."""

    tracking_token: Annotated[str, Meta(min_length=1, max_length=64)]
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Annotated[int, Meta(ge=0, le=MAX_TOTAL_TOKENS)] | UnsetType = UNSET
    timestamp: str | int | float | None = None
    event_id: Text | None = None
    provider: Text = ""
    operation: Text = ""
    cached_tokens: Count = 0
    reasoning_tokens: Count = 0
    service: Text = ""
    environment: Text = ""
    user_id: Text = ""
    group_id: Text = ""
    agent: Text = ""
    feature: Text = ""
    session_id: Text = ""
    request_id: Text = ""
    provider_request_id: Text = ""
    tags: dict[str, str] = {}
    backfill: bool = False


_decoder = msgspec.json.Decoder(Usage)
_SAME = (
    *("provider", "operation", "reasoning_tokens", "environment", "user_id", "group_id", "agent"),
    *("feature", "session_id", "request_id", "provider_request_id", "tags", "backfill"),
)
_MORE = (("cache_read_tokens", "cached_tokens"), *((name, name) for name in _SAME))
"""Fields of the event and members of the body that most calls leave out."""


def columns(posted: Posted) -> Events | None:
    """Return the events of a body that holds several and nothing else."""
    if not posted.body.startswith(b"[") and posted.media_type not in LINES:
        return None
    found, _ = entries(posted.body, posted.media_type, MAX_CALLS)
    return event_body.columns_of(found, _key(posted))


def _key(posted: Posted) -> str:
    return posted.headers.get("idempotency-key", "").strip()


def read(posted: Posted) -> Reading:
    """Return the calls of a body."""
    found, single = entries(posted.body, posted.media_type, MAX_CALLS)
    key = _key(posted)
    made = [
        _entry(raw, name, f"{key}#{place}" if key and not single else key)
        for place, (raw, name) in enumerate(zip(found, places(single, len(found)), strict=True))
    ]
    return Reading(made, single)


def _entry(raw: bytes, name: str, key: str) -> Call | Bad:
    if len(raw) > MAX_EVENT_BYTES:
        return Bad(name, "too_large", f"a call of {len(raw)} bytes; at most {MAX_EVENT_BYTES} are read", 413)
    if _is_event(raw):
        return event_body.read(raw, name, key)
    try:
        usage = _decoder.decode(raw)
    except RecursionError:
        return TOO_DEEP._replace(place=name)
    except msgspec.ValidationError as error:
        return Bad(name, "bad_field", str(error).replace("Object contains", "the call has"))
    except msgspec.DecodeError as error:
        return Bad(name, "not_json", f"not JSON: {error}")
    return _call(usage, name, key)


def _is_event(raw: bytes) -> bool:
    """Tell a usage event by its `model_sent`; a text or a tag in it may be called `model`."""
    if b'"model"' not in raw:
        return True
    if b'"model_sent"' not in raw:
        return False
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(document, dict) and "model_sent" in document


def _call(usage: Usage, name: str, key: str) -> Call | Bad:
    total = usage.prompt_tokens + usage.completion_tokens
    said = total if usage.total_tokens is UNSET else usage.total_tokens
    fields: dict[str, Any] = {
        "model_sent": usage.model,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "service": usage.service or "ingest",
    }
    for field, member in _MORE:
        if given := getattr(usage, member):
            fields[field] = given
    if said != total and (wrong := event_body.take_total(fields, said, total)):
        return Bad(name, "total_too_small", wrong)
    seed = key and f"key:{key}"
    if usage.timestamp is not None:
        try:
            fields["occurred_at"] = at = to_micros(usage.timestamp)
        except ValueError as error:
            return Bad(name, "bad_time", f"timestamp: {error}")
        counts = f"{usage.prompt_tokens}:{usage.completion_tokens}:{said}"
        seed = seed or f"call:{at}:{counts}:{usage.model}"
    if usage.event_id:
        if event_body.is_uuid(usage.event_id):
            fields["event_id"] = usage.event_id.lower()
        seed = f"id:{usage.event_id}"
    return Call(name, fields, seed, usage.tracking_token)


def _deprecated(posted: Posted, outcome: Outcome) -> Answer:
    done = replies.answer(posted, outcome)
    link = (b"link", b'</ingest>; rel="successor-version"')
    return Answer(done.status, [*done.headers, (b"deprecation", b"@1795910400"), link], done.body)


_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "application/json": {"anyOf": [{"type": Usage}, {"event": True}, {"array": Usage}]},
    "application/x-ndjson": {"type": Usage},
}
DOORS = (
    Door(
        "/ingest",
        read,
        replies.answer,
        "Take one call, or up to 1,000",
        machine=False,
        schemas=_SCHEMAS,
        columns=columns,
        answers=replies.ANSWERS,
    ),
    Door(
        "/log",
        read,
        _deprecated,
        "As /ingest",
        machine=False,
        deprecated=True,
        schemas=_SCHEMAS,
        answers=replies.ANSWERS,
    ),
)
