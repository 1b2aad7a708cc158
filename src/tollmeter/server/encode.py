"""The usual event becomes bytes without detours: constant pieces, and between them the values that it has.

A value that is not plainly fit (another type, too long, perhaps a secret) sends the whole event the general way, which
cleans or refuses it; a law holds that both ways give the same bytes. Ten times as fast, so a full core takes more.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import pack
from typing import Any, NamedTuple, get_args

from tollmeter.producers.client.encoding import MAX_EVENT_BYTES, build, to_bytes
from tollmeter.producers.client.queue import Entry
from tollmeter.schemas import codec, event
from tollmeter.schemas.event import (
    MAX_TAG_CHARS,
    MAX_TAGS,
    MAX_TOKENS,
    MAX_TOTAL_TOKENS,
    counter_problem,
    total_problem,
)
from tollmeter.schemas.secrets import holds_secret
from tollmeter.schemas.texts import MAX_TEXT_CHARS

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class OddError(Exception):
    """What is to be encoded goes the general way."""


Encoder = Callable[[object], bytes]


@lru_cache(maxsize=65_536)
def long(number: int) -> bytes:
    """Return a number as Avro has it: zigzag, seven bits a byte."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_LENGTHS = [long(number) for number in range(2_048)]


@lru_cache(maxsize=16_384)
def _text(value: object) -> bytes:
    if type(value) is not str or len(value) > MAX_TEXT_CHARS:
        raise OddError
    data = value.encode()
    return _LENGTHS[len(data)] + data


def _count(value: object) -> bytes:
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise OddError
    return _LENGTHS[value] if value < 2_048 else long(value)


def _optional(most: int) -> Encoder:
    @lru_cache(maxsize=16_384, typed=True)
    def encode(value: object) -> bytes:
        if type(value) is not int or not 0 <= value <= most:
            raise OddError
        return b"\x02" + long(value)

    return encode


def _word(words: tuple[str, ...]) -> Encoder:
    known = {word: long(place) for place, word in enumerate(words)}

    @lru_cache(typed=True)
    def encode(value: object) -> bytes:
        if type(value) is not str or value not in known:
            raise OddError
        return known[value]

    return encode


@lru_cache(typed=True)
def _flag(value: object) -> bytes:
    if type(value) is not bool:
        raise OddError
    return b"\x01" if value else b"\x00"


def _moment(value: object) -> bytes:
    if type(value) is not int:
        raise OddError
    return long(value)


def _event_id(value: object) -> bytes:
    if type(value) is not str or _ID.fullmatch(value) is None:
        raise OddError
    return b"H" + value.encode()  # 36 characters


def _tags(value: object) -> bytes:
    if type(value) is not dict or len(value) > MAX_TAGS:
        raise OddError
    return _pairs(tuple(value.items()))


@lru_cache(maxsize=4_096)
def _pairs(items: tuple[tuple[object, object], ...]) -> bytes:
    if not items:
        return b"\x00"
    parts = [_LENGTHS[len(items)]]
    for pair in items:
        for text in pair:
            if type(text) is not str or len(text) > MAX_TAG_CHARS:
                raise OddError
            parts.append(_text(text))
    return b"".join([*parts, b"\x00"])


def _units(value: object) -> bytes:
    if type(value) is not dict or len(value) > MAX_TAGS:
        raise OddError
    if not value:
        return b"\x00"
    parts = [_LENGTHS[len(value)]]
    for name, amount in value.items():
        if type(amount) is not float or not 0 <= amount <= 1e9:
            raise OddError
        parts += [_text(name), pack("<d", amount)]
    return b"".join([*parts, b"\x00"])


