"""Records that PRICE must dead-letter, one of each kind in turn; their neighbours must not notice."""

import json
import random
from collections.abc import Iterator
from typing import Any

from tollmeter.schemas.codec import SINGLE_OBJECT_HEADER, encode_body

KINDS = (
    "random bytes",
    "truncated",
    "trailing bytes",
    "unknown fingerprint",
    "empty",
    "cached above input",
    "negative count",
    "broken JSON",
    "not UTF-8",
    "JSON without id",
)


def poison(good: bytes, fields: dict[str, Any], rng: random.Random) -> Iterator[bytes]:
    """Yield bad records without end; `good` is a well-formed record, `fields` its wire fields."""
    text = json.dumps(fields).encode()
    while True:
        yield rng.randbytes(rng.randint(5, 200))
        yield good[: rng.randint(11, len(good) - 1)]
        yield good + rng.randbytes(rng.randint(1, 9))
        yield SINGLE_OBJECT_HEADER[:2] + rng.randbytes(8) + good[10:]
        yield b""
        yield SINGLE_OBJECT_HEADER + encode_body({**fields, "input_tokens": 10, "cache_read_tokens": 999})
        yield SINGLE_OBJECT_HEADER + encode_body({**fields, "output_tokens": -1 - rng.randint(0, 99)})
        yield text[: len(text) // 2]
        yield b'{"event_id":"\xff\xfe"}'
        yield json.dumps({**fields, "event_id": None}).encode()
