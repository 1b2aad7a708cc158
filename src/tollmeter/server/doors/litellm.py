"""`POST /ingest/litellm`: calls as LiteLLM's `generic_api` callback sends them (its StandardLoggingPayload, 1.110).

The parser skips what is not named here, so prompts, answers and tracebacks never become objects. LiteLLM sends again
after a time-out or a status from 500 on, and drops what gets any other: so busy is 503. What its own cache answered
used no provider, and is ignored; what its own limits refused is BLOCKED.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tollmeter.producers.extract.clean import with_tag
from tollmeter.producers.extract.families import read_usage
from tollmeter.producers.extract.served import LITELLM_PROVIDERS
from tollmeter.producers.extract.totals import with_others
from tollmeter.producers.extract.usage import Counts, Usage, count, usd_to_nano
from tollmeter.producers.telemetry.facts import PROBLEM
from tollmeter.schemas.event import MAX_TAGS
from tollmeter.schemas.texts import clean_tags
from tollmeter.server import replies
from tollmeter.server.door import Bad, Call, Door, Posted, Reading
from tollmeter.server.doors import event_body
from tollmeter.server.json_body import TOO_DEEP, entries, places

MAX_CALLS = 10_000
Said = str | int | float | bool | None
"""A scalar of any kind: what is odd about one field costs no call."""
_COUNTERS = (
    *("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
_OPERATIONS = {
    "completion": "chat",
    "text_completion": "chat",
    "anthropic_messages": "chat",
    "generate_content": "chat",
    "responses": "responses",
    "embedding": "embeddings",
    "image_generation": "image",
    "image_edit": "image",
    "transcription": "transcription",
    "speech": "speech",
    "rerank": "rerank",
}
"""Kinds of calls that a provider bills, by their names without the `a` of async ones."""


class Metadata(msgspec.Struct):
    """Who asked the gateway, and the provider's usage as it stated it."""

    usage_object: dict[str, Any] | None = None
    user_api_key_hash: Said = None
    user_api_key_alias: Said = None
    user_api_key_org_id: Said = None
    user_api_key_team_id: Said = None
    user_api_key_team_alias: Said = None
    user_api_key_user_id: Said = None
    user_api_key_end_user_id: Said = None
    spend_logs_metadata: dict[str, Any] | None = None


class Failure(msgspec.Struct):
    """Why a call failed; the text and the traceback are left out."""

    error_code: Said = None
    error_class: Said = None
    error_rate_limit_category: Said = None
    error_budget_entity_type: Said = None


class Breakdown(msgspec.Struct):
    """Of its cost, what changes the price."""

    service_tier: Said = None


class Parameters(msgspec.Struct):
    """Of the request's parameters, whom it was made for."""

    user: Said = None


class Payload(msgspec.Struct):
    """One call. Times are seconds since 1970."""

    id: Said = None
    litellm_call_id: Said = None
    trace_id: Said = None
    session_id: Said = None
    call_type: str = ""
    stream: bool | None = None
    response_cost: Said = None
    cost_breakdown: Breakdown | None = None
    response_cost_failure_debug_info: msgspec.Raw | None = None
    zero_cost_diagnostic: msgspec.Raw | None = None
    status: str = ""
    custom_llm_provider: Said = None
    prompt_tokens: Said = None
    completion_tokens: Said = None
    total_tokens: Said = None
    startTime: float | None = None  # noqa: N815 - its name there
    endTime: float | None = None  # noqa: N815
    completionStartTime: float | None = None  # noqa: N815
    model: Said = None
    model_group: Said = None
    api_base: Said = None
    metadata: Metadata | None = None
    cache_hit: Said = None
    request_tags: list[Any] | None = None
    end_user: Said = None
    requester_ip_address: Said = None
    error_information: Failure | None = None
    model_parameters: Parameters | None = None


_decoder = msgspec.json.Decoder(Payload)


def read(posted: Posted) -> Reading:
    """Return the calls of a body: an array, lines, or one object."""
    found, single = entries(posted.body, posted.media_type, MAX_CALLS)
    ignored: dict[str, int] = {}
    made: list[Call | Bad] = []
    for raw, name in zip(found, places(single, len(found)), strict=True):
        try:
            entry = _call(_decoder.decode(raw), name)
        except RecursionError:
            entry = TOO_DEEP._replace(place=name)
        except msgspec.ValidationError as error:
            entry = Bad(name, "bad_field", str(error))
        except msgspec.DecodeError as error:
            entry = Bad(name, "not_json", f"not JSON: {error}")
        if isinstance(entry, str):
            ignored[entry] = ignored.get(entry, 0) + 1
        else:
            made.append(entry)
    return Reading(made, ignored=ignored)


def _call(payload: Payload, name: str) -> Call | Bad | str:
    """Return the call of a payload; a word for what is none."""
    if payload.cache_hit in (True, "True", "true"):
        return "cache_hit"
    kind = payload.call_type.removeprefix("_")
    operation = _OPERATIONS.get(kind) or _OPERATIONS.get(kind.removeprefix("a"))
    metadata = payload.metadata or Metadata()
    failed = payload.status == "failure"
    usage = _usage(payload, metadata)
    if operation is None and not usage.stated and not usage.problem:
        return "not_billed"
    if not payload.model:
        return Bad(name, "missing_field", "model: missing; calls are priced by it")
    if payload.startTime is None:
        return Bad(name, "missing_field", "startTime: missing; a call is priced at the time it was made")
    fields: dict[str, Any] = {
        **_who(payload, metadata),
        **_what(payload, operation or kind),
        **_times(payload),
        **(_failure(payload.error_information or Failure()) if failed else {"status": "OK"}),
        "reported_cost_nano": None if failed else _reported(payload),
    }
    _count(fields, usage, payload)
    # Attempts of one call share its id, and one that is looked up again is billed again: all this makes the identity.
    parts = (payload.litellm_call_id, payload.id, kind, payload.status, payload.startTime)
    return Call(name, fields, "litellm:" + msgspec.json.encode(parts).decode())


