"""A refusal in the shape that the SDK of the interface reads, so that its exception says why and what to do next.

Pure. The guard's members stand in the body as they are; what the interface itself has words for is added, and in place
of the guard's `error` stands the interface's own. `refused` is the guard's name of it in each of them. The cap of one
call alone has a body that is promised as it is, member by member.
"""

import json
from typing import Any

from tollmeter.producers.guard.decision import Deny
from tollmeter.producers.guard.sentences import sentence
from tollmeter.producers.http.request import SPEAKS

PROMISED = "cost_cap"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
"""Anthropic's names, which OpenAI's interface shares but for the money."""
_OPENAI_TYPES = {**_TYPES, 402: "insufficient_quota", 413: "invalid_request_error"}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Google's canonical codes (google.rpc.Code)."""


def content(deny: Deny, path: str) -> bytes:
    """Return the body of the answer to a call, to a provider's path, that the guard refused."""
    if deny.error == PROMISED:
        return json.dumps(deny.body).encode()
    said = sentence(deny.body, deny.retry_after_s)
    own = {"message": said, **deny.body, "refused": deny.error}
    return json.dumps({**own, **shaped(path, deny.http_status, deny.error, said)}).encode()


def shaped(path: str, http_status: int, code: str, said: str) -> dict[str, Any]:
    """Return the members of an error's body that the SDK of a path reads; `code` is for programs, `said` for people.

    An interface that nobody knows speaks as OpenAI's does.
    """
    path = path.lower().rstrip("/")
    speaks = next((provider for end, provider in SPEAKS if path.endswith(end)), "")
    if speaks == "anthropic":
        return {"type": "error", "error": {"type": _TYPES.get(http_status, "api_error"), "message": said}}
    if speaks == "google":
        return {"error": {"code": http_status, "message": said, "status": _STATUSES.get(http_status, "INTERNAL")}}
    if speaks in ("ollama", "huggingface"):
        return {"error": said}
    if speaks == "aws":
        return {"message": said}
    kind = _OPENAI_TYPES.get(http_status, "server_error")
    return {"error": {"message": said, "type": kind, "code": code, "param": None}}
