"""`POST /api/v1/events`: CloudEvents 1.0, one, a batch, or in binary mode, where OpenMeter's clients send theirs.

`data` is a call's counts as gateways name them, or a usage event (docs/json.md). An event without counts and without a
model is another meter's business, and ignored. The id is that of (source, id), as CloudEvents has it.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from tollmeter.producers.extract.usage import usd_to_nano
from tollmeter.schemas.cloudevents import event_id_of
from tollmeter.server import replies
from tollmeter.server.door import Answer, Bad, Call, Door, Outcome, Posted, Reading
from tollmeter.server.doors import event_body
from tollmeter.server.json_body import MAX_EVENT_BYTES, TOO_DEEP, entries, not_json, places, readable
from tollmeter.server.problems import Problem

MAX_EVENTS = 1_000
_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_PLAIN = frozenset({"application/json", "", _STRUCTURED, _BATCH})
_COUNTS = {
    "input_tokens": ("prompt_tokens", "input_tokens"),
    "output_tokens": ("completion_tokens", "output_tokens"),
    "cache_read_tokens": ("cached_tokens", "cache_read_tokens"),
    "reasoning_tokens": ("reasoning_tokens",),
}
_WORDS = (
    *("provider", "operation", "service", "environment", "org_id", "group_id", "agent", "feature", "session_id"),
    *("request_id", "provider_request_id", "api_key_id", "model_used", "service_tier", "region"),
)


def read(posted: Posted) -> Reading:
    """Return the calls of a body."""
    ignored: dict[str, int] = {}
    if posted.headers.get("ce-specversion"):
        documents: list[Any] = [_binary(posted)]
        single = True
    elif posted.media_type in _PLAIN:
        raws, single = entries(posted.body, posted.media_type, MAX_EVENTS)
        documents = [_parsed(raw, single) for raw in raws]
    else:
        raise Problem(
            415,
            "unknown_media_type",
            f"content-type {posted.media_type[:80]!r}: send {_STRUCTURED}, {_BATCH}, application/json, or ce-* headers",
        )
    made: list[Call | Bad] = []
    for document, name in zip(documents, places(single, len(documents)), strict=True):
        entry = document if isinstance(document, Bad) else _entry(document, name)
        if entry is None:
            ignored["no_usage"] = ignored.get("no_usage", 0) + 1
        else:
            made.append(entry._replace(place=name))
    return Reading(made, single and bool(made), ignored)


def _parsed(raw: bytes, single: bool) -> object:
    if len(raw) > MAX_EVENT_BYTES:
        return Bad("", "too_large", f"an event of {len(raw)} bytes; at most {MAX_EVENT_BYTES} are read", 413)
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        return TOO_DEEP
    except msgspec.DecodeError as error:
        if single:
            raise not_json(error) from None
        return Bad("", "not_json", f"not JSON: {error}")


def _binary(posted: Posted) -> dict[str, Any]:
    """Return the event whose attributes are headers and whose data is the body."""
    document: dict[str, Any] = {
        name.removeprefix("ce-"): unquote(value) for name, value in posted.headers.items() if name.startswith("ce-")
    }
    try:
        document["data"] = msgspec.json.decode(readable(posted.body))
    except msgspec.DecodeError as error:
        raise not_json(error) from None
    return document


def _entry(document: object, name: str) -> Call | Bad | None:
    """Return the call of an event; None for one that is about something else."""
    if not isinstance(document, dict):
        return Bad(name, "not_an_object", "a CloudEvent is a JSON object")
    for attribute in ("specversion", "id", "source", "type"):
        if not isinstance(document.get(attribute), str) or not document[attribute]:
            return Bad(name, "missing_attribute", f"{attribute}: missing; a CloudEvent has it as text")
    if not document["specversion"].startswith("1."):
        return Bad(name, "unknown_specversion", f"specversion: {document['specversion'][:16]!r}; 1.0 is understood")
    data = document.get("data")
    if "data_base64" in document or not isinstance(data, dict):
        return Bad(name, "bad_data", "data: a JSON object is taken, no data_base64")
    fields = _fields_of(data)
    if fields is None:
        return None
    if isinstance(fields, Bad):
        return fields
    fields.setdefault("event_id", event_id_of(document["id"], document["source"]))
    if document.get("time") is not None:
        fields.setdefault("occurred_at", document["time"])
    if not fields.get("user_id") and document.get("subject"):
        fields["user_id"] = document["subject"]
        if not isinstance(document["subject"], str):
            return Bad(name, "bad_field", "subject: not text")
    fields.setdefault("service", document["source"])
    token = data.get(event_body.TOKEN) or ""
    if not isinstance(token, str):
        return Bad(name, "bad_field", "data.tracking_token: not text")
    return Call(name, fields, token=token)


def _fields_of(data: dict[str, Any]) -> dict[str, Any] | Bad | None:
    if "model_sent" in data:
        return _checked(data)
    counts = {field: _first(data, names) for field, names in _COUNTS.items()}
    model = data.get("model")
    if model is None and counts["input_tokens"] is None and counts["output_tokens"] is None:
        return None
    if not isinstance(model, str) or not model:
        return Bad("", "missing_field", "data.model: missing; the counts are priced by it")
    fields: dict[str, Any] = {"model_sent": model, **{name: data[name] for name in _WORDS if name in data}}
    fields |= {field: count for field, count in counts.items() if count is not None}
    fields["usage_source"] = "PROVIDER" if counts["input_tokens"] is not None else "NONE"
    if data.get("cost") is not None:
        fields["reported_cost_nano"] = usd_to_nano(data["cost"])
    made = _checked(fields)
    said = data.get("total_tokens")
    if isinstance(made, Bad) or said is None:
        return made
    if type(said) is not int:
        return Bad("", "bad_field", "data.total_tokens: a whole number is expected")
    wrong = event_body.take_total(made, said, made.get("input_tokens", 0) + made.get("output_tokens", 0))
    return Bad("", "total_too_small", f"data.{wrong}") if wrong else made


def _checked(fields: dict[str, Any]) -> dict[str, Any] | Bad:
    """Return the fields, each of its kind."""
    made = event_body.of_fields(fields, "", "")
    return made._replace(detail=f"data.{made.detail}") if isinstance(made, Bad) else dict(made.fields)


def _first(data: dict[str, Any], names: tuple[str, ...]) -> object:
    return next((data[name] for name in names if data.get(name) is not None), None)


def answer(posted: Posted, outcome: Outcome) -> Answer:
    """Return 204 when all was taken, as OpenMeter does; else a problem that lists what was not."""
    rejected = outcome.count("rejected")
    if outcome.single and rejected:
        raise replies.as_problem(outcome.results[0])
    if rejected:
        replies.about_many(posted, outcome)  # raises when nothing was taken
        raise replies.partly(posted, outcome)
    return Answer(204, [], b"")


_ONE: Mapping[str, Any] = {"cloudevent": True}
DOORS = (
    Door(
        "/api/v1/events",
        read,
        answer,
        "Take CloudEvents: one, a batch, or in binary mode",
        schemas={_STRUCTURED: _ONE, _BATCH: {"array": _ONE}, "application/json": _ONE},
        answers={204: None},
    ),
)
