"""JSON from outside: one document, an array or lines, entry by entry, and a bad one costs no neighbour."""

import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator

import msgspec

from tollmeter.server.door import Bad
from tollmeter.server.problems import Problem

MAX_EVENT_BYTES = 32 * 1024
LINES = frozenset(("application/x-ndjson", "application/jsonl", "application/ndjson"))
TOO_DEEP = Bad("", "too_deep", "nested too deeply")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape in JSON; its group is half of a pair, alone."""
_raw = msgspec.json.Decoder(msgspec.Raw)
_raws = msgspec.json.Decoder(list[msgspec.Raw])


def entries(body: bytes, media_type: str, most: int) -> tuple[list[bytes], bool]:
    """Return the JSON of each entry of a body, and whether the body is a single object. Raises `Problem` 400 or 413."""
    text = readable(body).strip()
    if not text:
        raise Problem(400, "empty", "the body is empty: send a JSON object, an array, or a line for each call")
    if media_type in LINES:
        lines = [line for line in text.split(b"\n") if line.strip()]
        return _bounded(lines, most), False
    if not text.startswith(b"["):
        return _one_or_lines(text, most)
    try:
        return _bounded([bytes(raw) for raw in _raws.decode(text)], most), False
    except msgspec.DecodeError as error:
        raise not_json(error) from None


def readable(body: bytes) -> bytes:
    """Return JSON without the mark before UTF-8, each half of a character that was cut apart as a question mark.

    Such halves are what JavaScript writes of a text that it cuts within an emoji. Raises `Problem` 400 for another UTF.
    """
    if body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or 0 in body[:4]:
        raise Problem(400, "not_utf8", "the body is no UTF-8, in which JSON is sent (RFC 8259), but UTF-16 or the like")
    if b"\\ud" in body or b"\\uD" in body:
        body = _ESCAPE.sub(lambda found: b"?" if found[1] else found[0], body)
    return body.removeprefix(BOM_UTF8)


def _one_or_lines(text: bytes, most: int) -> tuple[list[bytes], bool]:
    """Lines are known by their end, too: some senders call them `application/json`."""
    first, end, _ = text.partition(b"\n")
    if not end or not first.rstrip().endswith(b"}"):
        return [text], True
    try:
        _raw.decode(first)
    except msgspec.DecodeError:
        return [text], True
    return _bounded([line for line in text.split(b"\n") if line.strip()], most), False


def _bounded(found: list[bytes], most: int) -> list[bytes]:
    if len(found) > most:
        raise Problem(413, "too_many", f"{len(found)} calls in one body; at most {most}: send it in parts")
    return found


def not_json(error: Exception) -> Problem:
    """Return the answer to a body that is no JSON."""
    return Problem(400, "not_json", f"the body is not JSON: {error}")


def places(single: bool, count: int) -> Iterator[str]:
    """Yield how the entries of a body are called: nothing for the only one."""
    return iter([""] if single else [f"[{place}]" for place in range(count)])
