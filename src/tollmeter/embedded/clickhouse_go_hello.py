"""The first answer that clickhouse-go asks for, in Native format at its own protocol revision."""

import re
import struct

QUERY = re.compile(r"\s*SELECT displayName\(\), version\(\), revision\(\), timezone\(\)\s*$")
NAME = "tollmeter"


def block(version: str, timezone: str) -> bytes:
    """Return one row (display name, version, revision, time zone).

    The client decodes this block with the revision it was compiled with (8 bytes of block info, one
    custom-serialisation byte a column) and all later blocks with the revision we answer; 0 makes it read plain Native.
    """
    columns = [
        ("displayName()", "String", _text(NAME)),
        ("version()", "String", _text(version)),
        ("revision()", "UInt32", struct.pack("<I", 0)),
        ("timezone()", "String", _text(timezone)),
    ]
    head = b"\x01\x00\x02\xff\xff\xff\xff\x00" + _var_uint(len(columns)) + _var_uint(1)
    return head + b"".join(_text(name) + _text(kind) + b"\x00" + value for name, kind, value in columns)


def _var_uint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _var_uint(len(raw)) + raw
