"""Files to entries: JSON lines, JSON arrays, CSV, plain or gzipped, each with its place; a bad one stops nothing."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

CHUNK = 1 << 20
MAX_CELL = 1 << 24

Entry = tuple[str, dict[str, Any]]
"""(place, content): the place is "line 7" or "element 7"."""


@dataclass(frozen=True, slots=True)
class Bad:
    """What could not be read: where, and why."""

    place: str
    reason: str


class UnreadableError(Exception):
    """The whole input cannot be read; the text says why."""


def read(path: str, position: Callable[[int], None] | None = None) -> Iterator[Entry | Bad]:
    """Yield the entries of a file ("-" = standard input); `position` hears now and then how many bytes are read.

    Raises `UnreadableError` when there is no such input or it breaks off.
    """
    try:
        with _opened(path) as raw, _plain(raw) as file:
            for number, entry in enumerate(_entries(file)):
                if position and number % 1_000 == 0:
                    position(raw.tell())
                yield entry
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _opened(path: str) -> IO[bytes]:
    return sys.stdin.buffer if path == "-" else Path(path).open("rb")


def _plain(raw: IO[bytes]) -> IO[bytes]:
    buffered = io.BufferedReader(raw, CHUNK)  # type: ignore[type-var]
    return (
        cast("IO[bytes]", gzip.open(buffered)) if buffered.peek(2)[:2] == b"\x1f\x8b" else cast("IO[bytes]", buffered)
    )


def _entries(file: IO[bytes]) -> Iterator[Entry | Bad]:
    buffered = io.BufferedReader(file, CHUNK)  # type: ignore[type-var]
    start = buffered.peek(4_096)[:4_096].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        return _array(buffered)
    return _lines(buffered) if start in (b"{", b"") else _table(buffered)


def _lines(file: IO[bytes]) -> Iterator[Entry | Bad]:
    for number, raw in enumerate(file, 1):
        line = raw.removeprefix(b"\xef\xbb\xbf").strip()
        if line:
            yield _object(f"line {number}", line)


def _object(place: str, line: bytes) -> Entry | Bad:
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return Bad(place, "not UTF-8")
    except (ValueError, RecursionError) as error:
        return Bad(place, f"not JSON: {str(error)[:80]}")
    return (place, value) if isinstance(value, dict) else Bad(place, "not a JSON object")


def _array(file: IO[bytes]) -> Iterator[Entry | Bad]:
    """Read element by element: a large export need not fit into memory, and a cut one gives what it has."""
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape")
    decoder, rest, number = json.JSONDecoder(), text.read(CHUNK).lstrip()[1:], 0
    while True:
        rest = rest.lstrip().removeprefix(",").lstrip()
        if rest.startswith("]"):
            return
        place = f"element {number + 1}"
        try:
            value, end = decoder.raw_decode(rest)
            if end == len(rest) and not isinstance(value, dict):
                raise ValueError("may go on")  # a number at the end of the chunk
        except (ValueError, RecursionError) as error:
            more = text.read(CHUNK)
            if not more:
                yield Bad(place, f"the array breaks off or is no JSON here: {str(error)[:80]}")
                return
            rest += more
            continue
        number += 1
        rest = rest[end:]
        yield (place, value) if isinstance(value, dict) else Bad(place, "not a JSON object")


def _table(file: IO[bytes]) -> Iterator[Entry | Bad]:
    """Read CSV by its head; columns with dots (jsonPayload.usage.prompt_tokens) become nested objects."""
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(MAX_CELL)
    rows = csv.reader(text)
    head = next(rows, [])
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Bad(f"line {rows.line_num}", str(error))
            continue
        place = f"line {rows.line_num}"
        if row and len(row) != len(head):
            yield Bad(place, f"{len(row)} columns, the head has {len(head)}")
        elif row:
            yield place, nested(dict(zip(head, row, strict=True)))


def nested(flat: dict[str, str]) -> dict[str, Any]:
    """Turn {"a.b": "1"} into {"a": {"b": "1"}}; empty cells are absent."""
    out: dict[str, Any] = {}
    for path, value in flat.items():
        if value == "":
            continue
        *parents, last = path.split(".")
        node = out
        for parent in parents:
            child = node.setdefault(parent, {})
            node = child if isinstance(child, dict) else {}
        node[last] = value
    return out
