"""A chat call in a provider's own words over the standard library's HTTP: no SDK needed, metered as any other.

For probes, and as a client of the chain where no SDK is installed. Text in, text out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

from tollmeter.producers.extract.usage import get, items
from tollmeter.producers.http.answer import Answer
from tollmeter.producers.http.attempt import Attempt, begin
from tollmeter.producers.http.interfaces import Request
from tollmeter.producers.http.meter import Meter

TIMEOUT_S = 30.0
PROBE = "Answer with the one word: pong"
PROBE_TOKENS = 16
ANTHROPIC_VERSION = "2023-06-01"
Message = Mapping[str, str]


class ProviderError(RuntimeError):
    """The provider answered with an error; the text is its own, at most a line of it."""

    def __init__(self, status_code: int, text: str) -> None:
        super().__init__(f"HTTP {status_code}: {text}")
        self.status_code = status_code


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Where and how a provider is called: `speaks` openai, anthropic, gemini or ollama. The key shows in no repr."""

    speaks: str
    url: str
    key: str = ""
    provider: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"no HTTP address: {parts.scheme}://{parts.hostname or ''}")
        if self.speaks not in _ASK:
            raise ValueError(f"speaks is {self.speaks!r}; it can be {', '.join(_ASK)}")

    def __repr__(self) -> str:
        return f"Target({self.speaks}, {urlsplit(self.url).hostname})"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `model` is the one that the provider says it used."""

    text: str
    model: str
    answer: Answer | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NativeClient:
    """A client of the chain: `NativeClient(Target("ollama", "http://127.0.0.1:11434"), Meter(producer, guard))`."""

    target: Target
    meter: Meter

    def __call__(
        self, *, model: str, messages: Sequence[Message], max_tokens: int = 256, timeout: float = TIMEOUT_S
    ) -> Reply:
        """Return the reply. Raises `ProviderError`, TimeoutError, ConnectionError, or what the guard refuses with."""
        path, body = _ASK[self.target.speaks](model, messages, max_tokens)
        parts = urlsplit(self.target.url.rstrip("/") + path)
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json", **_key_headers(self.target)}
        attempt = begin(self.meter, Request(parts.netloc, parts.path, parts.query, headers, content))
        if attempt is not None and attempt.refusal() is not None and attempt.deny is not None:
            attempt.deny.raise_if_denied()
        if attempt is not None and attempt.instead:  # a rule about models wants another one
            path, body = _ASK[self.target.speaks](attempt.instead, messages, max_tokens)
            parts, content = urlsplit(self.target.url.rstrip("/") + path), json.dumps(body).encode()
        status, data = _exchange(HttpRequest(parts.geturl(), content, headers, method="POST"), timeout, attempt)  # noqa: S310 - Target lets http and https through alone
        answered = _object(data)
        if status >= 400:
            raise ProviderError(status, _one_line(get(answered, "error.message", "error") or data[:200]))
        said = str(get(answered, "model", "modelVersion") or model)
        return Reply(_text(answered), said, attempt.answer if attempt else None, answered)

    def probe(self, *, model: str, timeout: float = TIMEOUT_S) -> Reply:
        """Ask for one word: is the provider there? Raises as the call does."""
        return self(
            model=model, messages=[{"role": "user", "content": PROBE}], max_tokens=PROBE_TOKENS, timeout=timeout
        )


def _exchange(request: HttpRequest, timeout: float, attempt: Attempt | None) -> tuple[int, bytes]:
    """Return status and body, and tell the attempt how it went."""
    failed: BaseException | None = None
    try:
        with _open(request, timeout) as answered:
            status = answered.status or 0
            if attempt is not None:
                attempt.opened(status, {name.lower(): value for name, value in answered.headers.items()})
            data = answered.read()
            if attempt is not None:
                attempt.feed(data)
            return status, data
    except URLError as error:
        failed = error.reason if isinstance(error.reason, BaseException) else error
        kind = TimeoutError if isinstance(failed, TimeoutError) else ConnectionError
        raise kind(_one_line(failed)) from None
    except (HTTPException, OSError) as error:
        failed = error
        kind = TimeoutError if isinstance(failed, TimeoutError) else ConnectionError
        raise kind(_one_line(failed)) from None
    except BaseException as error:
        failed = error
        raise
    finally:
        if attempt is not None:
            attempt.done(failed, to_its_end=failed is None)


def _open(request: HttpRequest, timeout: float) -> HTTPResponse | HTTPError:
    try:
        opened: HTTPResponse = urlopen(request, timeout=timeout)  # noqa: S310 - as above
    except HTTPError as refused:  # an answer, too
        return refused
    return opened


def _key_headers(target: Target) -> dict[str, str]:
    if target.speaks == "anthropic":
        return {"x-api-key": target.key, "anthropic-version": ANTHROPIC_VERSION}
    if not target.key:
        return {}
    return {"x-goog-api-key": target.key} if target.speaks == "gemini" else {"authorization": f"Bearer {target.key}"}


def _openai(model: str, messages: Sequence[Message], max_tokens: int) -> tuple[str, dict[str, Any]]:
    return "/chat/completions", {"model": model, "messages": list(messages), "max_tokens": max_tokens}


def _anthropic(model: str, messages: Sequence[Message], max_tokens: int) -> tuple[str, dict[str, Any]]:
    system, others = _system(messages)
    body = {"model": model, "messages": others, "max_tokens": max_tokens}
    return "/v1/messages", {**body, "system": system} if system else body


def _gemini(model: str, messages: Sequence[Message], max_tokens: int) -> tuple[str, dict[str, Any]]:
    system, others = _system(messages)
    roles = {"assistant": "model"}
    contents = [{"role": roles.get(one["role"], "user"), "parts": [{"text": one["content"]}]} for one in others]
    body: dict[str, Any] = {"contents": contents, "generationConfig": {"maxOutputTokens": max_tokens}}
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    return f"/v1beta/models/{model}:generateContent", body


def _ollama(model: str, messages: Sequence[Message], max_tokens: int) -> tuple[str, dict[str, Any]]:
    options = {"num_predict": max_tokens}
    return "/api/chat", {"model": model, "messages": list(messages), "stream": False, "options": options}


_ASK = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini, "ollama": _ollama}


def _system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Return what stands apart in these interfaces, and the rest."""
    system = "\n".join(one["content"] for one in messages if one["role"] == "system")
    return system, [one for one in messages if one["role"] != "system"]


def _text(body: Mapping[str, object]) -> str:
    choice, candidate = items(body, "choices")[:1], items(body, "candidates")[:1]
    found = [get(one, "message.content") for one in choice]
    found += [get(part, "text") for one in candidate for part in items(one, "content.parts")]
    found += [get(block, "text") for block in items(body, "content")]
    found.append(get(body, "message.content"))
    return "".join(text for text in found if isinstance(text, str))


def _object(data: bytes) -> Mapping[str, object]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _one_line(found: object) -> str:
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return " ".join(text.split())[:200] or "no reason given"
