"""tollmeter: LLM usage and cost meter."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "UsageProducer": "tollmeter.producers.client",
    "extract": "tollmeter.producers.extract",
    "UsageEvent": "tollmeter.schemas.event",
}
__all__ = ["UsageEvent", "UsageProducer", "__version__", "extract"]


def __getattr__(name: str) -> Any:
    """Load the public names on first use: a service that only extracts never loads the Kafka client."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
