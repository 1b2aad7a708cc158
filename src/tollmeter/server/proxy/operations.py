"""What a request does at a provider, by method and path: a call that is metered, a look, or something else.

Pure. What is not known here is `other`: it may spend money that no answer tells (batches, fine-tuning, agents that run
at the provider), so it needs the administrator's word.
"""

from typing import Literal

from tollmeter.producers.http.request import OPERATIONS, UNBILLED, fetches
from tollmeter.server.problems import Problem

Operation = Literal[
    "chat",
    "completion",
    "responses",
    "embeddings",
    "image",
    "transcription",
    "speech",
    "rerank",
    "ocr",
    "free",
    "other",
]
METERED: tuple[Operation, ...] = (
    "chat",
    "completion",
    "responses",
    "embeddings",
    "image",
    "transcription",
    "speech",
    "rerank",
    "ocr",
)
DEFAULT: tuple[Operation, ...] = (*METERED, "free")
_COUNTS = ("count_tokens", ":counttokens", "/tokenize", "/moderations")
_LOOKS = ("/models", "/api/tags", "/api/version", "/api/ps", "/deployments", "/foundation-models")


def operation_of(method: str, path: str) -> Operation:
    """Return what a request does: the operation of a metered call, `free`, or `other`."""
    plain = path.lower().rstrip("/")
    if method == "POST" and plain.endswith(_COUNTS):
        return "free"
    if method == "POST" and not plain.endswith(UNBILLED):
        kind = next((kind for end, kind in OPERATIONS if plain.endswith(end)), "")
        return kind or "other"  # type: ignore[return-value]  # every kind of the table is an operation
    listed = any(plain.endswith(end) or f"{end}/" in plain for end in _LOOKS)
    return "free" if method in ("GET", "HEAD") and (listed or fetches("GET", path)) else "other"


def check_operation(operation: Operation, allowed: tuple[Operation, ...], upstream: str) -> None:
    """Raise `Problem` 403 for what an upstream's entry does not allow."""
    if operation in allowed:
        return
    why = "its use is not metered" if operation == "other" else "the entry leaves it out"
    raise Problem(
        403,
        "operation_not_allowed",
        f"{operation} is not allowed at {upstream} ({why}): an administrator adds it to `operations` of the entry",
    )


def check_body(operation: Operation, content_type: str) -> None:
    """Raise `Problem` 415 for a metered call whose body could not be read: it would pass unseen."""
    kind = content_type.partition(";")[0].strip().lower()
    if operation in METERED and not (
        kind == "application/json" or kind.endswith("+json") or kind == "multipart/form-data"
    ):
        raise Problem(415, "bad_content_type", "the body of a model call is application/json or multipart/form-data")
