"""Amazon's event stream: binary frames of headers and a payload become the chunks that its SDK would give.

Pure. https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html has the frames, as Bedrock's
API_runtime_ConverseStream and API_runtime_InvokeModelWithResponseStream send them (read 2026-11-29). Checksums are the
receiver's business; a length that cannot be is an error here.
"""

import base64
import json
from collections.abc import Iterator

MEDIA_TYPE = "application/vnd.amazon.eventstream"
_PRELUDE, _FRAME = 12, 16
FRAME_LIMIT = 24 << 20
_WIDTHS = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; 6 and 7, bytes and text, say their length themselves."""


def take_frames(kept: bytearray) -> Iterator[tuple[str, object]]:
    """Take the whole frames out of the front of `kept`; yield the kind of event and its JSON payload.

    Raises ValueError for what is no such stream.
    """
    while len(kept) >= _PRELUDE:
        size, headers = int.from_bytes(kept[:4]), int.from_bytes(kept[4:8])
        if not _FRAME + headers <= size <= FRAME_LIMIT:
            raise ValueError("no frame")
        if len(kept) < size:
            return
        frame = bytes(kept[:size])
        del kept[:size]
        yield _read(frame[_PRELUDE : _PRELUDE + headers], frame[_PRELUDE + headers : -4])


def chunk_of(kind: str, payload: object) -> object:
    """Return a frame as the SDK gives it, `{"metadata": {...}}`; of InvokeModel's frames the vendor's own chunk."""
    if kind == "chunk" and isinstance(payload, dict) and isinstance(payload.get("bytes"), str):
        return json.loads(base64.b64decode(payload["bytes"]))
    return {kind: payload}


def _read(headers: bytes, payload: bytes) -> tuple[str, object]:
    named = dict(_headers(headers))
    failed = named.get(":exception-type") or named.get(":error-code")
    try:
        body = json.loads(payload) if payload else {}
    except (ValueError, RecursionError):
        body = {}
    if failed:
        return "error", {"type": failed}
    return named.get(":event-type", ""), body


def _headers(data: bytes) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(data):
        length = data[place]
        name = data[place + 1 : place + 1 + length].decode("utf-8", "replace")
        place += 1 + length
        kind, place = data[place], place + 1
        if kind in (6, 7):
            width = int.from_bytes(data[place : place + 2])
            place += 2
        else:
            width = _WIDTHS[kind]
        if kind == 7:
            yield name, data[place : place + width].decode("utf-8", "replace")
        place += width
