"""tollmeter: LLM usage and cost meter."""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "Client": "tollmeter.producers.fallback.chain",
    "FallbackChain": "tollmeter.producers.fallback.chain",
    "FallbackConfig": "tollmeter.producers.fallback.config",
    "Guard": "tollmeter.producers.guard.guard",
    "Meter": "tollmeter.producers.http.meter",
    "MeterASGI": "tollmeter.producers.middleware.asgi",
    "MeterWSGI": "tollmeter.producers.middleware.wsgi",
    "NativeClient": "tollmeter.producers.fallback.native",
    "Target": "tollmeter.producers.fallback.native",
    "UsageEvent": "tollmeter.schemas.event",
    "UsageProducer": "tollmeter.producers.client.client",
    "aextract": "tollmeter.producers.extract.extract",
    "aextract_all": "tollmeter.producers.extract.extract",
    "answer_of": "tollmeter.producers.http.answer",
    "calling": "tollmeter.producers.client.scope",
    "extract": "tollmeter.producers.extract.extract",
    "extract_all": "tollmeter.producers.extract.extract",
    "instrument": "tollmeter.producers.http.instrument",
    "metered": "tollmeter.producers.http.metered",
}
__all__ = [
    "Client",
    "FallbackChain",
    "FallbackConfig",
    "Guard",
    "Meter",
    "MeterASGI",
    "MeterWSGI",
    "NativeClient",
    "Target",
    "UsageEvent",
    "UsageProducer",
    "__version__",
    "aextract",
    "aextract_all",
    "answer_of",
    "calling",
    "extract",
    "extract_all",
    "instrument",
    "metered",
]


def __getattr__(name: str) -> object:
    """Load the public names on first use: a service that only extracts never loads the Kafka client."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
