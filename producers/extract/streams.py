"""The chunks of a stream become the answers that it held. Counts of one answer are cumulative: the larger one holds.

A later zero never wipes a count, and a later smaller block never replaces a larger one; each finished answer of a
session (realtime, live, several responses) has counts of its own.
"""

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from tollmeter.producers.extract.grown import grown, plain
from tollmeter.producers.extract.usage import count, get, items, text

_NAMES = (
    "id",
    "model",
    "service_tier",
    "serviceTier",
    "performanceConfig",
    "modelVersion",
    "model_version",
    "responseId",
    "response_id",
    "x_groq",
    "object",
    "provider",
    "tool_usage",
    "usage_breakdown",
    "agent",
    "details",
    "quality",
    "size",
    "metrics",
    "text",
    "amazon-bedrock-invocationMetrics",
    "ResponseMetadata",
    "response_metadata",
)
_RUN_ENDS = ("completed", "failed", "cancelled", "expired", "incomplete")
_BLOCKS = ("details", "metrics", "response_metadata", "amazon-bedrock-invocationMetrics")
_COUNTED = ("prompt_eval_count", "eval_count", "prompt_token_count", "generation_token_count")
_WHOLE = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done")
_ENDS = (
    *("message_stop", "image_generation.completed", "image_edit.completed", "transcript.text.done", "message-end"),
    *("speech.audio.done", "stream-end", "interaction.complete", "interaction.completed"),
    *("conversation.response.done", "transcription.done", "session.status_idle"),
)
_STATUS = {"response.failed": "ERROR", "response.cancelled": "CANCELLED", "error": "ERROR"}
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_SPANS = ("span.model_request_end", "span.outcome_evaluation_end")
"""Each is a request of its own in the session of a managed agent (anthropic SDK 2.14, 2026-11-30)."""
_WRAPPING = frozenset(("event", "data", "id", "retry"))
"""Fields of a server-sent event."""
_LIVE = ("serverContent", "server_content", "setupComplete", "setup_complete", "toolCall", "tool_call")


