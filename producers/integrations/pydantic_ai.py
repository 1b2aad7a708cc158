"""For pydantic-ai: `Agent.instrument_all(metered(producer))`, or `agent.instrument = metered(producer)` for one agent.

pydantic-ai tells its calls as OpenTelemetry spans; here they go to a tracer of their own, without prompts and answers.
"""

from opentelemetry.sdk.trace import TracerProvider
from pydantic_ai.models.instrumented import InstrumentationSettings

from tollmeter.producers.integrations.otel import TollmeterSpanProcessor
from tollmeter.producers.integrations.recording import Recording


def metered(producer: Recording, **fields: object) -> InstrumentationSettings:
    """Return settings under which agents record each call of theirs. Keywords are event fields of every call."""
    provider = TracerProvider()
    provider.add_span_processor(TollmeterSpanProcessor(producer, **fields))
    return InstrumentationSettings(tracer_provider=provider, include_content=False)