_NANO, _INT = 10**12, 2**31 - 1
COUNTERS = (
    *("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
PARTS = frozenset(COUNTERS) - {"input_tokens", "output_tokens"}
_SPECIAL: dict[str, Encoder] = {
    "event_id": _event_id,
    "occurred_at": _moment,
    "billing_scope": _word(get_args(event.BillingScope)),
    "processing": _word(get_args(event.Processing)),
    "status": _word(get_args(event.CallStatus)),
    "usage_source": _word(get_args(event.UsageSource)),
    "stream": _flag,
    "tags": _tags,
    "extra_units": _units,
    "total_tokens": _optional(MAX_TOTAL_TOKENS),
    "backfill": _flag,
    **dict.fromkeys(COUNTERS, _count),
    **dict.fromkeys(("http_status", "latency_ms", "ttft_ms", "prompt_chars"), _optional(_INT)),
    **dict.fromkeys(("est_cost_nano", "reported_cost_nano"), _optional(_NANO)),
}


_ENUMS = ("billing_scope", "processing", "status", "usage_source")
TEXTS = (*_ENUMS, *(name for name in codec.FIELDS if name not in _SPECIAL))
"""Fields that are text, without id and time."""


class Plan(NamedTuple):
    """How events with these fields are written: what comes first, then each value and the constant bytes behind it."""

    head: bytes
    steps: tuple[tuple[str, Encoder, bytes], ...]


@lru_cache(maxsize=4_096)
def plan_of(names: tuple[str, ...], constants: tuple[tuple[str, str], ...]) -> Plan:
    """Return how events with these fields are written. Raises `OddError` for a field that no event has."""
    if not set(names) <= set(codec.FIELDS):
        raise OddError
    head, steps = codec.SINGLE_OBJECT_HEADER, list[tuple[str, Encoder, bytes]]()
    for name in codec.FIELDS:
        if name in names:
            steps.append((name, _SPECIAL.get(name, _text), b""))
            continue
        default = default_of(name, constants)
        if steps:
            before = steps[-1]
            steps[-1] = (before[0], before[1], before[2] + default)
        else:
            head += default
    return Plan(head, tuple(steps))


def default_of(name: str, constants: tuple[tuple[str, str], ...]) -> bytes:
    """Return what a field that is left out is."""
    value = dict(constants).get(name, codec.DEFAULTS.get(name))
    return b"\x00" if value is None else _SPECIAL.get(name, _text)(value)


class EventEncoder:
    """Encodes events whose absent texts are `defaults`. `pepper` makes ids of secrets that are found in them."""

    def __init__(self, defaults: Mapping[str, str], pepper: str) -> None:
        self._defaults, self._pepper = dict(defaults), pepper
        self.constants = tuple(sorted(defaults.items()))

    def encode(self, fields: dict[str, Any]) -> bytes:
        """Return a whole event, with its id and its time in microseconds, as bytes. Raises `RefusedError`."""
        try:
            return self._plainly(fields)
        except (OddError, UnicodeEncodeError, TypeError):  # what cannot be hashed is no text
            event_id, at = str(fields["event_id"]), fields["occurred_at"]
            return to_bytes(build(Entry(0, event_id, at, None, fields), self._defaults, self._pepper))

    def _plainly(self, fields: dict[str, Any]) -> bytes:
        plan = plan_of(tuple(fields), self.constants)
        parts = [plan.head]
        for name, encode, behind in plan.steps:
            parts += (encode(fields[name]), behind)
        if PARTS.intersection(fields) and counter_problem(*(fields.get(name, 0) for name in COUNTERS)):
            raise OddError
        sum_ = fields.get("input_tokens", 0) + fields.get("output_tokens", 0)
        if total_problem(fields.get("total_tokens"), sum_):
            raise OddError
        if holds_secret(_texts(fields)):
            raise OddError
        data = b"".join(parts)
        if len(data) > MAX_EVENT_BYTES:
            raise OddError
        return data


def _texts(fields: dict[str, Any]) -> str:
    """Return all texts that came from outside, a line each."""
    texts = [value for name, value in fields.items() if type(value) is str and name != "event_id"]
    if "tags" in fields:
        texts += [text for pair in fields["tags"].items() for text in pair]
    if "extra_units" in fields:
        texts += fields["extra_units"]
    return "\n".join(texts)
