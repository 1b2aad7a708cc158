"""Files to entries: JSON lines, JSON arrays, CSV, plain or gzipped, SQLite databases; a bad entry stops nothing."""

import csv
import gzip
import io
import json
import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, cast

from tollmeter.producers.imports.log_lines import parse
from tollmeter.producers.imports.sqlite_tables import is_database, read_database

CHUNK = 1 << 20
MAX_CELL = 1 << 24

File = io.BufferedReader | gzip.GzipFile
Entry = tuple[str, dict[str, Any]]
"""(place, content): the place is "line 7", "element 7" or "usage_log row 7"."""


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
        if is_database(path):
            yield from read_database(path)
            return
        with ExitStack() as files:
            raw = files.enter_context(_opened(path))
            file = _plain(raw)
            files.enter_context(file)
            told = position if raw.seekable() else None  # nobody knows how far a pipe is read
            for number, entry in enumerate(_entries(file, files)):
                if told and number % 1_000 == 0:
                    told(raw.tell())
                yield entry
    except (sqlite3.Error, LookupError) as error:
        raise UnreadableError(f"{path} cannot be read as a database: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _opened(path: str) -> io.BufferedReader:
    if path == "-":
        return io.BufferedReader(cast("io.RawIOBase", sys.stdin.buffer), CHUNK)
    return cast("io.BufferedReader", Path(path).open("rb", buffering=CHUNK))


def _plain(raw: io.BufferedReader) -> File:
    return gzip.open(raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw


def _entries(file: File, files: ExitStack) -> Iterator[Entry | Bad]:
    start = file.peek(4_096)[:4_096].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start in (b"{", b""):
        return _lines(file)
    text = io.TextIOWrapper(cast("IO[bytes]", file), "utf-8-sig", errors="surrogateescape", newline="")
    files.enter_context(text)
    return _array(text) if start == b"[" else _table(text)


def _lines(file: File) -> Iterator[Entry | Bad]:
    for number, raw in enumerate(file, 1):
        line = raw.removeprefix(b"\xef\xbb\xbf").strip()
        if line:
            yield _object(f"line {number}", line)


def _object(place: str, line: bytes) -> Entry | Bad:
    try:
        value = parse(line.decode())
    except UnicodeDecodeError:
        return Bad(place, "not UTF-8")
    except ValueError as error:
        return Bad(place, str(error)[:100])
    return (place, value) if isinstance(value, dict) else Bad(place, "not a JSON object")


def _array(text: IO[str]) -> Iterator[Entry | Bad]:
    """Read element by element: a large export need not fit into memory, and a cut one gives what it has."""
    decoder, rest, number = json.JSONDecoder(parse_float=Decimal), text.read(CHUNK).lstrip()[1:], 0
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


def _table(text: IO[str]) -> Iterator[Entry | Bad]:
    """Read CSV by its head; columns with dots (jsonPayload.usage.prompt_tokens) become nested objects."""
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
