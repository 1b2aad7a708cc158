"""Bytes to columns: every record ends as exactly one row or one reject, whatever its neighbours are.

Avro bodies are joined behind the header of an in-memory container file and decoded at once. A body that lies about its
length would shift its neighbours unseen, so a block counts only when behind every row comes out the mark that was put
behind its body: then each row was read from its own bytes alone. Whether a record is accepted therefore never depends
on the batch it came in.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import methodcaller
from typing import NamedTuple

import fastavro
import polars as pl

from tollmeter.schemas import codec
from tollmeter.streams.rules.events.avro_block import ROW_SCHEMA, read_block, read_framed, with_names
from tollmeter.streams.rules.events.decode_json import WIRE_DTYPES, decode_json

MAX_BODY_BYTES = 64 * 1024
REASONS = (
    "empty",
    "too_large",
    "unknown_framing",
    "unknown_fingerprint",
    "bad_avro",
    "trailing_bytes",
    "bad_json",
    "not_an_object",
    "bad_event_id",
    "missing_field",
    "bad_value",
    "secret",
    "time_out_of_range",
)
"""Every reason for which PRICE sends a record to the dead letters."""

_ID_LENGTH = b"\x48"  # 36 as Avro writes it
_LINEAR = 96  # blocks up to this size are searched record by record


class Reject(NamedTuple):
    position: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """Rows in wire columns, for each row its position among the values, and the values that gave no row."""

    frame: pl.DataFrame
    index: list[int]
    rejects: list[Reject]


class _Sorted(NamedTuple):
    bodies: list[bytes]
    body_at: list[int]
    texts: list[bytes]
    text_at: list[int]
    rejects: list[Reject]


def decode(values: Sequence[bytes | None]) -> Decoded:
    """Decode records of any accepted format; rows keep the order of their values."""
    quick = _all_ours(values)
    if quick is not None:
        return Decoded(with_names(quick), list(range(len(values))), [])
    sorted_ = _sort_out(values)
    rejects = sorted_.rejects
    frames: list[pl.DataFrame] = []
    index: list[int] = []
    if sorted_.bodies:
        frame, kept, bad = _decode_bodies(sorted_.bodies)
        frames.append(frame)
        index += [sorted_.body_at[at] for at in kept]
        rejects += [Reject(sorted_.body_at[at], reason, detail) for at, reason, detail in bad]
    if sorted_.texts:
        frame, kept, bad = decode_json(sorted_.texts)
        frames.append(frame)
        index += [sorted_.text_at[at] for at in kept]
        rejects += [Reject(sorted_.text_at[at], reason, detail) for at, reason, detail in bad]
    if not frames:
        return Decoded(pl.DataFrame(schema=WIRE_DTYPES), [], rejects)
    frame = frames[0] if len(frames) == 1 else pl.concat(frames)
    if len(frames) > 1:
        order = sorted(range(len(index)), key=index.__getitem__)
        frame, index = frame[order], [index[at] for at in order]
    return Decoded(frame, index, rejects)


def _all_ours(values: Sequence[bytes | None]) -> pl.DataFrame | None:
    """Return the rows when every value is a sound Avro event in our own framing, as nearly always; else None."""
    try:
        lengths = list(map(len, values))  # type: ignore[arg-type]  # one None, and this is not the quick way
    except TypeError:
        return None
    if not lengths or max(lengths) > MAX_BODY_BYTES:
        return None
    if values[0].startswith(codec.SINGLE_OBJECT_HEADER):  # type: ignore[union-attr]  # there is no None
        quick = read_framed(values)  # type: ignore[arg-type]
        if quick is not None:
            return quick
    if not all(map(_SOUND_OLD_START, values)):
        return None
    lacks = {framing.single[-8:]: framing.lacks for framing in codec.FRAMINGS}
    return read_block([value[_FRAMING:] + lacks[value[2:10]] for value in values])  # type: ignore[index, operator]


def _sort_out(values: Sequence[bytes | None]) -> _Sorted:
    """Look at size and framing alone."""
    out = _Sorted([], [], [], [], [])
    for at, value in enumerate(values):
        if not value:
            out.rejects.append(Reject(at, "empty", "the record has no value"))
        elif len(value) > MAX_BODY_BYTES:
            out.rejects.append(Reject(at, "too_large", f"{len(value)} bytes; at most {MAX_BODY_BYTES} are read"))
        elif (body := codec.body_of(value)) is not None:
            out.bodies.append(body)
            out.body_at.append(at)
        elif value[:1] in b"{[ \t\r\n":
            out.texts.append(value)
            out.text_at.append(at)
        else:
            out.rejects.append(Reject(at, *_framing_problem(value)))
    return out


def _framing_problem(value: bytes) -> tuple[str, str]:
    if value.startswith(codec.SINGLE_OBJECT_HEADER[:2]) and len(value) >= len(codec.SINGLE_OBJECT_HEADER):
        return "unknown_fingerprint", f"Avro schema fingerprint {value[2:10].hex()} is not ours"
    if value[:1] == b"\x00" and len(value) >= len(codec.CONFLUENT_HEADER):
        return "unknown_fingerprint", f"schema id {int.from_bytes(value[1:5], 'big')} is not known here"
    return "unknown_framing", f"begins with {value[:4].hex()}: neither Avro single-object, Confluent nor JSON"


_Bad = list[tuple[int, str, str]]
_FRAMING = len(codec.SINGLE_OBJECT_HEADER)
_SOUND_OLD_START = methodcaller("startswith", tuple(framing.single + _ID_LENGTH for framing in codec.FRAMINGS))


def _decode_bodies(bodies: list[bytes]) -> tuple[pl.DataFrame, list[int], _Bad]:
    """Decode Avro bodies; return rows, the positions they came from, and what could not be read."""
    bad: _Bad = []
    kept: list[int] = []
    good: list[bytes] = []
    for at, body in enumerate(bodies):
        if body.startswith(_ID_LENGTH):
            kept.append(at)
            good.append(body)
        else:
            bad.append((at, "bad_event_id", "event_id is not 36 characters long"))
    frame = read_block(good)
    if frame is None:
        culprits = _culprits(good)
        bad += [(kept[at], *body_problem(good[at])) for at in sorted(culprits)]
        kept = [position for at, position in enumerate(kept) if at not in culprits]
        good = [body for at, body in enumerate(good) if at not in culprits]
        frame = read_block(good)
        assert frame is not None, "records that decode alone decode together"
    return with_names(frame), kept, bad


def _culprits(bodies: list[bytes]) -> set[int]:
    """Return the positions that do not decode alone. Bounded: halves first, then row by row what fastavro refuses."""
    culprits: set[int] = set()
    open_ranges = [(0, len(bodies))]
    while open_ranges:
        begin, end = open_ranges.pop()
        if read_block(bodies[begin:end]) is not None:
            continue
        if end - begin == 1:
            culprits.add(begin)
        elif end - begin > _LINEAR:
            middle = (begin + end) // 2
            open_ranges += [(begin, middle), (middle, end)]
        else:
            open_ranges += _suspects_apart(bodies, begin, end)
    return culprits


def _suspects_apart(bodies: list[bytes], begin: int, end: int) -> list[tuple[int, int]]:
    """Cut a small range so that each record that fastavro refuses stands alone; else halve it."""
    suspects = [at for at in range(begin, end) if not _reads_by_row(bodies[at])]
    if not suspects:
        middle = (begin + end) // 2
        return [(begin, middle), (middle, end)]
    edges = sorted({begin, end, *suspects, *(at + 1 for at in suspects)})
    return list(pairwise(edges))


def _reads_by_row(body: bytes) -> bool:
    try:
        codec.decode_body(body)
    except ValueError:
        return False
    return True


def body_problem(body: bytes) -> tuple[str, str]:
    """Say what is wrong with a body that does not decode alone."""
    stream = io.BytesIO(body)
    try:
        fastavro.schemaless_reader(stream, ROW_SCHEMA, None)
    except Exception as error:  # fastavro raises EOFError, IndexError, UnicodeDecodeError and more
        return "bad_avro", f"{type(error).__name__} at byte {stream.tell()} of {len(body)}"
    if stream.tell() < len(body):
        return "trailing_bytes", f"{len(body) - stream.tell()} bytes behind the end of the event"
    return "bad_avro", "an integer or a count is not written as Avro asks"
