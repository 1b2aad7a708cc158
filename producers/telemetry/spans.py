"""A span becomes the event of its call, or is left alone because it is none: agents, tools and wrappers repeat theirs.

The event's id is made from the provider's id of the answer where that is surely unique, else from trace and span id: a
span sent again is the same event, and so is a call that two instrumentations tell. Prompts are never read.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

from tollmeter.producers.extract.served import region_of
from tollmeter.producers.telemetry.facts import Tokens, cost_of, id_of, is_subscription, micros_of, subscribed, text_of
from tollmeter.producers.telemetry.names import CALLS, OWN, SPAN_KINDS, UNITS, WRAPPERS, provider_named
from tollmeter.producers.telemetry.reading import Damaged, Found, Reading, RefusedError, Scalar, Span

PRODUCER = "otlp"
UNIQUE_CHARS = 20
NoCall = Literal["no_call", "wrapper", "unknown_operation", "cache_hit"]
_AI_CALLS = {"doembed": "embeddings", "dotranscribe": "transcription", "dorerank": "rerank"}
_DEFAULT_PORTS = ("", "0", "80", "443")
_MODELS = frozenset(("model_sent", "model_used"))
_TEXTS = (
    *("provider_request_id", "service_tier", "error_type", "service", "environment"),
    *("agent", "session_id", "user_id", "feature"),
)
_OWN_FIELDS = (
    *("org_id", "group_id", "user_id", "agent", "feature", "session_id", "request_id", "client_ip", "api_key_id"),
    *("service", "environment", "deployment", "fallback_from", "billing_scope"),
)


def operation_of(facts: Mapping[str, Scalar]) -> tuple[str, NoCall | None]:
    """Return the operation of a span that is a call, else "" and what it is instead."""
    get = facts.get
    if get("cache_hit") in (True, "True"):
        return "", "cache_hit"
    marked = _marked(get("operation"), get("span_kind"), get("ai_operation"), get("request_type"))
    if marked is not None:
        return marked
    told = "model_sent" in facts and "provider" in facts and ("input_tokens" in facts or "output_tokens" in facts)
    return ("chat", None) if told else ("", "no_call")


@lru_cache(maxsize=1_024)
def _marked(*marks: Scalar | None) -> tuple[str, NoCall | None] | None:
    """Decide by the marks that conventions have for it; None where there is none."""
    named, kind, ai, asked = ("" if mark is None else str(mark).lower() for mark in marks)
    if ai:  # the AI SDK's outer span repeats the sum of its inner ones, whose name ends in .doGenerate and the like
        inner = ai.rpartition(".")[2]
        return (_AI_CALLS.get(inner, "chat"), None) if inner.startswith("do") else ("", "wrapper")
    if named in WRAPPERS or kind in WRAPPERS:
        return "", "wrapper"
    if named in CALLS:
        return CALLS[named], None
    if named:
        return "", "unknown_operation"
    if kind in SPAN_KINDS:
        return SPAN_KINDS[kind], None
    return (CALLS[asked], None) if asked in CALLS else None


def fields_of(span: Span, operation: str) -> dict[str, Any]:
    """Return the fields of a call's event. Raises `RefusedError` naming what is missing or wrong."""
    facts = span.facts
    if not span.trace_id or not span.span_id:
        raise RefusedError(f"{'spanId' if span.trace_id else 'traceId'}: not a valid id in hex")
    sent, used = text_of(facts, "model_sent"), text_of(facts, "model_used")
    if not sent and not used:
        raise RefusedError("gen_ai.request.model: missing")
    tokens = Tokens(facts)
    fields: dict[str, Any] = {
        "event_id": _event_id(span, text_of(facts, "provider_request_id")),
        "occurred_at": micros_of(span.start_ns, "startTimeUnixNano"),
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "producer": PRODUCER,
        "provider": provider_named(text_of(facts, "provider")),
        "operation": operation,
        "model_sent": (sent or used).removeprefix("models/"),
        "model_used": used.removeprefix("models/"),
        "status": "ERROR" if span.failed or "error_type" in facts else "OK",
    }
    for name in _TEXTS:
        if name in facts:
            fields[name] = text_of(facts, name)
    if "api_host" in facts:
        fields |= _address(text_of(facts, "api_host"), text_of(facts, "api_port"))
    _count(tokens, fields)
    _time(span, fields)
    tokens.judge(fields, {} if _RARE.isdisjoint(facts) else _own(facts, fields))
    return fields


def _event_id(span: Span, answer: str) -> str:
    """Return the id. Short ids of answers are those of servers that count, or always say the same."""
    unique = len(answer) >= UNIQUE_CHARS and len(set(answer)) >= UNIQUE_CHARS // 2
    return id_of(f"answer {answer}" if unique else f"span {span.trace_id} {span.span_id}")


_RARE = frozenset(("repository", "stream", OWN))


def _own(facts: Mapping[str, Scalar], fields: dict[str, Any]) -> dict[str, str]:
    """Take in what attributes and baggage of ours name, which wins; return the tags."""
    fields |= {name: text_of(facts, f"own.{name}") for name in _OWN_FIELDS if f"own.{name}" in facts}
    tags = {name[len("own.tag.") :]: text_of(facts, name) for name in facts if name.startswith("own.tag.")}
    if facts.get("stream") in (True, "true", "True"):
        fields["stream"] = True
    if "repository" in facts:
        tags["repository"] = text_of(facts, "repository")
    if is_subscription(plan := text_of(facts, "own.subscription")):
        tags["subscription"] = plan
        fields["service_tier"] = subscribed(fields.get("service_tier", ""))
    return tags


