"""The body of a request to /v1/traces or /v1/logs, protobuf or JSON, becomes a reading: calls and what was left out."""

from typing import Literal

from tollmeter.producers.telemetry.agents import SLOTS, read_records
from tollmeter.producers.telemetry.reading import Reading
from tollmeter.producers.telemetry.spans import read_spans

Encoding = Literal["json", "protobuf"]


def read_traces(body: bytes, encoding: Encoding) -> Reading:
    """Read an ExportTraceServiceRequest. Raises `UnreadableError` when the body as a whole is none."""
    if encoding == "json":
        from tollmeter.server.otlp_json import spans
    else:
        from tollmeter.server.otlp_protobuf import spans
    return read_spans(spans(body))


def read_logs(body: bytes, encoding: Encoding) -> Reading:
    """Read an ExportLogsServiceRequest. Raises `UnreadableError` when the body as a whole is none."""
    if encoding == "json":
        from tollmeter.server.otlp_json import records
    else:
        from tollmeter.server.otlp_protobuf import records
    return read_records(records(body, SLOTS))
