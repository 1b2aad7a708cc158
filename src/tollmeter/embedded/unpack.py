"""A compressed request body is unpacked up to a limit and no further: a small body can unpack to gigabytes."""

import zlib
from collections.abc import Callable

import cramjam

from tollmeter.embedded.errors import FrontError

MAX_UNPACKED = 256 << 20
ENCODINGS = frozenset({"", "identity", "gzip", "deflate", "lz4", "zstd", "br"})
_CRAMJAM = {"lz4": cramjam.lz4, "zstd": cramjam.zstd, "br": cramjam.brotli}
_WBITS = {"gzip": 31, "deflate": 15}
_PIECE = 4 << 20


def unpack(
    encoding: str, body: bytes, limit: int = MAX_UNPACKED, reserve: Callable[[int], None] = lambda size: None
) -> bytes:
    """Return the body without its Content-Encoding. Raises `FrontError` for an unknown one, garbage, or too much.

    `reserve` is asked before bytes are taken, and may refuse by raising.
    """
    if encoding not in ENCODINGS:
        raise FrontError(36, f"Unknown Content-Encoding {encoding[:40]!r}. (BAD_ARGUMENTS)", 400)
    if encoding in ("", "identity") or not body:
        return body
    if encoding in _WBITS:
        return _unpack_zlib(encoding, body, limit, reserve)
    # A buffer grows until the result fits: most bodies shrink less than 8 times.
    size = min(limit, max(1 << 16, 8 * len(body)))
    while True:
        reserve(size)
        room = bytearray(size)
        try:
            written = _CRAMJAM[encoding].decompress_into(body, room)
        except cramjam.DecompressionError:
            if size >= limit:
                raise _refused(encoding, limit) from None
            size = min(limit, size * 8)
        else:
            return bytes(memoryview(room)[:written])


def _unpack_zlib(encoding: str, body: bytes, limit: int, reserve: Callable[[int], None]) -> bytes:
    stream = zlib.decompressobj(wbits=_WBITS[encoding])
    out, rest = bytearray(), body
    while not stream.eof:
        room = min(_PIECE, limit + 1 - len(out))
        reserve(room)
        try:
            piece = stream.decompress(rest, room)
        except zlib.error:
            raise _refused(encoding, limit) from None
        out += piece
        rest = stream.unconsumed_tail
        if len(out) > limit or (not rest and len(piece) < room):
            break
    if len(out) > limit or not stream.eof:
        raise _refused(encoding, limit)
    return bytes(out)


def _refused(encoding: str, limit: int) -> FrontError:
    text = f"request body is not valid {encoding}, or larger than {limit} bytes when unpacked. (CANNOT_DECOMPRESS)"
    return FrontError(271, text, 400)
