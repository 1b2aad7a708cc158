"""`tollmeter probe PROVIDER`: one tiny call says whether a provider is there, which model answers and what it took."""

import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import click

from tollmeter.cli.options import Number
from tollmeter.cli.output import Finding, UserError, json_option, out, print_json, print_table
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


@click.command()
@click.argument("provider", type=click.Choice(sorted(KNOWN)))
@click.option("--model", default="", help="Model to ask; default: a small one of the provider.")
@click.option("--url", default="", help="Base address, where it is not the provider's own.")
@click.option("--key-file", type=click.Path(path_type=Path), default=None, help="File that holds the provider key.")
@click.option("--timeout", type=Number(0.1, 600), default=20.0, show_default=True, help="Seconds to wait.")
@click.option("--org", "org_id", default="demo", show_default=True, help="Paying organisation of the call.")
@json_option
@click.pass_obj
def probe(
    settings: Settings,
    provider: str,
    model: str,
    url: str,
    key_file: Path | None,
    timeout: float,
    org_id: str,
    as_json: bool,
) -> None:
    """Ask a provider for one word: is it reachable?

    The key comes from the provider's environment variable (OPENAI_API_KEY, ...) or a file, and is never shown. The
    call is metered like any other, as operation `probe`. Exit code 1: not reachable, or it refused.
    """
    known = KNOWN[provider]
    key = _key(known, key_file)
    try:
        target = Target(known.speaks, url or known.url, key, known.provider)
    except ValueError as error:
        raise UserError(f"--url: {error}") from None
    row = _ask(settings, target, model or known.model, timeout, org_id)
    if as_json:
        print_json({"provider": provider, **row})
    elif row["reachable"]:
        print_table(f"{provider} is reachable", [row], ("model", "input_tokens", "output_tokens", "latency_ms"))
        out.print(f"metered: event {row['event_id']} {row['event']}")
    if not row["reachable"]:
        raise Finding(f"{provider} did not answer: {row['error']}")


def _key(known: Known, key_file: Path | None) -> str:
    if key_file is not None:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--key-file {key_file}: {getattr(error, 'strerror', None) or 'no text'}") from None
        if not key or len(key.split()) != 1:
            raise UserError(f"--key-file {key_file}: one key on one line is expected")
        return key
    key = next((found for name in known.variables if (found := os.environ.get(name, "").strip())), "")
    if known.variables and not key:
        raise UserError(f"no key: set {' or '.join(known.variables)}, or give --key-file")
    return key


def _ask(settings: Settings, target: Target, model: str, timeout: float, org_id: str) -> dict[str, Any]:
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
