"""Answers that are more, or less, than one priced event, through a metered client against a local server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.unit.test_golden_payloads import cases
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.http.metered import metered
from tollmeter.schemas.event import UsageEvent


class Server(ThreadingHTTPServer):
    """Gives the same answer to every call."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.body, self.kind, self.headers = b"", "application/json", {}


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        for name, value in {**self.server.headers, "Content-Type": self.server.kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def call(
    server: Server, path: str, asked: dict[str, Any], answer: Any, kind: str = "", **headers: str
) -> list[UsageEvent]:
    """Return the events of one call."""
    server.body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    server.kind, server.headers = kind or "application/json", headers
    with UsageProducer(mode="memory", service="shop") as producer, httpx.Client() as inner:
        client = metered(inner, producer=producer)
        client.post(f"http://127.0.0.1:{server.server_port}{path}", json=asked).read()
        return list(producer.events)


def test_speech_is_billed_by_its_characters(server: Server) -> None:
    asked = {"model": "tts-1", "input": "x" * 900, "instructions": "slowly", "voice": "alloy"}
    (event,) = call(server, "/v1/audio/speech", asked, b"\x00sound", "audio/mpeg")
    assert (event.operation, event.usage_source) == ("speech", "PROVIDER")
    assert event.extra_units == {"input_characters": 900}


def test_speech_by_tokens_is_estimated_by_its_length(server: Server) -> None:
    asked = {"model": "gpt-4o-mini-tts", "input": "x" * 900, "voice": "alloy"}
    (event,) = call(server, "/v1/audio/speech", asked, b"\x00sound", "audio/mpeg")
    assert (event.usage_source, event.input_tokens, event.output_tokens) == ("ESTIMATED", 225, 1250)


def test_images_have_the_quality_and_size_that_were_asked_for(server: Server) -> None:
    asked = {"model": "dall-e-3", "prompt": "p", "quality": "hd", "size": "1792x1024"}
    (event,) = call(server, "/v1/images/generations", asked, {"created": 1, "data": [{"url": "u"}]})
    assert event.extra_units == {"images": 1, "images_hd_large": 1}
    (event,) = call(server, "/v1/images/generations", asked | {"quality": None, "size": None}, {"data": [{"url": "u"}]})
    assert event.extra_units == {"images": 1}  # what is not asked for is the ordinary quality and size


def test_text_generation_inference(server: Server) -> None:
    answer = {"generated_text": "x", "details": {"finish_reason": "length", "generated_tokens": 20}}
    (event,) = call(server, "/generate", {"inputs": "hello"}, answer)
    assert (event.provider, event.output_tokens, event.usage_source) == ("huggingface", 20, "PROVIDER")


def test_counted_tokens_are_no_event(server: Server) -> None:
    answer = {"object": "response.input_tokens", "input_tokens": 11}
    assert call(server, "/v1/responses/input_tokens", {"model": "gpt-5", "input": "x"}, answer) == []


def test_an_advisor_is_an_event_of_its_own(server: Server) -> None:
    chunks = cases()["anthropic: an advisor in a stream"]["stream"]
    stream = "".join(f"event: {chunk['type']}\ndata: {json.dumps(chunk)}\n\n" for chunk in chunks).encode()
    asked = {"model": "claude-sonnet-4-6", "stream": True, "messages": []}
    events = call(server, "/v1/messages", asked, stream, "text/event-stream")
    assert [event.model_used for event in events] == ["claude-sonnet-4-6", "claude-opus-4-7"]
    assert {event.status for event in events} == {"OK"}
    assert len({event.event_id for event in events}) == 2
    assert len({event.request_id for event in events}) == 1


def test_the_tier_may_stand_in_the_headers_alone(server: Server) -> None:
    answer = {"modelVersion": "gemini-3-flash-preview", "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5}}
    headers = {"x-gemini-service-tier": "priority"}
    (event,) = call(
        server, "/v1beta/models/gemini-3-flash-preview:generateContent", {"contents": []}, answer, **headers
    )
    assert event.service_tier == "priority"


def test_a_count_that_is_none_is_estimated_and_flagged(server: Server) -> None:
    answer = {"model": "gpt-4o", "choices": [{"message": {"content": "x" * 40}}], "usage": {"prompt_tokens": "many"}}
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x" * 400}]}
    (event,) = call(server, "/v1/chat/completions", asked, answer)
    assert (event.usage_source, event.input_tokens, event.output_tokens) == ("ESTIMATED", 100, 10)
    assert event.tags == {"usage_problem": "prompt_tokens: text"}
