"""JSON that the server answers: whole for the program that reads it, and nothing in it that a terminal obeys."""

import json

import msgspec
from starlette.responses import Response

from tollmeter.schemas.escapes import escaped_json

_encode = msgspec.json.Encoder().encode


def json_bytes(document: object) -> bytes:
    """Return a document of ours as JSON; halves of characters, which no UTF-8 holds, are escapes as well."""
    try:
        data = _encode(document)
    except UnicodeEncodeError:
        data = json.dumps(msgspec.to_builtins(document), separators=(",", ":")).encode()
    return data if data.isascii() and b"\x7f" not in data else escaped_json(data.decode()).encode()


class JsonAnswer(Response):
    """An answer as JSON; a number that JSON does not have raises `ValueError`."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return escaped_json(text).encode()
