"""For the OpenAI Agents SDK: `agents.add_trace_processor(TollmeterProcessor(producer))`.

Spans that are one call to a model are events, under ids made of their own; agents, tools and handoffs are none.
"""

from datetime import datetime
from typing import Any

from agents.tracing import Span, Trace, TracingProcessor

from tollmeter.producers.extract.usage import get
from tollmeter.producers.http.meter import faults, said
from tollmeter.producers.integrations.recording import Recording
from tollmeter.producers.telemetry.facts import id_of


class TollmeterProcessor(TracingProcessor):  # type: ignore[misc]  # the library is not type-checked here
    """Records each call. `provider` is whose models the agents use; further keywords are event fields of every call."""

    def __init__(self, producer: Recording, *, provider: str = "openai", **fields: object) -> None:
        self._producer, self._provider, self._fields = producer, provider, fields

    def on_span_end(self, span: Span[object]) -> None:
        """Record the span's call. Never raises."""
        try:
            answer = _answer(span.span_data)
            if answer is not None:
                self._record(span, answer)
        except Exception as error:
            faults.warn("a span of the agents was not recorded: %s", said(error))

    def _record(self, span: Span[object], answer: object) -> None:
        began, ended = (datetime.fromisoformat(at) if at else None for at in (span.started_at, span.ended_at))
        fields: dict[str, Any] = {
            "event_id": id_of(f"openai-agents {span.trace_id} {span.span_id}"),
            "started_at": began,
            "latency_ms": round((ended - began).total_seconds() * 1_000) if began and ended else None,
            "trace_id": span.trace_id.removeprefix("trace_"),
            "span_id": span.span_id,
            "provider": self._provider,
        }
        if span.error is not None:
            fields |= {"status": "ERROR", "error_type": str(get(span.error, "message") or "error")[:80]}
        self._producer.record_response(answer, **{**fields, **self._fields})

    def on_trace_start(self, trace: Trace) -> None: ...
    def on_trace_end(self, trace: Trace) -> None: ...
    def on_span_start(self, span: Span[object]) -> None: ...
    def force_flush(self) -> None: ...
    def shutdown(self) -> None: ...


def _answer(data: object) -> object | None:
    """Return what a span says of the provider's answer; None for a span that is no call."""
    kind = get(data, "type")
    if kind == "response":
        return get(data, "response") or {"usage": get(data, "usage")}
    if kind == "generation":
        return {"model": get(data, "model"), "usage": get(data, "usage")}
    return None
