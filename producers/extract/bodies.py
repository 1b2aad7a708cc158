"""Whatever a caller has in hand becomes answers: SDK objects, raw responses, streams, batch lines, lists, JSON text."""

import json
from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from tollmeter.producers.extract.grown import grown, plain
from tollmeter.producers.extract.served import generations
from tollmeter.producers.extract.streams import Merged
from tollmeter.producers.extract.usage import count, get, items, text

HTTP_ERROR = 400
_INLINED = (
    "response.inlinedResponses.inlinedResponses",
    "metadata.output.inlinedResponses.inlinedResponses",
    "dest.inlined_responses",
)
"""Where a batch job of Gemini's has its answers (https://ai.google.dev/gemini-api/docs/batch-api, 2026-11-30)."""
WHOLE_OBJECTS = ("chat.completion", "response", "text_completion", "interaction", "list", "thread.run")
_STATED = ("usage", "usageMetadata", "usage_metadata", "meta", "usage_info", "eval_count")
_ENVELOPES = ("response", "result", "body", "message", "completion", "x_groq")
MAX_ANSWERS = 100_000
"""So many answers of one list are read."""


class Body(NamedTuple):
    """One answer and the event fields that its wrapping tells."""

    content: Any
    fields: dict[str, Any]
    streamed: bool = False
    status: str = ""
    """How the stream that held it ended; "" where the answer itself says it."""
    problem: str = ""
    """Why it could not be read."""


def answers_of(response: object) -> list[Body]:
    """Return the answers within a response, in order; usually one. Streams are read to their end. Never raises."""
    try:
        return list(_answers(response, {}))
    except Exception as error:
        return [Body({}, {}, problem=f"unreadable: {type(error).__name__}")]


def _answers(response: Any, fields: dict[str, Any]) -> Iterator[Body]:
    if isinstance(response, str | bytes | bytearray):
        yield from _answers(from_text(response), fields)
    elif isinstance(response, Merged):
        yield Body(response, fields, True, response.status)
    elif (raw := _raw(response)) is not None:
        yield from _answers(raw[0], {**fields, **raw[1]})
    elif (line := _batch_line(response)) is not None:
        yield from _answers(line, {**fields, "processing": "BATCH"}) if line else ()
    elif (messages := generations(response)) or (messages := _inside(response)):
        for message in messages:
            yield from _answers(message, fields)
    elif _is_stream(response):
        yield from _many(_chunks(response), fields)
    elif isinstance(response, AsyncIterable | Awaitable):
        yield Body({}, fields, problem="asynchronous: it takes aextract")
    else:
        yield Body(_opened(response), fields)


def _opened(body: Any) -> object:
    """Return the answer out of an envelope: one event of a session, Cloudflare's result, usage that choices state."""
    if get(body, *_STATED) is not None:
        return body
    for name in _ENVELOPES:
        inner = get(body, name)
        if get(inner, *_STATED) is not None:
            return inner
    usages = [usage for choice in items(body, "choices") if (usage := plain(get(choice, "usage"))) is not None]
    if not usages:
        return body
    usage = usages[0]
    if all(count(get(one, "completion_tokens")) is not None for one in usages[1:]):
        for one in usages[1:]:  # choices share a prompt, which is billed once
            made = (count(get(usage, "completion_tokens")) or 0) + (count(get(one, "completion_tokens")) or 0)
            both = grown(usage, one)
            usage = {**(both if isinstance(both, dict) else {}), "completion_tokens": made, "total_tokens": None}
    return {"id": get(body, "id"), "model": get(body, "model"), "usage": usage}


def _chunks(response: Iterable[object]) -> list[Any]:
    """Read a stream to its end, or to where it breaks: what it has said by then counts."""
    chunks: list[Any] = []
    try:
        for chunk in response:
            chunks.append(chunk)  # noqa: PERF402 - what came before an error must be kept
    except Exception:
        return chunks
    return chunks


def _many(chunks: list[Any], fields: dict[str, Any]) -> Iterator[Body]:
    """A list is a stream, unless its items are whole answers or lines of a batch."""
    whole = [_batch_line(chunk) is not None or _is_whole(chunk) for chunk in chunks[:MAX_ANSWERS]]
    apart = any(whole) and all(one or _failed(chunk) for one, chunk in zip(whole, chunks, strict=False))
    if apart and not _grow(chunks):
        for one, chunk in zip(whole, chunks, strict=False):
            yield from _answers(chunk, fields) if one else ()
        return
    merged = Merged()
    for chunk in chunks:
        with suppress(Exception):  # a chunk may do anything when it is looked at
            merged.add(chunk)
    yield Body(merged, fields, True, merged.status)


def _failed(body: object) -> bool:
    """Say whether this is the line of a call that failed, among those of others: it used nothing."""
    return get(body, "error") is not None and get(body, *_STATED, "choices", "candidates") is None


