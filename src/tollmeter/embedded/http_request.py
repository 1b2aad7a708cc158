"""What the head of an HTTP request says: who asks, how its body comes, and what makes it no request at all."""

import base64
import re
import uuid
from collections.abc import Mapping
from email.errors import (
    FirstHeaderLineIsContinuationDefect,
    MisplacedEnvelopeHeaderDefect,
    MissingHeaderBodySeparatorDefect,
)
from email.message import Message
from typing import Protocol

from tollmeter.embedded.errors import FrontError

_LOOPBACK_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE | re.ASCII)
_DIGITS = re.compile(r"\d{1,15}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_DEFECTS = (MissingHeaderBodySeparatorDefect, FirstHeaderLineIsContinuationDefect, MisplacedEnvelopeHeaderDefect)
_QUERY_ID = re.compile(r"[!-~]{1,200}")


class Reader(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


def check_head(headers: Message, version: str) -> None:
    """Raise `FrontError` 400 for a head that two programs could read in two ways, 403 for one from a web page.

    A page in the user's browser can reach loopback; programs send no Origin and name loopback as host.
    """
    hosts = headers.get_all("Host", [])
    if len(hosts) > 1 or (not hosts and version == "HTTP/1.1"):
        raise _bad("a request has one Host header")
    if malformed(headers) or version not in ("HTTP/1.0", "HTTP/1.1"):
        raise _bad("the head of the request is malformed")
    if "Origin" in headers or not _LOOPBACK_HOST.fullmatch(hosts[0] if hosts else "localhost"):
        raise FrontError(516, "requests from web pages are not accepted. (AUTHENTICATION_FAILED)", 403)


def malformed(headers: Message) -> bool:
    """Tell whether a line of the head was none of `name: value`: what follows it was taken for something else."""
    return any(isinstance(defect, _DEFECTS) for defect in headers.defects)


def body_size(headers: Message) -> int | None:
    """Return the length of the body in bytes, None when it comes in chunks. Raises `FrontError` 400."""
    sizes, codings = headers.get_all("Content-Length", []), headers.get_all("Transfer-Encoding", [])
    if codings:
        if sizes or [coding.strip().lower() for coding in codings] != ["chunked"]:
            raise _bad("the body has a Content-Length or one Transfer-Encoding, which is chunked")
        return None
    if len(sizes) > 1 or (sizes and not _DIGITS.fullmatch(sizes[0].strip())):
        raise _bad("the Content-Length is no number")
    return int(sizes[0]) if sizes else 0


def read_body(reader: Reader, size: int | None, limit: int) -> bytes:
    """Return the whole body. Raises `FrontError` 413 above `limit` bytes, `ConnectionError` when it ends early."""
    if size is None:
        return _chunks(reader, limit)
    if size > limit:
        raise _too_large(limit)
    body = reader.read(size)
    if len(body) != size:
        raise ConnectionResetError
    return body


def _chunks(reader: Reader, limit: int) -> bytes:
    body = bytearray()
    while True:
        head = _CHUNK_SIZE.fullmatch(reader.readline(100))
        if head is None:
            raise _too_large(limit)
        size = int(head[1], 16)
        if len(body) + size > limit:
            raise _too_large(limit)
        if not size:
            break
        body += (piece := reader.read(size))
        if len(piece) != size or reader.readline(3) not in (b"\r\n", b"\n"):
            raise ConnectionResetError
    for _ in range(100):
        if not reader.readline(1000).strip():
            return bytes(body)  # behind the trailers
    raise _too_large(limit)


def credentials(params: Mapping[str, str], headers: Message) -> tuple[str, str]:
    """Return the user's name and password as the request states them; the name of nobody when they are unreadable."""
    name, password = params.get("user", "default"), params.get("password", "")
    if headers.get("X-ClickHouse-User"):
        name, password = headers["X-ClickHouse-User"], headers.get("X-ClickHouse-Key", "")
    basic = headers.get("Authorization", "")
    if basic.startswith("Basic "):
        try:
            name, _, password = base64.b64decode(basic[6:]).decode().partition(":")
        except ValueError:
            name = ""
    return name, password


def query_id(params: Mapping[str, str]) -> str:
    """Return the query's id, a new one when none was sent. Raises `FrontError` 400 unless it can stand in a header."""
    sent = params.get("query_id", "")
    if sent and not _QUERY_ID.fullmatch(sent):
        raise _bad("query_id has up to 200 printable ASCII characters without blanks")
    return sent or str(uuid.uuid4())


def _bad(text: str) -> FrontError:
    return FrontError(36, f"{text}. (BAD_ARGUMENTS)", 400)


def _too_large(limit: int) -> FrontError:
    return FrontError(36, f"body malformed or larger than {limit} bytes. (BAD_ARGUMENTS)", 413)
