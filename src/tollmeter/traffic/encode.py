"""Calls to Avro records at 2-3 µs each: what repeats is encoded once, what does not is written by numpy.

The bytes equal what `schemas.codec.encode` writes for the same fields (`fields_of`); a law holds them together.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tollmeter.schemas.codec import FRAMINGS, SCHEMA, SINGLE_OBJECT_HEADER
from tollmeter.traffic.calls import OUTCOMES, VARIANTS, Bytes, Calls, Ints
from tollmeter.traffic.company import Company
from tollmeter.traffic.models import MODELS, Model

PRODUCER = "tollmeter-traffic/1"
IMAGE_UNITS = {"images": 1.0}

_HEX = np.array([list(f"{byte:02x}".encode()) for byte in range(256)], dtype=np.uint8)
_DASHES = (8, 13, 18, 23)
_UUID_DIGITS = np.array([i for i in range(36) if i not in _DASHES])
_VARINT_BYTES = 5  # 35 bits, zigzag: more than any counter here
_SHIFTS = 7 * np.arange(1, _VARINT_BYTES)


def varint(value: int) -> bytes:
    """Return an Avro long."""
    value = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    data = value.encode()
    return varint(len(data)) + data


def texts(*values: str) -> bytes:
    return b"".join(map(text, values))


def _enum(field: str, symbol: str) -> bytes:
    kind = next(f["type"] for f in SCHEMA["fields"] if f["name"] == field)
    return varint(kind["symbols"].index(symbol))


def _optional(value: int | None) -> bytes:
    return b"\x00" if value is None else b"\x02" + varint(value)


def _map(pairs: Sequence[tuple[str, bytes]]) -> bytes:
    return varint(len(pairs)) + b"".join(text(k) + v for k, v in pairs) + b"\x00" if pairs else b"\x00"


@dataclass(frozen=True, slots=True)
class Fragments:
    """Encoded parts of the company's events by index: origin and tags by caller, key and address by (caller, ip) ..."""

    origin: list[bytes]
    payer: list[list[bytes]]
    route: list[list[bytes]]
    outcome: list[bytes]
    units: list[bytes]
    tags: list[bytes]
    """With what the fields behind them are by default."""


def fragments(company: Company) -> Fragments:
    """Encode everything that does not change from call to call."""
    return Fragments(
        origin=[
            texts(c.service, c.environment, PRODUCER, c.org, c.group, c.user, c.agent, c.feature)
            for c in company.callers
        ],
        payer=[
            [text(c.key) + _enum("billing_scope", c.billing_scope) + text(c.ips[n % len(c.ips)]) for n in range(12)]
            for c in company.callers
        ],
        route=[[_route(model, variant) for variant in VARIANTS] for model in MODELS],
        outcome=[_enum("status", o.status) + _optional(o.http_status) + text(o.error_type) for o in OUTCOMES],
        units=[_map([(k, struct.pack("<d", v)) for k, v in units_of(model).items()]) for model in MODELS],
        tags=[_map([(k, text(v)) for k, v in c.tags]) + FRAMINGS[-1].lacks for c in company.callers],
    )


def units_of(model: Model) -> dict[str, float]:
    return IMAGE_UNITS if model.images else {}


def tier_of(model: Model, variant: str) -> str:
    return model.tiers[0] if model.tiers and variant.startswith("tier") else ""


def _route(model: Model, variant: str) -> bytes:
    names = (model.provider, model.host, "", model.operation, model.sent, model.used, "", "", tier_of(model, variant))
    processing = _enum("processing", "BATCH" if variant == "batch" else "REALTIME")
    return texts(*names) + processing + (b"\x01" if variant.endswith("stream") else b"\x00")


def encode_calls(parts: Fragments, calls: Calls) -> list[bytes]:
    """Return one Avro single-object record per call, in order."""
    heads = _heads(calls)
    width = heads.shape[1]
    head = heads.tobytes()
    session = _hex_text(calls.ids[:, 34:40]).tobytes()
    prompt = _hex_text(calls.ids[:, 40:48]).tobytes()
    counters, counter_ends = _pack(_counter_columns(calls))
    absent = np.zeros_like(calls.prompt_chars)
    chars, char_ends = _pack([absent, absent, _present(calls.prompt_chars)])
    chosen = (numbers.tolist() for numbers in (calls.caller, calls.ip, calls.model, calls.variant, calls.outcome))
    rows = zip(*chosen, counter_ends[:-1], counter_ends[1:], char_ends[:-1], char_ends[1:], strict=True)
    origin, payer, route = parts.origin, parts.payer, parts.route
    outcome, units, tags = parts.outcome, parts.units, parts.tags
    join = b"".join
    return [
        join(
            (
                head[i * width : (i + 1) * width],
                origin[caller],
                session[i * 13 : i * 13 + 13],
                payer[caller][ip],
                route[model][variant],
                outcome[result],
                counters[a:b],
                units[model],
                chars[c:d],
                prompt[i * 17 : i * 17 + 17],
                tags[caller],
            )
        )
        for i, (caller, ip, model, variant, result, a, b, c, d) in enumerate(rows)
    ]


