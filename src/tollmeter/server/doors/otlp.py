"""`POST /v1/traces`, `/v1/logs`, `/v1/metrics`: OTLP over HTTP, protobuf or JSON, answered in the same content type.

What is no call to a model is ignored and answered 200: exporters send everything. What looked like a call and could not
be counted is told by a partial success (https://opentelemetry.io/docs/specs/otlp/#partial-success). Metrics repeat what
spans and records say, so they are taken and counted nowhere.
"""

from collections.abc import Callable, Mapping

import msgspec

from tollmeter.producers.telemetry.reading import Reading as Telemetry
from tollmeter.producers.telemetry.reading import UnreadableError
from tollmeter.schemas.escapes import many_lines
from tollmeter.server.door import Answer, Bad, Call, Door, Outcome, Posted, Reading
from tollmeter.server.json_answer import json_bytes
from tollmeter.server.json_body import readable
from tollmeter.server.otlp import Encoding, read_logs, read_traces
from tollmeter.server.problems import Problem

JSON, PROTOBUF = "application/json", "application/x-protobuf"
_ENCODINGS: dict[str, Encoding] = {JSON: "json", PROTOBUF: "protobuf", "application/protobuf": "protobuf"}
MOST_TOLD = 3
"""So many reasons are told to the sender; the others are counted."""
_REJECTED = {
    "/v1/traces": "rejectedSpans",
    "/v1/logs": "rejectedLogRecords",
    "/v1/metrics": "rejectedDataPoints",
}


class Partial(msgspec.Struct, omit_defaults=True):
    """How many were refused, under the name of what was sent, and why; nothing where all was taken."""

    rejectedSpans: str = ""  # noqa: N815 - as OTLP has it
    rejectedLogRecords: str = ""  # noqa: N815
    rejectedDataPoints: str = ""  # noqa: N815
    errorMessage: str = ""  # noqa: N815


class Exported(msgspec.Struct):
    """What was sent is stored, but for what the answer says was refused."""

    partialSuccess: Partial  # noqa: N815


def _encoding(posted: Posted) -> Encoding:
    encoding = _ENCODINGS.get(posted.media_type)
    if encoding is None:
        text = f"content-type {posted.media_type[:80]!r}: OTLP over HTTP is {PROTOBUF} or {JSON}"
        raise Problem(415, "unknown_media_type", text)
    return encoding


def _reader(read: Callable[[bytes, Encoding], Telemetry]) -> Callable[[Posted], Reading]:
    def reading(posted: Posted) -> Reading:
        """Return the calls of a body. Raises `Problem` when it is none of OTLP's."""
        try:
            encoding = _encoding(posted)
            found = read(readable(posted.body) if encoding == "json" else posted.body, encoding)
        except UnreadableError as error:
            raise Problem(400, "not_otlp", str(error)) from None
        entries: list[Call | Bad] = [Call(call.place, call.fields) for call in found.calls]
        entries += [Bad(one.place, "no_call", one.detail) for one in found.refused]
        return Reading(entries, ignored=dict(found.ignored))

    return reading


def _ignore(posted: Posted) -> Reading:
    _encoding(posted)
    return Reading([], ignored={"metrics": 1})


def message_of(outcome: Outcome) -> str:
    """Return what the sender is told: why something was refused, and what was left out that may be a call."""
    refused = [result for result in outcome.results if result.fate == "rejected"]
    told = [f"{result.place}: {result.detail}" for result in refused[:MOST_TOLD]]
    if len(refused) > MOST_TOLD:
        told.append(f"and {len(refused) - MOST_TOLD} more")
    if unknown := outcome.ignored.get("unknown_operation"):
        told.append(f"{unknown} of an operation (gen_ai.operation.name) that is not known were not counted")
    return "; ".join(told)


def _answerer(path: str) -> Callable[[Posted, Outcome], Answer]:
    def answer(posted: Posted, outcome: Outcome) -> Answer:
        """Return 200 with what was refused."""
        rejected, message = outcome.count("rejected"), many_lines(message_of(outcome))
        if _encoding(posted) == "json":
            partial = Partial(**{_REJECTED[path]: str(rejected), "errorMessage": message} if message else {})
            return Answer(200, [(b"content-type", JSON.encode())], json_bytes(Exported(partial)))
        return Answer(200, [(b"content-type", PROTOBUF.encode())], _protobuf(path, rejected, message))

    return answer


def _protobuf(path: str, rejected: int, message: str) -> bytes:
    """Return the response message; without a partial success it is empty, whatever was sent."""
    if not message:
        return b""
    if path == "/v1/traces":
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

        told = traces.ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
        return bytes(traces.ExportTraceServiceResponse(partial_success=told).SerializeToString())
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs

    records = logs.ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
    return bytes(logs.ExportLogsServiceResponse(partial_success=records).SerializeToString())


_SCHEMAS: Mapping[str, Mapping[str, object]] = {
    JSON: {"type": "object"},
    PROTOBUF: {"type": "string", "format": "binary"},
}
DOORS = (
    Door(
        "/v1/traces",
        _reader(read_traces),
        _answerer("/v1/traces"),
        "Take OpenTelemetry spans of model calls (OTLP)",
        schemas=_SCHEMAS,
        answers={200: Exported},
        packed=PROTOBUF,
    ),
    Door(
        "/v1/logs",
        _reader(read_logs),
        _answerer("/v1/logs"),
        "Take log records of coding agents (OTLP)",
        schemas=_SCHEMAS,
        answers={200: Exported},
        packed=PROTOBUF,
    ),
    Door(
        "/v1/metrics",
        _ignore,
        _answerer("/v1/metrics"),
        "Take OpenTelemetry metrics and ignore them (OTLP)",
        schemas=_SCHEMAS,
        answers={200: Exported},
        packed=PROTOBUF,
    ),
)
