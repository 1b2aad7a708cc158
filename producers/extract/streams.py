"""The chunks of a stream become one body. Stated totals are cumulative: a later one replaces an earlier, never adds."""

from collections.abc import Mapping
from typing import Any

from tollmeter.producers.extract.usage import get

_NAMES = (
    "id",
    "model",
    "service_tier",
    "modelVersion",
    "model_version",
    "responseId",
    "response_id",
    "x_groq",
    "object",
)
_OLLAMA = ("prompt_eval_count", "eval_count")
_WHOLE = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_ENDS = ("message_stop", "image_generation.completed", "image_edit.completed", "transcript.text.done", "message-end")
_STATUS = {"response.failed": "ERROR", "response.cancelled": "CANCELLED", "error": "ERROR"}


class Merged(dict[str, Any]):
    """What a stream has said so far, in the shape of a whole response. `ended`: it said that it was finished."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False
        self.failed = ""
        self.sample: Any = None
        """The first chunk: its class tells the SDK."""

    @property
    def status(self) -> str:
        return self.failed or ("OK" if self.ended else "CANCELLED")

    def add(self, chunk: Any) -> None:
        """Take one chunk in: SDK object or dict."""
        if self.sample is None:
            self.sample = chunk
        kind = get(chunk, "type", "event")
        kind = kind if isinstance(kind, str) else ""
        self.failed = _STATUS.get(kind, self.failed)
        if kind == "message_start":
            self._whole(get(chunk, "message"), "type", "role")
        elif kind.startswith("response.") and get(chunk, "response") is not None:
            self._whole(get(chunk, "response"), "output")
        else:
            self._whole(chunk)
        metadata = get(chunk, "metadata.usage", "delta.usage")  # Bedrock; Cohere's last event
        if metadata is not None:
            self._usage(metadata)
        self.ended = self.ended or kind in _ENDS or kind in _WHOLE[:2] or self._finished(chunk)

    def _whole(self, body: Any, *more: str) -> None:
        for name in (*_NAMES, *_OLLAMA, *more):
            value = get(body, name)
            if value is not None and not callable(value):
                self[name] = value
        usage = get(body, "usage", "x_groq.usage")
        if usage is not None:
            self._usage(usage)
        metadata = get(body, "usageMetadata", "usage_metadata")
        if metadata is not None:
            self.setdefault("usageMetadata", {}).update(_stated(metadata))

    def _usage(self, usage: Any) -> None:
        self.setdefault("usage", {}).update(_stated(usage))

    @staticmethod
    def _finished(chunk: Any) -> bool:
        for items in (get(chunk, "choices"), get(chunk, "candidates")):
            for item in items if isinstance(items, list) else ():
                if get(item, "finish_reason", "finishReason") is not None:
                    return True
        return get(chunk, "done") is True or get(chunk, "messageStop", "metadata.usage") is not None


def _stated(value: Any) -> dict[str, Any]:
    """Return the fields of a usage object that say something."""
    if isinstance(value, Mapping):
        fields: Mapping[str, Any] = value
    elif hasattr(value, "model_dump"):
        fields = value.model_dump()
    else:
        fields = getattr(value, "__dict__", {})
    return {name: item for name, item in fields.items() if item is not None}
