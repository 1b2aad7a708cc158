"""Answers that were read below the meter, or that nobody reads to their end, are events all the same: once each."""

import asyncio
import gc
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.client.spool import waiting
from tollmeter.producers.http.metered import metered

CHUNK: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "model": "gpt-4o"}
CHUNKS = [
    CHUNK | {"choices": [{"index": 0, "delta": {"content": "hello world " * 20}}], "usage": None},
    CHUNK | {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}},
]
STREAM = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in CHUNKS) + b"data: [DONE]\n\n"
FIRST = STREAM.partition(b"\n\n")[0] + b"\n\n"
ANSWER = json.dumps(CHUNKS[1] | {"object": "chat.completion", "choices": []}).encode()
URL = "https://api.openai.com/v1/chat/completions"
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
SSE = {"content-type": "text/event-stream"}
READ = ("OK", "PROVIDER", 100, 50)
CUT = ("CANCELLED", "ESTIMATED", 60)
"""240 characters had come: 60 tokens of output."""


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in two pieces, as from a network."""

    def __iter__(self) -> Iterator[bytes]:
        yield FIRST
        yield STREAM[len(FIRST) :]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def told(producer: UsageProducer) -> list[tuple[object, ...]]:
    counts = [(e.status, e.usage_source, e.input_tokens, e.output_tokens) for e in producer.events]
    return [one if one == READ else (one[0], one[1], one[3]) for one in counts]


@pytest.mark.parametrize(
    ("stream", "content", "headers"),
    [
        (True, STREAM, SSE),
        (True, gzip.compress(STREAM), {**SSE, "content-encoding": "gzip"}),
        (False, ANSWER, {"content-type": "application/json"}),
        (False, gzip.compress(ANSWER), {"content-type": "application/json", "content-encoding": "gzip"}),
    ],
    ids=["stream", "packed stream", "whole", "packed whole"],
)
def test_an_answer_that_a_lower_transport_has_read_is_an_event(
    stream: bool, content: bytes, headers: dict[str, str]
) -> None:
    """A cache, or httpx' own MockTransport."""
    below = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=content))
    with UsageProducer(mode="memory", service="shop") as producer:
        with metered(httpx.Client(transport=below), producer=producer) as client:
            answer = client.post(URL, json={**ASK, "stream": stream})
            assert answer.content == (STREAM if stream else ANSWER)
            assert answer.headers["x-tollmeter-input-tokens"] == "100"
            with client.stream("POST", URL, json={**ASK, "stream": stream}) as again:
                assert b"".join(again.iter_bytes()) == (STREAM if stream else ANSWER)

        async def call() -> None:
            inner = httpx.AsyncClient(transport=below)
            async with metered(inner, producer=producer) as client:
                assert (await client.post(URL, json={**ASK, "stream": stream})).content

        asyncio.run(call())
        assert told(producer) == [READ] * 3


def streaming() -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(200, headers=SSE, stream=Pieces()))


def begun(client: httpx.Client) -> httpx.Response:
    """Return an answer of which the first piece was read."""
    answer = client.send(client.build_request("POST", URL, json={**ASK, "stream": True}), stream=True)
    pieces = answer.iter_raw()
    assert next(pieces) == FIRST
    answer.extensions["kept"] = pieces
    return answer


def test_an_answer_that_nobody_has_any_more_is_an_event_with_the_next_call() -> None:
    with UsageProducer(mode="memory", service="shop") as producer:
        client = metered(httpx.Client(transport=streaming()), producer=producer)
        answer = begun(client)
        assert told(producer) == []
        del answer
        gc.collect()
        client.post(URL, json={**ASK, "stream": True})
        assert told(producer) == [CUT, READ]
        client.close()
        assert told(producer) == [CUT, READ], "each once"


def test_what_is_still_held_when_the_client_closes_is_an_event() -> None:
    with UsageProducer(mode="memory", service="shop") as producer:
        client = metered(httpx.Client(transport=streaming()), producer=producer)
        kept = [begun(client), begun(client)]
        client.close()
        assert told(producer) == [CUT, CUT]
        for answer in kept:
            answer.close()
        assert told(producer) == [CUT, CUT], "each once"


def test_the_same_for_async_clients() -> None:
    async def call(producer: UsageProducer) -> None:
        client = metered(httpx.AsyncClient(transport=streaming()), producer=producer)
        for _ in range(2):
            request = client.build_request("POST", URL, json={**ASK, "stream": True})
            answer = await client.send(request, stream=True)
            pieces = answer.aiter_raw()
            assert await anext(pieces) == FIRST
        del answer, pieces
        gc.collect()
        await client.aclose()

    with UsageProducer(mode="memory", service="shop") as producer:
        asyncio.run(call(producer))
        assert told(producer) == [CUT, CUT]


PROCESS = """
import os, sys, httpx
from tests.contracts import test_unfinished_answers as here
from tollmeter import UsageProducer
from tollmeter.producers.http.metered import metered

producer = UsageProducer("127.0.0.1:1", service="s", spool_dir={folder!r})
client = metered(httpx.Client(transport=here.streaming()), producer=producer)
kept = [here.begun(client), here.begun(client)]
pid = os.fork() if {fork} else 1
if pid == 0:
    sys.exit(0)
if {fork}:
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("fork", [False, True])
def test_a_process_that_ends_records_what_it_began_and_its_children_do_not(tmp_path: Path, fork: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(folder=str(tmp_path), fork=fork)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert sum(waiting(tmp_path).values()) == 2