class Merged(dict[str, Any]):
    """What the latest answer of a stream has said so far, in the shape of a whole one; `answers` holds all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False
        """It said that it was finished."""
        self.failed = ""
        self.cut = False
        """It began with a count of the output that only its end makes whole, as Anthropic's message_start has it."""
        self.chars = 0
        """Of the output that came, where its count may never come."""
        self.spoke = False
        """Some of the output was text."""
        self.sample: Any = None
        """The first chunk: its class tells the SDK."""
        self._closed: dict[str, dict[str, Any]] = {}
        """Earlier answers by their ids."""
        self._key = ""
        self._finished = False
        """A finish was seen since the last usage: what comes with another id is another answer."""
        self._session: dict[str, str] = {}
        self._turn_over = False

    @property
    def status(self) -> str:
        return self.failed or ("OK" if self.ended else "CANCELLED")

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Every answer that the stream held, in order."""
        return [*self._closed.values(), dict(self)] if self or not self._closed else list(self._closed.values())

    def add(self, chunk: object) -> None:
        """Take one chunk in: SDK object or dict, as it is or in the wrapping of its transport."""
        chunk = unwrapped(chunk)
        if self.sample is None:
            self.sample = chunk
        kind = get(chunk, "type", "event", "event_type")
        kind = kind if isinstance(kind, str) else ""
        self.failed = _STATUS.get(kind, self.failed)
        if kind == "message_start":
            self._begin(text(get(chunk, "message.id")))
            self.cut = True
            self._whole(get(chunk, "message"), "type", "role")
        elif (kind.startswith("response.") and get(chunk, "response") is not None) or kind == "stream-end":
            response = get(chunk, "response")
            if kind in _WHOLE:
                self._begin(text(get(response, "id")))
            if kind == "stream-end":
                self._whole(chunk)  # Bedrock puts its metrics beside the vendor's last event
            self._whole(response, "output", "meta", "status", "tools")
        elif kind in _SPANS:
            self._begin(text(get(chunk, "id")))
            self["model_usage"] = plain(get(chunk, "model_usage", "usage"))
        elif kind == "result" and get(chunk, "modelUsage") is not None:  # of an agent's run: the sum of all before
            self._closed.clear()
            self.clear()
            self["modelUsage"], self.ended = plain(get(chunk, "modelUsage")), True
        elif kind == "session.usage":  # a sum of what the session's requests state one by one
            return
        elif kind == _TRANSCRIBED:
            self._transcription(chunk)
        elif kind in ("session.created", "session.updated", "transcription_session.updated"):
            self._sets(get(chunk, "session"))
        else:
            self._plain(chunk, kind)
        self.spoke = self.spoke or speaks(chunk)
        if kind == "content_block_delta":
            piece = get(chunk, "delta.text", "delta.thinking", "delta.partial_json")
            self.chars += len(piece) if isinstance(piece, str) else 0
        self.cut = self.cut and get(chunk, "usage.output_tokens") is None
        self.ended = self.ended or kind in _ENDS or kind in _WHOLE[:2] or kind == "response.done" or _finished(chunk)

    def _begin(self, key: str) -> None:
        """Begin another answer when its id is another one than the last that stated usage; go on with one of before."""
        if key and self._key and key != self._key and self._has_usage():
            self._closed[self._key] = dict(self)
            again = self._closed.pop(key, {})
            self.clear()
            self.update(again)
        self._key = key or self._key

    def _has_usage(self) -> bool:
        return "usage" in self or "usageMetadata" in self or "model_usage" in self

    def _plain(self, chunk: object, kind: str) -> None:
        metadata = get(chunk, "usageMetadata", "usage_metadata")
        if any(get(chunk, name) is not None for name in _LIVE):
            self._live(chunk, metadata)
        usage = _usage_in(chunk)
        if usage is not None and (self._finished or _finish(chunk)) and self._has_usage():
            self._begin(text(get(chunk, "id")))
        if usage is not None:
            self._key = self._key or text(get(chunk, "id"))
        if usage is not None and text(get(chunk, "object")) == "thread.run.step":
            self._begin(text(get(chunk, "id")))
        inner = get(chunk, "interaction")  # Gemini's interactions: the whole stands in the last event
        self._whole(inner if inner is not None else chunk, *(("status", "outputs") if inner is not None else ()))
        if get(chunk, "metadata.usage") is not None:  # Bedrock's last event
            self._whole(get(chunk, "metadata"), "trace")
        if usage is not None:
            self._usage(usage)
        self._finished = usage is None and (self._finished or _finish(chunk))
        self._run(chunk)
        self._grounding(chunk)

    def _run(self, chunk: object) -> None:
        """Steps of an assistant's run each state their own usage, the run at its end the sum of them."""
        if text(get(chunk, "object")) == "thread.run" and get(chunk, "status") in _RUN_ENDS:
            self.ended = True
            if get(chunk, "usage") is not None:
                self._closed.clear()
                self["usage"] = plain(get(chunk, "usage"))

    def _live(self, chunk: object, metadata: object) -> None:
        """The turns of a live session each have counts of their own."""
        content = get(chunk, "serverContent.modelTurn", "server_content.model_turn")
        if self._turn_over and (content is not None or (metadata is not None and self._has_usage())):
            if self._has_usage():
                self._closed[f"turn {len(self._closed)}"] = dict(self)
                self.clear()
            self._turn_over = False
        if get(chunk, "serverContent.turnComplete", "server_content.turn_complete") is True:
            self._turn_over = self.ended = True

    def _whole(self, body: object, *more: str) -> None:
        for name in (*_NAMES, *more):
            value = get(body, name)
            if value is not None and (value != "" or name not in self):  # Azure's last chunk names no model
                self[name] = grown(self.get(name), plain(value)) if name in _BLOCKS else plain(value)
        for name in _COUNTED:
            value = get(body, name)
            if value is not None:
                self[name] = grown(self.get(name), value)
        if "model" not in self and self._session.get("model"):
            self["model"] = self._session["model"]
        sonic = get(body, "event.usageEvent")
        if sonic is not None:
            self["usageEvent"] = grown(self.get("usageEvent"), plain(sonic))
        usage = get(body, "usage", "x_groq.usage")
        if usage is not None:
            self._usage(usage)
        metadata = get(body, "usageMetadata", "usage_metadata")
        if metadata is not None:
            langchain = get(metadata, "input_tokens", "output_tokens") is not None
            key = "usage_metadata" if langchain else "usageMetadata"
            self[key] = _added(self.get(key), plain(metadata)) if langchain else grown(self.get(key), plain(metadata))

    def _usage(self, usage: object) -> None:
        self["usage"] = grown(self.get("usage"), plain(usage))

    def _sets(self, session: object) -> None:
        heard = get(session, "audio.input.transcription.model", "input_audio_transcription.model")
        for name, value in (("model", get(session, "model")), ("heard", heard)):
            if text(value):
                self._session[name] = text(value)

    def _transcription(self, chunk: object) -> None:
        """What the user said, written down by a model of its own, billed apart."""
        made = {"item": text(get(chunk, "item_id")), "model": self._session.get("heard", "")}
        others = [item for item in self.get("transcriptions", []) if not made["item"] or item["item"] != made["item"]]
        self["transcriptions"] = [*others, {**made, "usage": plain(get(chunk, "usage"))}]

    def _grounding(self, chunk: object) -> None:
        """Keep what the answer was grounded in: any chunk may say it."""
        for candidate in items(chunk, "candidates"):
            grounded = plain(get(candidate, "groundingMetadata", "grounding_metadata"))
            if isinstance(grounded, dict):
                names = ("webSearchQueries", "web_search_queries", "imageSearchQueries", "image_search_queries")
                queries = [text(query) for name in names for query in items(grounded, name)]
                self["web_queries"] = list(dict.fromkeys([*self.get("web_queries", []), *queries]))
                self["grounded"] = {**self.get("grounded", {}), **grounded}


