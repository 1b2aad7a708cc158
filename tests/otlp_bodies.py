"""Bodies of OTLP requests, in JSON and in protobuf, from the same values; and what a reading makes of them."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tollmeter.producers.telemetry.reading import Reading
from tollmeter.schemas.event import EPOCH, UsageEvent
from tollmeter.server.otlp import Encoding, read_logs, read_traces

TRACE, AT_NS = "5b8efff798038103d269b633813fc60c", 1_796_000_000_123_456_789
Values = Mapping[str, Any]
CURRENT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.usage.input_tokens": 1_000,
    "gen_ai.usage.output_tokens": 200,
    "gen_ai.usage.cache_read.input_tokens": 400,
    "gen_ai.usage.reasoning.output_tokens": 50,
    "gen_ai.conversation.id": "c-1",
    "gen_ai.agent.name": "helper",
    "gen_ai.request.stream": True,
    "gen_ai.response.time_to_first_chunk": 0.25,
    "server.address": "api.openai.com",
    "server.port": 443,
    "openai.response.service_tier": "priority",
    "gen_ai.input.messages": '[{"role": "user", "content": "a secret question"}]',
}
"""Attributes of a call as the conventions of today have them."""


def attributes(values: Values) -> list[dict[str, Any]]:
    """Return attributes as OTLP/JSON writes them: 64-bit integers as text."""
    kinds = {int: "intValue", float: "doubleValue", str: "stringValue", bool: "boolValue"}
    return [
        {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}
        for key, value in values.items()
    ]


def span(number: int = 1, parent: int = 0, **more: Any) -> dict[str, Any]:
    """Return a span of one second; attributes are given as `attributes`."""
    made = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": "chat",
        "startTimeUnixNano": str(AT_NS),
        "endTimeUnixNano": str(AT_NS + 10**9),
    }
    return made | more | {"attributes": attributes(more.get("attributes", {}))}


def record(values: Values, **more: Any) -> dict[str, Any]:
    """Return a log record."""
    return {"timeUnixNano": str(AT_NS), **more, "attributes": attributes(values)}


def traces(spans: Sequence[dict[str, Any]], resource: Values | None = None) -> dict[str, Any]:
    """Return an ExportTraceServiceRequest."""
    scope = {"scope": {"name": "test"}, "spans": list(spans)}
    return {"resourceSpans": [{"resource": {"attributes": attributes(resource or {})}, "scopeSpans": [scope]}]}


def logs(records: Sequence[dict[str, Any]], resource: Values | None = None) -> dict[str, Any]:
    """Return an ExportLogsServiceRequest."""
    scope = {"scope": {"name": "test"}, "logRecords": list(records)}
    return {"resourceLogs": [{"resource": {"attributes": attributes(resource or {})}, "scopeLogs": [scope]}]}


def body_of(document: dict[str, Any], encoding: Encoding = "json") -> bytes:
    """Return the body of a request."""
    if encoding == "json":
        return json.dumps(document).encode()
    request = ExportTraceServiceRequest() if "resourceSpans" in document else ExportLogsServiceRequest()
    for group in document.get("resourceSpans", ()):
        made = request.resource_spans.add()
        _fill(made.resource.attributes, group["resource"]["attributes"])
        for scope in group["scopeSpans"]:
            spans = made.scope_spans.add().spans
            for one in scope["spans"]:
                status = {"code": one.get("status", {}).get("code", 0)}
                ids = {"trace_id": one["traceId"], "span_id": one["spanId"], "parent_span_id": one["parentSpanId"]}
                times = {"start_time_unix_nano": "startTimeUnixNano", "end_time_unix_nano": "endTimeUnixNano"}
                added = spans.add(
                    **{name: bytes.fromhex(value) for name, value in ids.items()},
                    **{name: int(one[other]) for name, other in times.items()},
                    name=one["name"],
                    status=status,
                )
                _fill(added.attributes, one["attributes"])
    for group in document.get("resourceLogs", ()):
        told = request.resource_logs.add()
        _fill(told.resource.attributes, group["resource"]["attributes"])
        for scope in group["scopeLogs"]:
            records = told.scope_logs.add().log_records
            for one in scope["logRecords"]:
                entry = records.add(time_unix_nano=int(one["timeUnixNano"]), event_name=one.get("eventName", ""))
                if "body" in one:
                    entry.body.string_value = one["body"]["stringValue"]
                _fill(entry.attributes, one["attributes"])
    return bytes(request.SerializeToString())


def _fill(to: Any, values: Sequence[dict[str, Any]]) -> None:
    names = {"intValue": "int_value", "doubleValue": "double_value", "boolValue": "bool_value"}
    for one in values:
        ((kind, value),) = one["value"].items()
        added: KeyValue = to.add(key=one["key"])
        setattr(added.value, names.get(kind, "string_value"), int(value) if kind == "intValue" else value)


def read(document: dict[str, Any], encoding: Encoding = "json") -> Reading:
    """Read a request of traces or logs."""
    reader = read_traces if "resourceSpans" in document else read_logs
    return reader(body_of(document, encoding), encoding)


def events_of(reading: Reading) -> list[UsageEvent]:
    """Return the events that the calls of a reading make."""
    return [
        UsageEvent.model_validate(
            {"service": "", **call.fields, "occurred_at": EPOCH + timedelta(microseconds=call.fields["occurred_at"])}
        )
        for call in reading.calls
    ]
