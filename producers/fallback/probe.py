"""Is a provider there? One tiny call that is metered like any other says which model answers and what it took."""

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.fallback.chain import PROBE_OPERATION
from tollmeter.producers.fallback.native import NativeClient, ProviderError, Target
from tollmeter.producers.http.meter import Meter
from tollmeter.schemas.secrets import without_secrets
from tollmeter.settings import Settings

ACKNOWLEDGE_S = 5.0


class Known(NamedTuple):
    """How a provider is called when nothing else is said."""

    speaks: str
    url: str
    model: str
    variables: tuple[str, ...]
    """Environment variables that may hold the key; none: no key is needed."""
    provider: str


KNOWN = {
    "openai": Known("openai", "https://api.openai.com/v1", "gpt-4o-mini", ("OPENAI_API_KEY",), "openai"),
    "anthropic": Known(
        "anthropic",
        "https://api.anthropic.com",
        "claude-haiku-4-5",
        ("ANTHROPIC_API_KEY",),
        "anthropic",
    ),
    "gemini": Known(
        "gemini",
        "https://generativelanguage.googleapis.com",
        "gemini-2.5-flash-lite",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "google",
    ),
    "ollama": Known("ollama", "http://127.0.0.1:11434", "llama3.2", (), "ollama"),
    "mistral": Known("openai", "https://api.mistral.ai/v1", "mistral-small-latest", ("MISTRAL_API_KEY",), "mistral"),
    "groq": Known("openai", "https://api.groq.com/openai/v1", "llama-3.1-8b-instant", ("GROQ_API_KEY",), "groq"),
    "deepseek": Known("openai", "https://api.deepseek.com", "deepseek-chat", ("DEEPSEEK_API_KEY",), "deepseek"),
}


def key_in(known: Known, environment: Mapping[str, str]) -> str:
    """Return the provider's key from its variables, "" where none is set."""
    return next((found for name in known.variables if (found := environment.get(name, "").strip())), "")


def address_in(name: str, known: Known, environment: Mapping[str, str]) -> str:
    """Return where the provider is called: as OPENAI_BASE_URL and its like say, else its own address."""
    return environment.get(f"{name.upper()}_BASE_URL", "").strip() or known.url


def ask(settings: Settings, target: Target, model: str, timeout: float, org_id: str) -> dict[str, Any]:
    """Make the call and return what is to be said about it."""
    for name in ("tollmeter.producer", "aiokafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # this command says it itself, in one line
    producer = UsageProducer(settings=settings, service="tollmeter-probe")
    fields = {"org_id": org_id, "feature": PROBE_OPERATION}
    client = NativeClient(target, Meter(producer, provider=target.provider, fields=fields))
    began = time.monotonic()
    try:
        reply = client.probe(model=model, timeout=timeout)
    except (ProviderError, TimeoutError, ConnectionError) as error:
        return {"reachable": False, "model": model, "error": _without(target.key, str(error))}
    finally:
        acknowledged = _sent(producer)
    answer = reply.answer
    assert answer is not None
    return {
        "reachable": True,
        "model": reply.model,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "usage_source": answer.usage_source,
        "latency_ms": round((time.monotonic() - began) * 1_000),
        "event_id": answer.event_id,
        "event": "is in Kafka" if acknowledged else "waits on disk until Kafka is there",
    }


def _sent(producer: UsageProducer) -> bool:
    """Say whether Kafka has the event; without a broker it stays on disk, and nobody waits for long."""
    deadline = time.monotonic() + ACKNOWLEDGE_S
    while not (acknowledged := producer.flush(0.1)) and not producer.problem and time.monotonic() < deadline:
        pass
    producer.close(0.0)
    return acknowledged


def _without(key: str, text: str) -> str:
    """Return a provider's error text without the key: some repeat what they were sent."""
    cleaned: str = without_secrets({"text": text.replace(key, "***") if key else text})["text"]
    return cleaned