def _grow(chunks: list[object]) -> bool:
    """Say whether these are one answer as it grows, each in the envelope that answers of a batch have, too."""
    ids = {text(get(chunk, "response.responseId", "response.response_id")) for chunk in chunks}
    return len(chunks) > 1 and len(ids) == 1 and "" not in ids


def _is_whole(body: object) -> bool:
    if text(get(body, "object")) in WHOLE_OBJECTS:
        return True
    if text(get(body, "type")) == "message" and get(body, "usage") is not None:
        return True
    return get(body, "generated_text", "response_metadata.model_name") is not None and get(body, "token") is None


def _is_stream(response: object) -> bool:
    """An object may be iterated over its fields and yet be no stream: models of pydantic, messages, mappings."""
    if isinstance(response, Iterator | list | tuple):
        return True
    if isinstance(response, Mapping) or not isinstance(response, Iterable):
        return False
    kind = type(response)
    return not any(hasattr(kind, name) for name in ("model_fields", "model_dump", "__dataclass_fields__"))


def _inside(response: object) -> list[Any]:
    """Return the answers within the result of a framework: a state of LangGraph, a run of OpenAI's Agents."""
    answers = [*items(response, "messages"), *items(response, "raw_responses")]
    told = [one for one in answers if get(one, "usage_metadata", "usage.input_tokens") is not None]
    return told or [one for one in items(response, *_INLINED) if get(one, "response", "error") is not None]


def _raw(response: object) -> tuple[Any, dict[str, Any]] | None:
    """Return the body and the fields of a raw HTTP response (httpx, requests, the SDKs' with_raw_response)."""
    inner = get(response, "http_response")
    response = inner if inner is not None else response
    status, headers = get(response, "status_code"), get(response, "headers")
    if isinstance(response, Mapping) or not isinstance(status, int) or headers is None:
        return None
    content = get(response, "content", "_content")
    body = from_text(content) if isinstance(content, bytes | str) else {}
    fields: dict[str, Any] = {"http_status": status, "status": "ERROR" if status >= HTTP_ERROR else None}
    names = {str(name).lower(): value for name, value in dict(headers).items()}
    told = next((names[name] for name in ("x-request-id", "request-id", "x-amzn-requestid") if names.get(name)), None)
    fields["provider_request_id"] = told if isinstance(body, list) or get(body, "id") is None else None
    if isinstance(body, dict):
        if any(name.startswith("x-amzn-bedrock-") for name in names):
            body = {**body, "ResponseMetadata": {"HTTPHeaders": names}}
        if names.get("x-litellm-response-cost"):
            body.setdefault("response_cost", names["x-litellm-response-cost"])
    return body, {name: value for name, value in fields.items() if value is not None}


def _batch_line(body: object) -> Any:
    """Return the answer in one line of a batch's results; {} for one that failed; None when it is no such line.

    OpenAI and Mistral (response.body), Anthropic (result.message), Gemini (response), Bedrock (modelOutput), Vertex AI
    (request or instance beside response or predictions).
    """
    result = get(body, "result")
    if text(get(result, "type")) in ("succeeded", "errored", "canceled", "expired"):
        return get(result, "message") or {}
    if get(body, "custom_id") is not None and (get(body, "response", "error") is not None):
        return get(body, "response.body") or {}
    if get(body, "modelOutput") is not None or (get(body, "recordId") is not None and get(body, "error") is not None):
        return get(body, "modelOutput") or {}
    if get(body, "instance") is not None and get(body, "predictions", "status") is not None:
        return {"predictions": items(body, "predictions")} if items(body, "predictions") else {}
    if get(body, "key", "request") is not None and (get(body, "error") is not None or _is_empty(get(body, "response"))):
        return {}
    answered = get(body, "response.usageMetadata", "response.usage_metadata", "response.usage") is not None
    told = get(body, "key", "request", "metadata.key") is not None or _is_inlined(body)
    return get(body, "response") if answered and told else None


def _is_empty(body: object) -> bool:
    """Say whether an object is there and says nothing."""
    return body is not None and get(body, "candidates", *_STATED) is None and plain(body) == {}


def _is_inlined(body: object) -> bool:
    """One answer within a batch job of Gemini's, which may have no key (InlinedResponse, google-genai 3.6)."""
    return type(body).__name__ == "InlinedResponse" or (isinstance(body, Mapping) and body.keys() == {"response"})


def from_text(content: str | bytes | bytearray) -> object:
    """Return what a text holds: one JSON document, or the list of chunks of server-sent events or JSON lines."""
    given = content if isinstance(content, str) else bytes(content).decode("utf-8", "replace")
    whole = _parsed(given)
    if whole is not None:
        return whole
    lines = (line.strip().removeprefix("data:").strip() for line in given.splitlines())
    chunks = [_parsed(line) for line in lines if line.startswith(("{", "["))]
    return [chunk for chunk in chunks if isinstance(chunk, dict)] if any(chunks) else {}


def _parsed(given: str) -> Any:
    try:
        found = json.loads(given)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None
