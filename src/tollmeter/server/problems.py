"""Every refusal is a problem document (RFC 9457): a status, a code for programs, a sentence for people.

`detail` names what and where, and never the value of a secret. Nothing internal stands in it.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from tollmeter.schemas.secrets import mask_keys
from tollmeter.server.json_answer import json_bytes

Headers = list[tuple[bytes, bytes]]
MEDIA_TYPE = b"application/problem+json"


class Problem(Exception):  # noqa: N818 - an answer, not a fault
    """The answer to a request that cannot be served. `more` are further members of the document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        detail = mask_keys(detail)  # a name that is quoted may be a key that stands in the wrong place
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.more = dict(headers or {}), dict(more or {})

    def document(self, request_id: str) -> dict[str, object]:
        """Return the document as RFC 9457 has it, with `code` and `request_id` beside."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **self.more,
        }

    def with_more(self, more: Mapping[str, object]) -> "Problem":
        """Return the same with further members; what the document says itself stays."""
        own = self.document("")
        added = {name: value for name, value in more.items() if name not in own}
        return Problem(self.status, self.code, self.detail, headers=self.headers, more={**added, **self.more})

    def body(self, request_id: str) -> bytes:
        """Return the document as bytes."""
        return json_bytes(self.document(request_id))

    def head(self) -> Headers:
        """Return the headers of the answer but its length."""
        return [(b"content-type", MEDIA_TYPE), *encoded(self.headers.items())]


def encoded(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return headers as ASGI has them; a value is one line, whoever gave it."""
    return [
        (name.lower().encode("ascii"), " ".join(value.splitlines()).encode("latin-1", "replace"))
        for name, value in headers
    ]
