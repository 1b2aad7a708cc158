"""How the result of a statement goes over HTTP: its format, its figures, compressed when the client expects that."""

import gzip
import json
from collections.abc import Mapping
from email.message import Message

from tollmeter.embedded.engine import Answer

_CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8; header=present",
}
_WORTH_PACKING = 512


def packed(answer: Answer, params: Mapping[str, str], headers: Message) -> tuple[bytes, dict[str, str]]:
    """Return the body to send, compressed when the client expects it, and the headers that describe it."""
    described, body = _describe(answer), answer.body
    if len(body) > _WORTH_PACKING and _wants_gzip(params, headers):
        return gzip.compress(body, 1), {**described, "Content-Encoding": "gzip"}
    return body, described


def _wants_gzip(params: Mapping[str, str], headers: Message) -> bool:
    """Compress only when asked by setting; clickhouse-go never asks but expects it."""
    agent = headers.get("User-Agent", "")
    asked = params.get("enable_http_compression") == "1" or "Go-http" in agent or "clickhouse-go" in agent
    return asked and "gzip" in headers.get("Accept-Encoding", "")


def _describe(answer: Answer) -> dict[str, str]:
    summary = json.dumps({name: str(value) for name, value in answer.summary.items()})  # strings, as upstream
    headers = {"X-ClickHouse-Summary": summary}
    if answer.format:
        headers["X-ClickHouse-Format"] = answer.format
        headers["Content-Type"] = _CONTENT_TYPES.get(answer.format, "application/octet-stream")
    return headers
