"""Amazon's event stream as botocore reads it, and what cannot be one."""

from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from tests.laws.test_response import CONVERSE, frame
from tollmeter.producers.http.frames import take_frames
from tollmeter.producers.http.response import Reader, readable

STREAM = "application/vnd.amazon.eventstream"


def test_botocore_reads_the_same_frames() -> None:
    data = b"".join(frame(kind, payload) for kind, payload in CONVERSE)
    theirs = EventStreamBuffer()
    theirs.add_data(data)
    kept = bytearray(data + data[:10])
    ours = list(take_frames(kept))
    assert ours == CONVERSE
    assert [message.headers[":event-type"] for message in theirs] == [kind for kind, _ in ours]
    assert bytes(kept) == data[:10]


def test_an_exception_in_the_stream_is_a_failure() -> None:
    reader = Reader(STREAM)
    reader.feed(frame("messageStart", {"role": "assistant"}))
    reader.feed(frame("throttlingException", {"message": "slow down"}, ":exception-type"))
    reader.finish()
    assert (reader.failed, reader.ended, reader.problem) == (True, False, "")


@pytest.mark.parametrize(
    "data",
    [b"{" * 40, bytes(40), (15).to_bytes(4) + bytes(30), (100).to_bytes(4) + (90).to_bytes(4) + bytes(100)],
    ids=["text", "nothing", "too short", "headers beyond the frame"],
)
def test_what_is_no_frame_is_said_so(data: bytes) -> None:
    reader = Reader(STREAM)
    reader.feed(data)
    reader.finish()
    assert reader.problem == "ValueError"


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip, deflate, br, zstd", "gzip, deflate"),
        ("br", "identity"),
        ("*", "gzip, deflate"),
        ("deflate;q=0.5, gzip;q=1.0", "deflate, gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.0", "identity"),
        ("GZIP", "gzip"),
        ("identity", "identity"),
    ],
)
def test_what_caller_and_meter_can_both_read(accepted: Any, sent: str) -> None:
    assert readable(accepted) == sent
