"""Bytes that a broken, old or hostile producer may send: noise, damaged events of every format, numbers that lie."""

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.usage_rows import as_json, avro, cloudevent, confluent, fields
from tollmeter.schemas import codec

_ODD_BYTES = (0x00, 0x01, 0x02, 0x48, 0x7F, 0x80, 0xFE, 0xFF)
_VARINTS = (b"\xff" * 9 + b"\x01", b"\x80" * 40, b"\xfe\xff\xff\xff\x0f", b"\xff" * 10, b"\x00", b"\x01")
_SNIPPETS = (
    b"NaN",
    b"1e999",
    b"-0",
    b"1" * 400,
    b"true",
    b"null",
    b'"7"',
    b"[]",
    b"{}",
    b"\\ud800",
    b"\\u0000",
    b'"',
    b"}",
    b"[",
    b',"input_tokens":1',
    b"[" * 3_000,
    b'{"a":' * 3_000,
    b"9223372036854775808",
    b"-9223372036854775809",
    b"\xed\xa0\x80",
)
_FRAMES = (
    codec.SINGLE_OBJECT_HEADER,
    codec.CONFLUENT_HEADER,
    codec.SINGLE_OBJECT_HEADER[:2] + b"\x01" * 8,
    b"\x00\x00",
    b"",
)
MAX_NOISE = 300


def good(rng: random.Random) -> bytes:
    """Return a sound event in one of the formats."""
    event = fields(rng.randrange(1 << 40))
    if rng.random() < 0.5:
        event["tags"] = {f"k{n}": "v" * rng.randint(0, 20) for n in range(rng.randint(0, 4))}
        event["extra_units"] = {f"u{n}": rng.uniform(0, 9) for n in range(rng.randint(0, 3))}
    return rng.choice((avro, avro, avro, confluent, as_json, cloudevent))(event)


def batches(seed: int, inputs: int) -> Iterator[list[bytes | None]]:
    """Yield batches, `inputs` values in all: most of them mixed, some of one kind, as one producer gone wrong sends."""
    rng = random.Random(f"fuzz-{seed}")
    left = inputs
    while left > 0:
        size = min(left, rng.choice((1, 2, 5, 30, 200, 1_000)))
        left -= size
        share = rng.choice((0.01, 0.3, 1.0))
        yield [value(rng) if rng.random() < share else good(rng) for _ in range(size)]


def value(rng: random.Random) -> bytes | None:
    """Return one bad value; now and then a damaged one is sound all the same."""
    kind = rng.random()
    if kind < 0.02:
        return rng.choice((None, b"", b" ", b"\n"))
    if kind < 0.15:
        return rng.choice(_FRAMES) + rng.randbytes(rng.randint(0, MAX_NOISE))
    if kind < 0.25:
        return json.dumps(_wild(rng)).encode()
    if kind < 0.35:
        return _lying_counts(rng)
    data = bytearray(good(rng))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        _damage(data, rng)
    return bytes(data)


def _damage(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(7)
    if kind == 0 and data:
        data[min(at, len(data) - 1)] = rng.choice((*_ODD_BYTES, rng.randrange(256)))
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data += rng.randbytes(rng.randint(1, 40))
    elif kind == 3:
        data[at:at] = rng.choice(_VARINTS)
    elif kind == 4:
        data[at:at] = rng.choice(_SNIPPETS)
    elif kind == 5:
        del data[at : at + rng.randint(1, 30)]
    else:
        data[at:at] = data[rng.randrange(len(data) + 1) :][:200]


def _lying_counts(rng: random.Random) -> bytes:
    """Return an Avro event whose last map says that it holds far more than there is, also in zero bytes a piece."""
    body = codec.encode_body(fields(rng.randrange(1 << 40)))
    end = rng.choice(
        (b"\x80\x80\x80\x80\x10", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x01\xff\xff\xff\x7f", b"\xff\x7f")
    )
    return codec.SINGLE_OBJECT_HEADER + body[:-1] + end + rng.choice((b"", b"\x00" * rng.randint(1, 2_000)))


def _wild(rng: random.Random) -> Any:
    event: dict[str, Any] = fields(rng.randrange(1 << 40))
    for name in rng.sample(sorted(event), rng.randint(1, 4)):
        if rng.random() < 0.2:
            del event[name]
        else:
            event[name] = rng.choice(
                (None, True, -1, 1 << 64, 1e308, "", "7", [], {}, {"a": {"b": [1]}}, "x" * 70_000, "\x00")
            )
    if rng.random() < 0.1:
        event["".join(rng.choices("abc_", k=5))] = 1
    return event
