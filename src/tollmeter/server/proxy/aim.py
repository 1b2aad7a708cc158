"""Where a request wants to go: the name of an upstream, our key if the path holds it, and the provider's own path.

Pure. The path goes on as it was sent, so whatever two servers could read in two ways is refused rather than mended.
"""

import re
from typing import NamedTuple

from tollmeter.server.problems import Problem

PREFIX = "/proxy/"
KEY_SEGMENT = "key="
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PLAIN = re.compile(r"[!$&'()*+,\-./0-9:;=@A-Z_a-z~%]*")
"""What RFC 3986 lets stand in a path."""
_ESCAPE = re.compile(r"%(?P<code>[0-9A-Fa-f]{2})?")
_FORBIDDEN = frozenset("/\\%?#")


class Aim(NamedTuple):
    """`/proxy/openai/key=…/v1/chat/completions` aims at `/v1/chat/completions` of openai with a key of ours."""

    upstream: str
    path: str
    key: str = ""


def aim(raw_path: bytes) -> Aim:
    """Return where a path leads, given as it stood in the request line. Raises `Problem`, 400 or 404."""
    path = raw_path.decode("latin-1").partition("?")[0]
    name, _, rest = path.removeprefix(PREFIX).partition("/")
    if not path.startswith(PREFIX) or not _NAME.fullmatch(name):
        raise Problem(404, "no_upstream", "the path is /proxy/<upstream>/<path of the provider>")
    if not _PLAIN.fullmatch(rest):
        raise _wrong("has a character that no path may hold")
    if any(_read_twofold(found["code"]) for found in _ESCAPE.finditer(rest)):
        raise _wrong("has an escaped slash, backslash, percent, query or control character, or a broken escape")
    first, _, behind = rest.partition("/")
    key = ""
    if first.startswith(KEY_SEGMENT):
        key, rest = first.removeprefix(KEY_SEGMENT), behind
    segments = rest.removesuffix("/").split("/")
    if any(_climbs(segment) for segment in segments):
        raise _wrong("has a segment . or ..")
    if rest and "" in segments:
        raise _wrong("has an empty segment")
    return Aim(name, "/" + rest, key)


def _read_twofold(code: str | None) -> bool:
    """Say whether an escape is broken, or means something to whoever takes it apart before it is read."""
    if code is None:
        return True
    meant = chr(int(code, 16))
    return meant in _FORBIDDEN or meant < " " or meant == "\x7f"


def _climbs(segment: str) -> bool:
    """Say whether a segment is a step up or none, also escaped or with a parameter behind it, as some servers read."""
    plain = segment.replace("%2e", ".").replace("%2E", ".").replace("%3b", ";").replace("%3B", ";")
    return plain.partition(";")[0].strip() in (".", "..")


def _wrong(what: str) -> Problem:
    return Problem(400, "bad_path", f"the path behind the upstream's name {what}; nothing was sent")
