"""How much a request body may cost at most, for the guard: every text counts, and so do images, files and answers.

Pure. Never less than the provider would bill for the same body, as far as characters tell; what cannot be read is the
most that there is. The walk needs no recursion: a body may be nested as deep as its sender likes.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.texts import worst_count

CHARS_PER_TOKEN = 4
IMAGE_TOKENS, FILE_TOKENS = 1_600, 3_000
"""The least that an image or a file counts. A large image is 1,105 tokens at OpenAI and about 1,600 at Anthropic (their
pages on vision, read 2026-11-29); a page of a PDF is 1,500 to 3,000 (Anthropic, PDF support, read 2026-11-29)."""
BASE64_CHARS_PER_TOKEN = 40
"""Beyond that, for files whose size shows: a page of text is some 2,000 characters."""
FRAME_CHARS = 64
"""What the names around one question may take ("role", "content", "type" ...): within the tolerance of an estimate by
characters, so that a short question weighs what its text does. Beyond that a frame weighs like any text: a thousand
messages have a thousand frames, and each is billed (3 to 4 tokens at OpenAI)."""
_NEVER_PROMPT = frozenset(("model", "stream_options"))
_FRAME = frozenset(("role", "content", "type", "text", "parts"))
INFLATED_BYTES = 32 << 20
_LIMITS = (
    "max_completion_tokens",
    "max_output_tokens",
    "maxOutputTokens",
    "max_tokens",
    "maxTokens",
    "max_tokens_to_sample",
    "max_new_tokens",
    "num_predict",
)
_LIMIT_PLACES = ("generationConfig", "generation_config", "inferenceConfig", "options", "parameters")
_IMAGES = frozenset(("image", "image_url", "input_image", "inline_data", "inlinedata", "images"))
_FILES = frozenset(("file", "input_file", "document", "file_data", "filedata", "input_audio", "audio", "video"))
_BINARY = frozenset(("data", "url", "bytes", "b64_json", "file_data", "image_url", "file_id", "fileuri", "file_uri"))
_LONG = 1_024
"""A text below such a key that is shorter is text."""
_CALLS = ("tool_use", "tooluse", "functioncall", "function_call", "functionresponse", "function_response")
_TEXT_ONLY = frozenset((*_CALLS, "input_schema", "parameters", "properties"))
"""Below these a provider reads text whatever it is called."""


def read_object(content: bytes, encoding: str = "") -> dict[str, Any] | None:
    """Return the JSON object of a body; None when there is one that cannot be read, {} when there is none."""
    if encoding in ("gzip", "deflate"):
        unpacker = zlib.decompressobj(wbits=47)
        try:
            content = unpacker.decompress(content, INFLATED_BYTES)
        except zlib.error:
            return None
        if unpacker.unconsumed_tail:
            return None
    elif encoding not in ("", "identity"):
        return None
    if not content.strip():
        return {}
    try:
        body = json.loads(content, object_pairs_hook=_object)
    except _TwoModelsError:
        return None
    except (UnicodeDecodeError, ValueError):
        try:  # a provider may be more lenient than Python about bytes that are no UTF-8
            body = json.loads(content.decode("utf-8", "replace"), object_pairs_hook=_object)
        except (ValueError, RecursionError):
            return None
    except RecursionError:
        return None
    return body if isinstance(body, dict) else None


class _TwoModelsError(ValueError):
    """An object names its model twice: which of them a provider takes, nobody knows."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if "model" in made or "modelId" in made:
        named = [name for name, _ in pairs if name.lower() in ("model", "modelid")]
        if len({name.lower() for name in named}) < len(named):  # Go's decoder takes Model for model
            raise _TwoModelsError
    return made


def output_limit(body: Mapping[str, object]) -> int | None:
    """Return the most tokens that all answers together may have by the caller's own limits; None without any."""
    places = (body, *(body.get(name) for name in _LIMIT_PLACES))
    stated = [
        worst_count(place[name])
        for place in places
        if isinstance(place, Mapping)
        for name in _LIMITS
        if place.get(name) is not None
    ]
    found = max((limit for limit in stated if limit), default=0)
    return min(found * answers(body), MAX_TOKENS) if found else None


def answers(body: Mapping[str, object]) -> int:
    """Return how many answers are asked for: `n` or `best_of` of each prompt of a list, `candidateCount`."""
    config = body.get("generationConfig")
    counts = [body.get("n"), body.get("best_of"), config.get("candidateCount") if isinstance(config, Mapping) else None]
    each = max([1, *(worst_count(count) or 1 for count in counts)])
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and any(isinstance(one, str | list) for one in prompt) else 1
    return min(each * max(prompts, 1), MAX_TOKENS)


def tier_asked(body: Mapping[str, object]) -> str:
    """Return the tier that a body asks for: `service_tier`, `serviceTier` (Bedrock, Gemini) or `speed` (Anthropic)."""
    if body.get("speed") == "fast":
        return "fast"
    tier = body.get("service_tier") or body.get("serviceTier")
    if isinstance(tier, Mapping):
        tier = tier.get("type")
    return tier if isinstance(tier, str) else ""


def prompt_tokens(body: Mapping[str, object]) -> int:
    """Return how many tokens of input a body is at least counted as: a quarter of its characters, and what weighs more.

    The names of the request's own fields, plain settings beside them and the frame of one question count nothing.
    """
    chars = frame = tokens = 0
    waiting: list[tuple[str, object, bool | None]] = [  # name, value, within an image or file (None: never one)
        (name.lower(), item, False)
        for name, item in body.items()
        if name not in _NEVER_PROMPT and isinstance(item, str | Mapping | list)
    ]
    while waiting:
        key, value, within = waiting.pop()
        if isinstance(value, str):
            if within and _is_binary(key, value):
                tokens += len(value) // BASE64_CHARS_PER_TOKEN if key not in ("url", "image_url") else 0
            elif key in ("role", "type"):
                frame += len(value)
            else:
                chars += len(value)
        elif isinstance(value, Mapping):
            attached = 0 if within is None else _attached(key, value)
            tokens += attached or 0
            within = None if within is None or attached is None else within or attached > 0
            for name, item in value.items():
                if name in _FRAME:
                    frame += len(name)
                else:
                    chars += len(name)
                waiting.append((name.lower(), item, within))
        elif isinstance(value, list):
            if value and all(isinstance(item, int) for item in value):
                tokens += len(value)  # a prompt of token ids
            else:
                waiting += [(key, item, within) for item in value]
        elif value is not None:
            chars += 4
    return min(-(-(chars + max(frame - FRAME_CHARS, 0)) // CHARS_PER_TOKEN) + tokens, MAX_TOKENS)


def _is_binary(key: str, value: str) -> bool:
    """Tell whether a text in an image or file is its content or address rather than text."""
    named = key in _BINARY or (key in _IMAGES and value.startswith(("data:", "http")))
    return named and len(value) >= _LONG and value.isascii() and " " not in value


def _attached(key: str, value: Mapping[str, object]) -> int | None:
    """Return what an image or a file counts by itself; None for what is text all through."""
    kind = value.get("type")
    names = {key, kind.lower() if isinstance(kind, str) else ""}
    if names & _TEXT_ONLY:
        return None
    if names & _FILES:
        return FILE_TOKENS
    return IMAGE_TOKENS if names & _IMAGES else 0