def _usage(payload: Payload, metadata: Metadata) -> Usage:
    """Return what the provider stated; of a payload without that, the gateway's own two counts."""
    if metadata.usage_object:
        usage = read_usage({"model": payload.model, "usage": metadata.usage_object}, _provider(payload))
        if usage.stated or usage.problem:
            return with_others(usage, usage.others)
    counts = Counts({"prompt_tokens": payload.prompt_tokens, "completion_tokens": payload.completion_tokens})
    read, written = counts.take("prompt_tokens"), counts.take("completion_tokens")
    return Usage(input_tokens=read, output_tokens=written, stated=bool(read or written), problem=counts.problem)


def _count(fields: dict[str, Any], usage: Usage, payload: Payload) -> None:
    """Put the counts into the fields; where one of them is none, the call has no usage, and a tag says why."""
    if usage.problem or not usage.stated:
        fields["usage_source"] = "NONE"
        if usage.problem:
            fields["tags"] = with_tag(fields["tags"], PROBLEM, usage.problem)
        return
    fields |= {"usage_source": "PROVIDER", "extra_units": usage.extra_units}
    fields |= {name: getattr(usage, name) for name in _COUNTERS}
    said, sum_ = count(payload.total_tokens), usage.input_tokens + usage.output_tokens
    if said is not None and said > sum_ and not (payload.metadata and payload.metadata.usage_object):
        event_body.take_total(fields, said, sum_)


def _provider(payload: Payload) -> str:
    named = str(payload.custom_llm_provider or "")
    return LITELLM_PROVIDERS.get(named, named)


def _who(payload: Payload, metadata: Metadata) -> dict[str, Any]:
    user = metadata.user_api_key_user_id or metadata.user_api_key_end_user_id or payload.end_user
    named = payload.model_parameters.user if payload.model_parameters else None
    tags = {str(key): str(value) for key, value in (metadata.spend_logs_metadata or {}).items()}
    for tag in payload.request_tags or ():
        key, found, value = str(tag).partition(":")
        tags.setdefault(key.strip(), value.strip() if found else "true")
    if metadata.user_api_key_alias:
        tags = {"litellm_key": str(metadata.user_api_key_alias), **tags}
    return {
        "service": "litellm",
        "org_id": metadata.user_api_key_org_id,
        "group_id": metadata.user_api_key_team_alias or metadata.user_api_key_team_id,
        "user_id": user or named,
        "api_key_id": str(metadata.user_api_key_hash or "")[:16],
        "client_ip": payload.requester_ip_address,
        "session_id": payload.session_id,
        "trace_id": payload.trace_id,
        "request_id": payload.litellm_call_id,
        "provider_request_id": payload.id,
        "tags": clean_tags(dict(list(tags.items())[:MAX_TAGS])),
    }


def _what(payload: Payload, operation: str) -> dict[str, Any]:
    model, group = str(payload.model), str(payload.model_group or "")
    return {
        "provider": _provider(payload),
        "model_sent": model,
        "deployment": group if group != model else "",
        "operation": operation,
        "api_host": _host(str(payload.api_base or "")),
        "stream": bool(payload.stream),
        "service_tier": payload.cost_breakdown.service_tier if payload.cost_breakdown else None,
    }


def _host(url: str) -> str:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def _times(payload: Payload) -> dict[str, Any]:
    start = payload.startTime or 0.0
    times: dict[str, Any] = {"occurred_at": payload.startTime, "latency_ms": _ms(start, payload.endTime)}
    if payload.stream:
        times["ttft_ms"] = _ms(start, payload.completionStartTime)
    return times


def _ms(start: float, end: float | None) -> int | None:
    return round((end - start) * 1_000) if end is not None and 0 <= end - start < 2_000_000 else None


def _failure(failure: Failure) -> dict[str, Any]:
    """A call that the gateway itself refused reached no provider."""
    code = str(failure.error_code or "")
    own = failure.error_budget_entity_type or str(failure.error_rate_limit_category or "").startswith("litellm")
    return {
        "status": "BLOCKED" if own else "ERROR",
        "http_status": int(code) if code.isdecimal() and len(code) == 3 else None,
        "error_type": failure.error_class,
    }


def _reported(payload: Payload) -> int | None:
    """Return what LiteLLM says the call cost; None where it says 0 since it knows no price."""
    unknown = payload.response_cost_failure_debug_info, payload.zero_cost_diagnostic
    if any(raw is not None and bytes(raw) != b"null" for raw in unknown):
        return None
    return usd_to_nano(payload.response_cost)


_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "application/json": {"array": Payload},
    "application/x-ndjson": {"type": Payload},
}
DOORS = (
    Door(
        "/ingest/litellm",
        read,
        replies.about_many,
        "Take calls as LiteLLM's generic_api callback sends them",
        busy_status=503,
        schemas=_SCHEMAS,
        answers={202: replies.Many},
    ),
)
