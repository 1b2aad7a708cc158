"""A service as people write one: the real SDKs through a metered client with a guard, a provider on 127.0.0.1."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from tests.acceptance.stack import Line
from tests.fake_provider import FakeServer, serving
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.client.scope import calling
from tollmeter.producers.guard.guard import Deny, Guard
from tollmeter.producers.http.metered import metered

KEY = "sk-acc-0123456789abcdef0123456789"
SECRET_WORDS = "the-prompt-that-nobody-may-keep"
ASK: Any = [{"role": "user", "content": SECRET_WORDS + "x" * (400 - len(SECRET_WORDS))}]
"""Four hundred characters: a hundred tokens by the usual estimate."""


@dataclass
class Shop:
    """One process of the service."""

    line: Line
    provider: FakeServer
    producer: UsageProducer
    guard: Guard

    def ask(self, org: str, most: int = 300, model: str = "gpt-4o", **caller: Any) -> Any:
        """Make one call as this caller; return the raw response, or the error that the SDK raised."""
        with httpx2.Client() as http, calling(**caller):
            client = openai.OpenAI(
                api_key=KEY,
                base_url=f"{self.provider.url}/v1",
                http_client=metered(http, producer=self.producer, guard=self.guard, org=org),
                max_retries=0,
            )
            try:
                return client.chat.completions.with_raw_response.create(model=model, messages=ASK, max_tokens=most)
            except openai.APIStatusError as refused:
                return refused

    def refusal(self, org: str, **question: Any) -> tuple[int, dict[str, Any]] | None:
        """Return status and body of a refused call, None for one that passed."""
        answer = self.ask(org, **question)
        if not isinstance(answer, openai.APIStatusError):
            return None
        return answer.status_code, answer.response.json()

    def refused(self, org: str, **question: Any) -> tuple[int, dict[str, Any]]:
        """Wait until such a call is refused."""
        return self.line.until(lambda: self.refusal(org, **question) or ())  # type: ignore[return-value]

    def denied(self, **question: Any) -> Deny:
        """Wait until the guard denies such a call."""

        def asked() -> list[Deny]:
            decision = self.guard.check("gpt-4o", **question)
            if isinstance(decision, Deny):
                return [decision]
            decision.reservation.release()
            return []

        return self.line.until(asked)[0]

    def served(self, org: str, **question: Any) -> Any:
        """Wait until such a call is served; return the raw response."""

        def passed() -> Any:
            answer = self.ask(org, **question)
            return None if isinstance(answer, openai.APIStatusError) else answer

        return self.line.until(passed)

    def asked(self) -> int:
        """How many requests have reached the provider."""
        return len(self.provider.asked)


@contextmanager
def opened(line: Line) -> Iterator[Shop]:
    """Open the shop; close it when all rows have been through it."""
    settings = line.settings()
    with (
        serving() as provider,
        UsageProducer(service="acc-shop", settings=settings) as producer,
        Guard(settings=settings, producer=producer) as guard,
    ):
        assert guard.ready(60), guard.problem
        yield Shop(line, provider, producer, guard)


def log_line(number: int, **changes: Any) -> dict[str, Any]:
    """Return a foreign `openai_usage` log line."""
    return {
        "t": "openai_usage",
        "severity": "INFO",
        "request_id": f"log-{number}",
        "client_ip": "198.51.100.7",
        "model_sent": "gpt-4o",
        "model_used": "gpt-4o-2024-08-06",
        "prompt_chars": 4_000,
        "usage": {"prompt_tokens": 1_000, "output_tokens": 200},
        "est_cost": 0.0045,
        "api_key_id": "0a1b2c3d",
        "timestamp": "2026-01-01T00:00:00.500Z",
    } | changes


def lines(*documents: dict[str, Any]) -> str:
    """Return documents as JSON lines."""
    return "".join(json.dumps(one) + "\n" for one in documents)