def unwrapped(chunk: object) -> object:
    """Return what a chunk wraps: bytes of Bedrock's event stream, an event with its data beside its name, or one of
    Gemini's answers as its Code Assist hands it on.
    """
    inner = get(chunk, "chunk.bytes")
    if inner is None and isinstance(get(chunk, "event"), str):
        bare = not isinstance(chunk, Mapping) or chunk.keys() <= _WRAPPING
        inner = get(chunk, "data") if bare else None
    if inner is None and get(chunk, "response.usageMetadata", "response.candidates") is not None:
        inner = get(chunk, "response")
    if isinstance(inner, bytes | str):
        inner = _decoded(inner)
    return inner if isinstance(inner, Mapping) or hasattr(inner, "__dict__") else chunk


def _decoded(content: bytes | str) -> object:
    """Return the document that a chunk carries: as it is, or as the base64 that JSON makes of bytes."""
    for read in (bytes, b64decode):
        try:
            return json.loads(read(content.encode() if isinstance(content, str) else content))
        except (ValueError, RecursionError):
            continue
    return None


def speaks(body: object) -> bool:
    """Say whether an answer, or a chunk of one, holds text: then it cannot have used nothing."""
    first = next(iter(items(body, "choices", "candidates")), body)
    said = get(first, "message.content", "delta.content", "text", "content", "output.message.content", "output_text")
    if isinstance(said, str):
        return bool(said.strip())
    parts = items(said, "parts") or (said if isinstance(said, list | tuple) else items(body, "output"))
    return any(bool(text(get(part, "text", "content.text")).strip()) or bool(items(part, "content")) for part in parts)


def _usage_in(chunk: object) -> object:
    """Return the block of usage wherever a chunk has one beside its top level."""
    found = get(chunk, "usage", "metadata.usage", "delta.usage", "message.usage")  # Bedrock; Cohere's last event
    if found is not None:
        return found
    choices = items(chunk, "choices")
    return get(choices[0], "usage") if choices else None  # Moonshot


def _finish(chunk: object) -> bool:
    return any(
        get(item, "finish_reason", "finishReason") is not None
        for name in ("choices", "candidates")
        for item in items(chunk, name)
    )


def _finished(chunk: object) -> bool:
    told = ("messageStop", "metadata.usage", "details.finish_reason", "response_metadata.finish_reason")
    ends = get(chunk, *told, "response_metadata.stop_reason", "response_metadata.done_reason") is not None
    return _finish(chunk) or get(chunk, "done") is True or ends or get(chunk, "event.completionEnd") is not None


def _added(old: object, new: object) -> object:
    """Chunks of LangChain add up: each states what is new in it."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {name: _added(old.get(name), new.get(name)) for name in (*old, *(key for key in new if key not in old))}
    before, after = count(old), count(new)
    if before is not None and after is not None:
        return before + after
    return old if new is None else new
