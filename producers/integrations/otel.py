"""For programs that trace with OpenTelemetry: a span processor that records the model calls among their spans.

`provider.add_span_processor(TollmeterSpanProcessor(producer))`. What counts as a call, and under which id, is decided
as at the server's door `/v1/traces`, so a span that comes both ways is one event.
"""

from collections import OrderedDict
from collections.abc import Mapping

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import StatusCode

from tollmeter.producers.http.meter import faults, said
from tollmeter.producers.integrations.recording import Recording
from tollmeter.producers.telemetry.names import SLOTS, facts_of
from tollmeter.producers.telemetry.reading import Found, RefusedError, Scalar, Span
from tollmeter.producers.telemetry.spans import fields_of, operation_of, same_call

REMEMBERED = 1_000
"""Calls kept to recognise the span of a framework around them."""


class TollmeterSpanProcessor(SpanProcessor):  # type: ignore[misc]  # the library is not type-checked here
    """Records each span that is a call. Keywords are event fields of every call."""

    def __init__(self, producer: Recording, **fields: object) -> None:
        self._producer, self._fields = producer, fields
        self._inner: OrderedDict[tuple[str, str], Found] = OrderedDict()

    def on_end(self, span: ReadableSpan) -> None:
        """Record the span's call. Never raises."""
        try:
            self._record(_read(span))
        except Exception as error:
            faults.warn("a span was not recorded: %s", said(error))

    def _record(self, span: Span) -> None:
        operation, other = operation_of(span.facts)
        if other is not None:
            return
        try:
            call = Found(span.place, fields_of(span, operation))
        except RefusedError as refused:
            faults.warn("a span was not recorded: %s", refused)
            return
        inner = self._inner.pop((span.trace_id, span.span_id), None)
        if span.parent_id:  # a framework's span around this call ends after it, and tells it again
            self._inner[span.trace_id, span.parent_id] = call
            if len(self._inner) > REMEMBERED:
                self._inner.popitem(last=False)
        if inner is None or not same_call(call, inner):
            self._producer.record(**{**call.fields, **self._fields})


def _read(span: ReadableSpan) -> Span:
    context, parent = span.get_span_context(), span.parent
    return Span(
        span.name,
        span.instrumentation_scope.name if span.instrumentation_scope is not None else "",
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        f"{parent.span_id:016x}" if parent is not None else "",
        span.start_time or 0,
        span.end_time or 0,
        span.status.status_code is StatusCode.ERROR,
        _facts(span.attributes, _facts(span.resource.attributes, {})),
    )


def _facts(attributes: Mapping[str, object] | None, above: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return facts_of((attributes or {}).items(), SLOTS, above, _scalar)


def _scalar(value: object) -> Scalar | None:
    return value if isinstance(value, str | int | float | bool) else None
