"""A body is read within bounds: bytes as they come, bytes unpacked, and never more than the bound in memory."""

import io
import zlib
from collections.abc import Mapping

import zstandard
from starlette.types import Message, Receive

from tollmeter.server.problems import Problem

_CHUNK = 64 * 1024
ROOM_BYTES = 96 << 20


class Room:
    """Bounds what all bodies that are being worked on hold in memory together."""

    def __init__(self, most: int = ROOM_BYTES) -> None:
        self.free = most


class Held:
    """What one request holds of the room; all of it is given back at the end."""

    def __init__(self, room: Room) -> None:
        self._room, self._size = room, 0

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self._room.free += self._size

    def add(self, size: int) -> None:
        """Take so many bytes more. Raises `Problem` 503 when there is no room."""
        if size > self._room.free:
            text = "too many large bodies at once: send it again in a moment, or in smaller parts"
            raise Problem(503, "no_room", text, headers={"retry-after": "1"})
        self._room.free -= size
        self._size += size


class GoneError(Exception):
    """The client hung up before its body was whole: nobody waits for an answer."""


async def read_body(receive: Receive, headers: Mapping[str, str], most: int, held: Held) -> bytes:
    """Return the body as it was before it was packed. Raises `Problem` 400, 413, 415 or 503, and `GoneError`."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in _UNPACK and encoding not in ("identity", ""):
        raise Problem(
            415,
            "unknown_encoding",
            f"content-encoding {encoding[:40]!r} is not understood: gzip, zstd and none are",
            headers={"accept-encoding": "gzip, zstd"},
        )
    said = headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise _too_large(most)
    message = await receive()
    data: bytes = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body"):  # the usual body comes whole
        data = await _rest(receive, message, most, held)
    if len(data) > most:
        raise _too_large(most)
    unpack = _UNPACK.get(encoding)
    if unpack is not None:
        data = unpack(data, most)
        held.add(len(data))
    return data


async def _rest(receive: Receive, message: Message, most: int, held: Held) -> bytes:
    parts, size = [], 0
    while True:
        if message["type"] != "http.request":
            raise GoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        held.add(len(chunk))
        parts.append(chunk)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


def _gunzip(data: bytes, most: int) -> bytes:
    """Unpack what may be several members, and stop at the bound."""
    out = bytearray()
    while data:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            out += unpacker.decompress(data, most + 1 - len(out))
        except zlib.error as error:
            raise Problem(400, "not_gzip", f"the body is no gzip as its content-encoding says: {error}") from None
        if len(out) > most:
            raise _too_large(most)
        if not unpacker.eof:
            raise Problem(400, "not_gzip", "the body is no whole gzip: it ends too early")
        data = unpacker.unused_data
    return bytes(out)


def _unzstd(data: bytes, most: int) -> bytes:
    out = bytearray()
    try:
        limit = zstandard.ZstdDecompressor(max_window_size=8 << 20)
        with limit.stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
            while chunk := reader.read(min(_CHUNK, most + 1 - len(out))):
                out += chunk
                if len(out) > most:
                    raise _too_large(most)
    except zstandard.ZstdError as error:
        raise Problem(400, "not_zstd", f"the body is no zstd as its content-encoding says: {error}") from None
    return bytes(out)


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"the body is larger than {most} bytes (unpacked): send it in parts")


_UNPACK = {"gzip": _gunzip, "x-gzip": _gunzip, "zstd": _unzstd}