def _heads(calls: Calls) -> Bytes:
    """Framing, event_id, occurred_at, request_id, provider_request_id, empty trace and span: the same width always."""
    count = len(calls)
    frame = np.frombuffer(SINGLE_OBJECT_HEADER, dtype=np.uint8)
    at = _varint_matrix(calls.at_us, 8)
    if count and int(at[:, 7].max()) > 0x7F:
        raise ValueError("event times must lie between 1978 and 3111")
    parts = [
        np.broadcast_to(frame, (count, len(frame))),
        np.full((count, 1), 72, dtype=np.uint8),
        uuids_of(calls.ids[:, :16]),
        at,
        _hex_text(calls.ids[:, 16:24]),
        np.full((count, 1), 2 * 25, dtype=np.uint8),
        np.broadcast_to(np.frombuffer(b"call-", dtype=np.uint8), (count, 5)),
        _hex(calls.ids[:, 24:34]),
        np.zeros((count, 2), dtype=np.uint8),
    ]
    return np.hstack(parts)


def _hex(data: Bytes) -> Bytes:
    return _HEX[data].reshape(len(data), -1)


def _hex_text(data: Bytes) -> Bytes:
    """Hex digits behind their length, as an Avro string."""
    length = np.full((len(data), 1), 4 * data.shape[1], dtype=np.uint8)
    return np.hstack([length, _hex(data)])


def uuids_of(data: Bytes) -> Bytes:
    """Version 4 UUIDs as text."""
    data = data.copy()
    data[:, 6] = data[:, 6] & 0x0F | 0x40
    data[:, 8] = data[:, 8] & 0x3F | 0x80
    out = np.full((len(data), 36), ord("-"), dtype=np.uint8)
    out[:, _UUID_DIGITS] = _hex(data)
    return out


def _varint_matrix(values: Ints, width: int) -> Bytes:
    """Zigzag varints padded to `width` bytes; every byte but the last has its continuation bit set."""
    zigzag = (values << 1)[:, None] >> (7 * np.arange(width))
    rest = zigzag >> 7
    return np.where(rest > 0, zigzag & 0x7F | 0x80, zigzag & 0xFF).astype(np.uint8)


def _present(values: Ints) -> Ints:
    """Mark nullable numbers that are there: `_pack` writes the union tag before a marked one. An unmarked 0 is null."""
    return -1 - values


def _counter_columns(calls: Calls) -> list[Ints]:
    """latency_ms, ttft_ms, usage_source and the six counters."""
    sources = np.array([_enum("usage_source", o.usage_source)[0] >> 1 for o in OUTCOMES], dtype=np.int64)
    answered = np.array([o.status != "BLOCKED" for o in OUTCOMES])[calls.outcome]
    streamed = np.isin(calls.variant, [VARIANTS.index("stream"), VARIANTS.index("tier_stream")]) & answered
    return [
        np.where(answered, _present(calls.latency_ms), 0),
        np.where(streamed, _present(calls.ttft_ms), 0),
        sources[calls.outcome],
        calls.input,
        calls.cache_read,
        calls.cache_write,
        np.zeros_like(calls.input),
        calls.output,
        calls.reasoning,
    ]


def _pack(columns: list[Ints]) -> tuple[bytes, list[int]]:
    """Write columns of varints row by row; return the bytes and where each row begins, plus the end."""
    blocks, kept = [], []
    for values in columns:
        tagged = values < 0
        numbers = np.where(tagged, -1 - values, values)
        matrix = _varint_matrix(numbers, _VARINT_BYTES)
        # A byte is written when anything is left for it; the first one always is.
        needed = np.hstack([np.ones((len(values), 1), dtype=np.bool_), (numbers << 1)[:, None] >> _SHIFTS > 0])
        blocks += [np.full((len(values), 1), 2, dtype=np.uint8), matrix]
        kept += [tagged[:, None], needed]
    keep = np.hstack(kept)
    ends = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    return np.hstack(blocks)[keep].tobytes(), ends.tolist()
