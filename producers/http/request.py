"""What an HTTP request asks of a model API, read from its method, path, headers and body; None when it is no such call.

Pure. Counts characters of text alone: an image travels as megabytes of base64 and costs a few hundred tokens.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tollmeter.producers.extract.asked import variant_asked
from tollmeter.producers.extract.served import PROVIDER_HOSTS
from tollmeter.producers.http.models import UNREADABLE, named, named_in_form
from tollmeter.producers.http.weight import answers, output_limit, prompt_tokens, read_object, tier_asked
from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.texts import MAX_TEXT_CHARS, clean_text

OPERATIONS = (
    ("/chat/completions", "chat"),
    ("/completions", "completion"),
    ("/responses", "responses"),
    ("/embeddings", "embeddings"),
    ("/images/generations", "image"),
    ("/images/edits", "image"),
    ("/images/variations", "image"),
    ("/audio/transcriptions", "transcription"),
    ("/audio/translations", "transcription"),
    ("/audio/speech", "speech"),
    ("/messages", "chat"),
    (":generatecontent", "chat"),
    (":streamgeneratecontent", "chat"),
    (":embedcontent", "embeddings"),
    (":batchembedcontents", "embeddings"),
    ("/api/chat", "chat"),
    ("/api/generate", "chat"),
    ("/api/embed", "embeddings"),
    ("/api/embeddings", "embeddings"),
    ("/converse", "chat"),
    ("/converse-stream", "chat"),
    ("/rerank", "rerank"),
    ("/interactions", "responses"),
    ("/conversations", "chat"),
    ("/ocr", "ocr"),
    ("/generate", "chat"),
    ("/generate_stream", "chat"),
    ("/invoke", "chat"),
    ("/invoke-with-response-stream", "chat"),
    (":predict", "chat"),
    (":rawpredict", "chat"),
    (":streamrawpredict", "chat"),
)
"""How paths of model calls end, and what they do."""
SPEAKS = (
    ("/messages", "anthropic"),
    ("generatecontent", "google"),
    ("embedcontent", "google"),
    ("embedcontents", "google"),
    ("/api/chat", "ollama"),
    ("/api/generate", "ollama"),
    ("/api/embed", "ollama"),
    ("/api/embeddings", "ollama"),
    ("/converse", "aws"),
    ("/converse-stream", "aws"),
    ("/invoke", "aws"),
    ("/invoke-with-response-stream", "aws"),
    ("/interactions", "google"),
    ("/generate", "huggingface"),
    ("/generate_stream", "huggingface"),
)
"""Paths that one provider alone has, for hosts that say nothing."""
UNBILLED = (
    "count_tokens",
    ":counttokens",
    "/tokenize",
    "/moderations",
    "/batches",
    "/files",
    "/uploads",
    "/jobs",
    "/cancel",
)
"""Ends of paths that name a model and bill nothing by themselves."""

_FETCHED = re.compile(r"/responses/[^/]+/?$")
_TEXTS = (
    "messages",
    "system",
    "input",
    "prompt",
    "instructions",
    "contents",
    "systemInstruction",
    "system_instruction",
    "content",
    "text",
    "parts",
    "query",
    "documents",
    "texts",
    "inputs",
    "output",
    "arguments",
)
"""Keys below which the text of a prompt stands."""
_TOOLS = ("tools", "functions", "toolConfig", "response_format")
"""Definitions that the provider puts into the prompt as they are."""
_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as its caller wants it."""

    operation: str
    model: str
    stream: bool = False
    prompt_chars: int = 0
    max_output_tokens: int | None = None
    """The caller's own limit, for all answers that he asks for together; None when he set none."""
    provider: str = ""
    """Whose interface this is, where only one provider has it."""
    answers: int = 1
    """How many answers are asked for."""
    weight: int = 0
    """Tokens of input that the guard counts at least: images, files and arguments of tools included."""
    image: str | None = ""
    """Quality and size of the images that are wanted, as units of images are named: hd_large, medium ...; "" the usual
    ones, None where the model chooses or nobody can read it."""
    models: tuple[str, ...] = ()
    """Further models that the request names; "" for one that cannot be read."""
    service_tier: str = ""


def worth_reading(method: str, path: str, content_type: str) -> bool:
    """Say whether a request may call a model, before its body, which may be a large file, is read."""
    path = path.lower().rstrip("/")
    return method == "POST" and not path.endswith(UNBILLED) and ("json" in content_type or _operation(path) != "")


def read_request(path: str, content_type: str, content: bytes, encoding: str = "") -> Asked | None:
    """Return what a request worth reading asks for; None when it calls no model.

    A call whose body cannot be read weighs the most that there is: a limit must not be passed by what nobody can read.
    """
    operation = _operation(path.lower().rstrip("/"))
    if "multipart/form-data" in content_type:
        form = named_in_form(content)
        image = None if operation == "image" else ""
        return Asked(operation, form.model, image=image, models=form.others) if operation else None
    read = read_object(content, encoding.strip().lower())
    body = read or {}
    model, others = named(path, read)
    if not operation and not (model and body):
        return None
    return Asked(
        operation or "chat",
        clean_text(model.removeprefix("models/")),
        bool(body.get("stream")) or "stream" in path.rpartition("/")[2].lower() or _streams_unasked(path, body),
        _spoken_chars(body) if operation == "speech" else prompt_chars(body),
        output_limit(body),
        next((provider for end, provider in SPEAKS if path.lower().rstrip("/").endswith(end)), ""),
        answers(body),
        MAX_TOKENS if read is None else prompt_tokens(body),
        _variant(model, read) if operation == "image" else "",
        others if len(model) <= MAX_TEXT_CHARS else (*others, UNREADABLE),
        clean_text(tier_asked(body)),
    )


def _variant(model: str, body: Mapping[str, object] | None) -> str | None:
    return variant_asked(model, body.get("quality"), body.get("size")) if body else None


def is_surely_call(host: str, path: str, model: str) -> bool:
    """Say whether a request that looks like a call to a model is one, whoever sends it."""
    name = host.partition(":")[0].lower()
    if any(name == known or name.endswith(f".{known}") for known, _ in PROVIDER_HOSTS):
        return True
    return bool(model) and _operation(path.lower().rstrip("/")) != ""


def _operation(path: str) -> str:
    return next((name for end, name in OPERATIONS if path.endswith(end)), "")


def fetches(method: str, path: str) -> bool:
    """Say whether a request looks at an answer that was asked for in the background."""
    return method == "GET" and _FETCHED.search(path) is not None


def _spoken_chars(body: Mapping[str, object]) -> int:
    """Return the characters of text to be spoken: they are what is billed, how to speak is not."""
    spoken = body.get("input")
    return len(spoken) if isinstance(spoken, str) else 0


def prompt_chars(body: Mapping[str, object]) -> int:
    """Return how many characters of text a request body carries, definitions of tools included."""
    text = sum(map(len, _texts({name: body[name] for name in _TEXTS if name in body}, 0)))
    return text + sum(len(json.dumps(body[name], separators=(",", ":"))) for name in _TOOLS if body.get(name))


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < _DEPTH:
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, dict) and depth < _DEPTH:
        for name, item in value.items():
            if name in _TEXTS:
                yield from _texts(item, depth + 1)


def _streams_unasked(path: str, body: Mapping[str, object]) -> bool:
    """Ollama's own interface streams unless told not to."""
    return path.endswith(("/api/chat", "/api/generate")) and body.get("stream") is not False
