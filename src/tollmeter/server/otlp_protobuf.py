"""OTLP/HTTP in protobuf, by OpenTelemetry's own classes; the walk reads attributes that a table names and no others."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tollmeter.producers.telemetry.names import SLOTS, Slot, facts_of
from tollmeter.producers.telemetry.reading import LogRecord, Scalar, Span, UnreadableError, record_name

_ERROR = 2
_SCALARS = frozenset(("string_value", "int_value", "double_value", "bool_value"))


class _Value(Protocol):
    def WhichOneof(self, oneof: str) -> str | None: ...  # noqa: N802


class _Attribute(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> _Value: ...


def spans(body: bytes) -> Iterator[Span]:
    """Yield the spans of an ExportTraceServiceRequest. Raises `UnreadableError`."""
    for nth, group in enumerate(_parsed(ExportTraceServiceRequest(), body).resource_spans):
        resource = _facts(group.resource.attributes, SLOTS, {})
        for scope_nth, scope in enumerate(group.scope_spans):
            where = f"resourceSpans[{nth}].scopeSpans[{scope_nth}].spans"
            for place, span in enumerate(scope.spans):
                yield Span(
                    f"{where}[{place}]",
                    scope.scope.name,
                    span.trace_id.hex() if len(span.trace_id) == 16 else "",
                    span.span_id.hex() if len(span.span_id) == 8 else "",
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == _ERROR,
                    _facts(span.attributes, SLOTS, resource),
                )


def records(body: bytes, slots: Mapping[str, Slot]) -> Iterator[LogRecord]:
    """Yield the records of an ExportLogsServiceRequest; `slots` say which attributes matter. Raises as `spans` does."""
    for nth, group in enumerate(_parsed(ExportLogsServiceRequest(), body).resource_logs):
        resource = _facts(group.resource.attributes, slots, {})
        for scope_nth, scope in enumerate(group.scope_logs):
            where = f"resourceLogs[{nth}].scopeLogs[{scope_nth}].logRecords"
            for place, record in enumerate(scope.log_records):
                facts = _facts(record.attributes, slots, resource)
                name = record_name(facts.get("event_name"), record.event_name, record.body.string_value[:80])
                at = record.time_unix_nano or record.observed_time_unix_nano
                yield LogRecord(f"{where}[{place}]", name, at, facts)


Request = TypeVar("Request", ExportTraceServiceRequest, ExportLogsServiceRequest)


def _parsed(request: Request, body: bytes) -> Request:
    try:
        request.MergeFromString(body)
    except DecodeError:
        raise UnreadableError(f"not OTLP in protobuf: no {type(request).__name__}") from None
    return request


def _facts(
    attributes: Iterable[_Attribute], slots: Mapping[str, Slot], above: Mapping[str, Scalar]
) -> dict[str, Scalar]:
    return facts_of(((one.key, one.value) for one in attributes), slots, above, _scalar)


def _scalar(value: _Value) -> Scalar | None:
    kind = value.WhichOneof("value")
    found: Scalar | None = getattr(value, kind) if kind in _SCALARS else None
    return found
