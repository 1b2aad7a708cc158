"""However the bytes of an answer are cut, compressed or ended, what is read of it is the same."""

import base64
import gzip
import json
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import answers as shapes
from tests.effort import examples
from tollmeter.producers.extract.families import read_usage
from tollmeter.producers.http.response import Reader

CHAT = [*shapes.CHAT_STREAM]
OLLAMA: list[dict[str, Any]] = [
    {"model": "llama3.2", "message": {"role": "assistant", "content": "hi "}, "done": False},
    {
        "model": "llama3.2",
        "message": {"role": "assistant", "content": "there"},
        "done": True,
        "prompt_eval_count": 26,
        "eval_count": 8,
    },
]


def events(chunks: list[Any], end: str = "\n") -> bytes:
    named = (f"event: {chunk.get('type', 'x')}{end}data: {json.dumps(chunk)}{end}{end}" for chunk in chunks)
    return "".join(named).encode()


CONVERSE = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hi"}}),
    ("messageStop", {"stopReason": "end_turn"}),
    ("metadata", {"usage": {"inputTokens": 90, "outputTokens": 8, "cacheReadInputTokens": 10}}),
]


def frame(kind: str, payload: Any, named: str = ":event-type") -> bytes:
    """Return a frame of Amazon's event stream; `tests/unit/test_frames.py` shows botocore reading them."""
    pairs = ((named, kind), (":content-type", "application/json"))
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + len(value).to_bytes(2) + value.encode() for name, value in pairs
    )
    body = json.dumps(payload).encode()
    prelude = (16 + len(headers) + len(body)).to_bytes(4) + len(headers).to_bytes(4)
    whole = prelude + zlib.crc32(prelude).to_bytes(4) + headers + body
    return whole + zlib.crc32(whole).to_bytes(4)


def invoked(chunks: list[Any]) -> bytes:
    """Return a vendor's chunks as InvokeModelWithResponseStream packs them."""
    return b"".join(
        frame("chunk", {"bytes": base64.b64encode(json.dumps(chunk).encode()).decode(), "p": "abc"}) for chunk in chunks
    )


BODIES = {
    "converse": (
        "application/vnd.amazon.eventstream",
        b"".join(frame(kind, payload) for kind, payload in CONVERSE),
        (100, 8),
        2,
    ),
    "invoke": ("application/vnd.amazon.eventstream", invoked(shapes.MESSAGE_STREAM), (2600, 70), 2),
    "chat": ("text/event-stream", events(CHAT) + b"data: [DONE]\n\n", (1000, 300), 2),
    "chat, CRLF": ("text/event-stream; charset=utf-8", events(CHAT, "\r\n"), (1000, 300), 2),
    "responses": ("text/event-stream", events(shapes.RESPONSE_STREAM), (900, 80), 2),
    "anthropic": ("text/event-stream", events(shapes.MESSAGE_STREAM), (2600, 70), 2),
    "gemini, events": ("text/event-stream", events(shapes.GEMINI_STREAM), (1000, 500), 4),
    "gemini, array": ("application/json", json.dumps(shapes.GEMINI_STREAM).encode(), (1000, 500), 4),
    "ollama": ("application/x-ndjson", "".join(json.dumps(one) + "\n" for one in OLLAMA).encode(), (26, 8), 8),
    "plain": ("application/json", json.dumps(shapes.MESSAGE, indent=1).encode(), (2600, 70), 2),
}


def read(kind: str, data: bytes, cuts: list[int], encoding: str = "") -> Reader:
    reader = Reader(kind, encoding)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        reader.feed(data[start:end])
    reader.finish()
    return reader


@settings(max_examples=examples(25), deadline=None)
@pytest.mark.parametrize("name", BODIES)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30), encoding=st.sampled_from(["", "gzip", "deflate"]))
def test_any_cut_reads_the_same(name: str, cuts: list[int], encoding: str) -> None:
    kind, data, counts, chars = BODIES[name]
    packed = {"": data, "gzip": gzip.compress(data), "deflate": zlib.compress(data)}[encoding]
    reader = read(kind, packed, cuts, encoding)
    usage = read_usage(reader.body)
    assert (usage.input_tokens, usage.output_tokens) == counts
    assert (reader.chars, reader.ended, reader.problem) == (chars, True, "")


@settings(max_examples=examples(60), deadline=None)
@given(
    data=st.binary(max_size=300),
    kind=st.sampled_from(["application/json", "text/event-stream", "audio/mpeg", ""]),
    encoding=st.sampled_from(["", "gzip", "br"]),
    cuts=st.lists(st.integers(0, 300), max_size=5),
)
def test_any_bytes_are_survived(data: bytes, kind: str, encoding: str, cuts: list[int]) -> None:
    reader = read(kind, data, cuts, encoding)
    assert read_usage(reader.body).input_tokens == 0
    assert reader.chars == 0


@settings(max_examples=examples(40), deadline=None)
@given(end=st.integers(0, 2_000))
def test_a_stream_that_breaks_off_has_not_ended(end: int) -> None:
    """Until the last of what the provider states has come, nothing is taken for whole."""
    _, data, _, _ = BODIES["anthropic"]
    last = data.rindex(b'data: {"type": "message_stop"}') + len(b'data: {"type": "message_stop"}')
    end = min(end, len(data))
    reader = read("text/event-stream", data[:end], [end // 2])
    assert reader.ended == (end >= last)


def test_an_error_within_a_stream() -> None:
    data = events(CHAT[:1]) + b'data: {"error": {"message": "overloaded", "code": "server_error"}}\n\n'
    reader = read("text/event-stream", data, [])
    assert (reader.failed, reader.ended) == (True, False)


def test_a_huge_line_is_given_up() -> None:
    reader = Reader("text/event-stream")
    for _ in range(5):
        reader.feed(b"x" * (1 << 20))
    reader.feed(b'\ndata: {"usage": {"prompt_tokens": 5, "completion_tokens": 5}}\n')
    reader.finish()
    assert (reader.problem, reader.body) == ("too large", {})
