"""A call as instrumentations of OpenTelemetry tell it."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource({"service.name": "shop"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
with provider.get_tracer("shop").start_as_current_span("chat gpt-4o") as span:
    span.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "user.id": "zoe"})
    span.set_attributes({"gen_ai.request.model": "gpt-4o"})
    span.set_attributes({"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 200})  # 0.0045 USD
provider.shutdown()
