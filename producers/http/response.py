"""A copy of an answer's bytes becomes its body: JSON, server-sent events, JSON lines or frames, plain or compressed.

Pure: bytes in, a value out. What cannot be read is said so in `problem`, and is nobody's error but the meter's.
"""

import json
import zlib
from typing import Any

from tollmeter.producers.extract.streams import Merged
from tollmeter.producers.http import frames
from tollmeter.producers.http.estimates import reply_chars

BODY_LIMIT = 32 << 20
LINE_LIMIT = 4 << 20
READABLE_ENCODINGS = ("gzip", "deflate")


def readable(accepted: str | None) -> str:
    """Return the `accept-encoding` to send, given the caller's: what he and the meter can both read, in his order."""
    kept: list[str] = []
    for part in (accepted or "").lower().split(","):
        name, _, weight = part.partition(";")
        none = weight.replace(" ", "").startswith("q=0") and not weight.replace(" ", "").strip("q=0.")
        if not none:
            kept += READABLE_ENCODINGS if name.strip() == "*" else [name.strip()]
    return ", ".join(name for name in dict.fromkeys(kept) if name in READABLE_ENCODINGS) or "identity"


class Reader:
    """Collects one answer. `feed` bytes as they pass, then `finish`."""

    def __init__(self, content_type: str, content_encoding: str = "") -> None:
        kind = content_type.lower()
        self._lines = "event-stream" in kind or "ndjson" in kind or "jsonl" in kind
        self._json = "json" in kind
        self._frames = frames.MEDIA_TYPE in kind
        self._merged = Merged()
        self._whole: Any = None
        self._kept = bytearray()
        self._inflate: Any = None
        self.ended = False
        """The answer said that it was complete."""
        self.chars = 0
        """Characters of answer seen: what an estimate of the output rests on."""
        self.problem = "" if self._lines or self._json or self._frames else "no JSON"
        encoding = content_encoding.strip().lower()
        if encoding in ("gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib, whichever it is
        elif encoding not in ("", "identity"):
            self.problem = f"content-encoding {encoding}"

    @property
    def failed(self) -> bool:
        """The provider said within a stream that it broke off."""
        return self._merged.failed == "ERROR"

    @property
    def body(self) -> object:
        """The answer so far, whole or merged; {} when nothing could be read."""
        if self._whole is not None:
            return self._whole
        return self._merged if self._merged.sample is not None else {}

    def feed(self, data: bytes) -> None:
        """Take bytes in, in any cut. Never raises."""
        if self.problem:
            return
        try:
            self._kept += self._inflate.decompress(data, BODY_LIMIT) if self._inflate else data
            if self._lines:
                *lines, rest = self._kept.split(b"\n")
                self._kept = rest
                for line in lines:
                    self._line(bytes(line))
            elif self._frames:
                for kind, payload in frames.take_frames(self._kept):
                    self._frame(kind, payload)
        except Exception as error:
            self.problem = type(error).__name__
        if len(self._kept) > (LINE_LIMIT if self._lines else BODY_LIMIT):
            self.problem = "too large"
        if self.problem:
            self._kept.clear()

    def finish(self) -> None:
        """Read what is left when no more bytes come."""
        if self.problem:
            return
        if self._lines:
            self._line(bytes(self._kept))
        elif self._kept and not self._frames:
            self._document(bytes(self._kept))
        self._kept.clear()

    def _line(self, line: bytes) -> None:
        line = line.strip()
        if line.startswith(b"data:"):
            line = line[5:].strip()
        if line == b"[DONE]":
            self.ended = True
        elif line.startswith(b"{"):
            self._chunk(_parsed(line))

    def _frame(self, kind: str, payload: object) -> None:
        self.chars += reply_chars(payload)
        self._chunk(frames.chunk_of(kind, payload))
        self.ended = self.ended or kind == "metadata"  # Converse's last frame

    def _document(self, data: bytes) -> None:
        document = _parsed(data)
        if isinstance(document, list):  # Gemini streams an array unless asked for events
            for chunk in document:
                self._chunk(chunk)
        elif isinstance(document, dict):
            self._whole, self.ended = document, True
            self.chars = reply_chars(document)
        else:
            self.problem = "no JSON object"

    def _chunk(self, chunk: object) -> None:
        if isinstance(chunk, dict):
            self.chars += reply_chars(chunk)
            self._merged.add(chunk)
            if chunk.get("error"):
                self._merged.failed = "ERROR"
            self.ended = self.ended or self._merged.ended


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