def _count(tokens: Tokens, fields: dict[str, Any]) -> None:
    read, write = tokens.take("cache_read_tokens"), tokens.take("cache_write_tokens")
    reasoning = tokens.take("reasoning_tokens")
    fields["input_tokens"] = tokens.whole(tokens.take("input_tokens"), read + write)
    fields["output_tokens"] = tokens.whole(tokens.take("output_tokens"), reasoning)
    if "cache_write_1h_tokens" in tokens.facts:
        fields["cache_write_1h_tokens"] = min(tokens.take("cache_write_1h_tokens"), write)
    fields["cache_read_tokens"], fields["cache_write_tokens"], fields["reasoning_tokens"] = read, write, reasoning
    if not UNITS.isdisjoint(tokens.facts):
        units = {name: float(number) for name in sorted(UNITS) if (number := tokens.take(name))}
        fields |= {"extra_units": units} if units else {}
    if "cost_usd" in tokens.facts:
        fields["reported_cost_nano"] = cost_of(tokens.facts)


def _time(span: Span, fields: dict[str, Any]) -> None:
    """Take in latency and time to the first part in milliseconds, as far as they are told."""
    took = (span.end_ns - span.start_ns) // 1_000_000
    if span.end_ns and 0 <= took < 2**31:
        fields["latency_ms"] = took
    for name, factor in (("ttft_s", 1_000), ("ttft_ms", 1)):
        value = span.facts.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2_000_000:
            fields["ttft_ms"] = round(value * factor)
    status = span.facts.get("http_status")
    if type(status) is int and 100 <= status < 600:
        fields["http_status"] = status


@lru_cache(maxsize=1_024)
def _address(address: str, port: str) -> dict[str, str]:
    """Return the host that was called, with its port where it is no usual one, and the region that it names."""
    host = (address.partition("//")[2] or address).partition("/")[0]
    if host and ":" not in host and port not in _DEFAULT_PORTS:
        host = f"{host}:{port}"
    region = region_of(host)
    return {"api_host": host, "region": region} if region else {"api_host": host}


def read_spans(spans: Iterable[Span | Damaged]) -> Reading:
    """Return what these spans are."""
    reading = Reading()
    calls: dict[tuple[str, str], tuple[Span, Found]] = {}
    for span in spans:
        if isinstance(span, Damaged):
            reading.refused.append(span)
            continue
        operation, other = operation_of(span.facts)
        if other is not None:
            reading.ignored[other] += 1
            if other == "unknown_operation":
                reading.unknown[text_of(span.facts, "operation")[:40]] += 1
            continue
        if span.failed and not span.facts.keys() & _MODELS:
            reading.ignored["failed_without_model"] += 1
            continue
        if (span.trace_id, span.span_id) in calls:
            reading.ignored["repeated"] += 1
            continue
        try:
            calls[span.trace_id, span.span_id] = span, Found(span.place, fields_of(span, operation))
        except RefusedError as refused:
            reading.refused.append(Damaged(span.place, str(refused)))
    _leave_out_outer(calls, reading)
    reading.calls.extend(found for _, found in calls.values())
    return reading


Calls = dict[tuple[str, str], tuple[Span, Found]]


def _leave_out_outer(calls: Calls, reading: Reading) -> None:
    """Leave out what tells a call again: a framework's span around it, or that of a second instrumentation."""
    for span, call in list(calls.values()):
        outer = calls.get((span.trace_id, span.parent_id)) if span.parent_id else None
        if outer is not None and same_call(outer[1], call):
            silent = _silent(call) and not _silent(outer[1])
            _leave_out(calls, reading, span if silent else outer[0])
    if len({span.scope for span, _ in calls.values()}) > 1:
        _leave_out_others(calls, reading)


def _leave_out_others(calls: Calls, reading: Reading) -> None:
    """Leave out what a second instrumentation tells of a call: around it in time, with the provider's own id."""
    told: dict[str, tuple[Span, Found]] = {}
    for span, call in sorted(calls.values(), key=lambda one: one[0].end_ns - one[0].start_ns):
        answer = call.fields.get("provider_request_id", "")
        first, inner = told.setdefault(answer, (span, call))
        around = span.start_ns <= first.start_ns and first.end_ns <= span.end_ns
        if answer and around and span.scope != first.scope and same_call(call, inner):
            _leave_out(calls, reading, span)


def _leave_out(calls: Calls, reading: Reading, span: Span) -> None:
    if calls.pop((span.trace_id, span.span_id), None) is not None:
        reading.ignored["wrapper"] += 1


def _silent(call: Found) -> bool:
    return bool(call.fields["usage_source"] == "NONE" and call.fields["status"] == "OK")


def same_call(outer: Found, inner: Found) -> bool:
    """Say whether two spans, one around the other, tell one call.

    They do with the provider's id and no other counts; without ids by their counts, or where one of them states none.
    """
    ids = {one.fields["provider_request_id"] for one in (outer, inner) if one.fields.get("provider_request_id")}
    if len(ids) == 2:
        return False
    silent = _silent(outer) or _silent(inner)
    told = ("operation", "model_sent") if silent else ("input_tokens", "output_tokens")
    failed = inner.fields["status"] == "ERROR" and inner.fields["usage_source"] == "NONE"
    equal = all(outer.fields.get(name) == inner.fields.get(name) for name in told)
    return equal and not failed
