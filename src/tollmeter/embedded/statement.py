"""An HTTP request becomes one statement with its data, parameters and settings, whichever way the client packs it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Protocol

from tollmeter.embedded.errors import FrontError
from tollmeter.embedded.unpack import MAX_UNPACKED, unpack

# URL parameters of the HTTP interface itself; every other one is a setting or `param_*`.
_RESERVED = frozenset(
    [
        "query",
        "database",
        "default_format",
        "query_id",
        "session_id",
        "session_check",
        "session_timeout",
        "close_session",
        "quota_key",
        "user",
        "password",
        "compress",
        "decompress",
        "client_protocol_version",
        "role",
        "buffer_size",
        "wait_end_of_query",
        "stacktrace",
        "default_table",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_write_exception_in_output_format",
        "http_headers_progress_interval_ms",
    ]
)
_PARAMETER = re.compile(r"param_\w{1,100}", re.ASCII)
_INSERT = re.compile(r"\s*INSERT\s+INTO\b", re.IGNORECASE)
_INPUT = re.compile(
    r"\b(?:FORMAT\s+(\w+)|(VALUES))\s*$", re.IGNORECASE | re.ASCII
)  # the text ends where the data starts
# INSERT ... FORMAT X\n<data> in one body; a FORMAT inside a literal, or after VALUES or SELECT, is not the one.
_INLINE = re.compile(
    rb"\s*INSERT\s+INTO\b(?:'(?:[^'\\]|\\.)*'|`[^`]*`|(?!\b(?:VALUES|SELECT|WITH)\b)[^'`])*?\bFORMAT\s+\w+[ \t]*\r?\n?",
    re.IGNORECASE | re.DOTALL,
)


class Headers(Protocol):
    """HTTP headers; the server's own, or a plain dict."""

    def get(self, name: str, default: str, /) -> str: ...


@dataclass(frozen=True)
class Statement:
    """One statement; `insert_format` is set when it is an INSERT whose rows are `data`."""

    query: str
    format: str
    database: str
    insert_format: str = ""
    data: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def parse(
    url: Mapping[str, str],
    headers: Headers,
    body: bytes,
    *,
    limit: int = MAX_UNPACKED,
    reserve: Callable[[int], None] = lambda size: None,
) -> Statement:
    """Find the statement and its data: `query=` plus body, everything in the body, or a multipart form.

    `limit` in bytes and `reserve` are those of `unpack`. Raises `FrontError`.
    """
    if "1" in (url.get("compress"), url.get("decompress")):
        raise FrontError(48, "native framing (compress=1) is not supported, use Content-Encoding. (NOT_IMPLEMENTED)")
    body = unpack(headers.get("Content-Encoding", "").lower(), body, limit, reserve)
    fields, data = dict(url), body
    content_type = headers.get("Content-Type", "")
    if content_type.startswith("multipart/form-data"):
        fields |= _form(content_type, body)
        data = b""
    query = fields.get("query", "")
    has_data = bool(_INSERT.match(query) and _INPUT.search(query))
    if not query and (inline := _INLINE.match(data[: 1 << 16])):
        has_data, query, data = True, _text(data[: inline.end()]), data[inline.end() :]
    elif not has_data:
        query, data = query + ("\n" if query and data else "") + _text(data), b""
    return _statement(query.strip(), fields, headers, data if has_data else None)


def _statement(query: str, fields: Mapping[str, str], headers: Headers, data: bytes | None) -> Statement:
    if odd := [name for name in fields if name.startswith("param_") and not _PARAMETER.fullmatch(name)]:
        raise FrontError(36, f"a parameter of the query cannot be called {odd[0][6:][:40]!r}. (BAD_ARGUMENTS)")
    insert_format = ""
    if data is not None and (tail := _INPUT.search(query)):
        insert_format, query = tail.group(1) or "Values", query[: tail.start()].rstrip()
    return Statement(
        query=query,
        format=fields.get("default_format") or headers.get("X-ClickHouse-Format", "") or "TabSeparated",
        database=fields.get("database") or headers.get("X-ClickHouse-Database", "") or "default",
        insert_format=insert_format,
        data=data or b"",
        params={name[6:]: value for name, value in fields.items() if name.startswith("param_")},
        settings={
            name: value for name, value in fields.items() if name not in _RESERVED and not name.startswith("param_")
        },
    )


def _form(content_type: str, body: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    try:
        parts = list(BytesParser(policy=HTTP).parsebytes(head + body).iter_parts())
    except (RecursionError, ValueError, LookupError):
        raise FrontError(36, "the form cannot be read. (BAD_ARGUMENTS)") from None
    for part in parts:
        if part.get_filename():
            raise FrontError(48, "external data is not supported. (NOT_IMPLEMENTED)")
        name, value = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(value, bytes):
            fields[name] = _text(value)
    return fields


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise FrontError(62, "the statement is not UTF-8 text. (SYNTAX_ERROR)") from None
