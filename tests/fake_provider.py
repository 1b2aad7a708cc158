"""A real HTTP server that answers like OpenAI, Anthropic, Gemini and Ollama; the model's name says how it behaves.

`mute` leaves usage out, `gzip` compresses, `quota` and `busy` refuse with 429, `broken` fails with 500, `flaky` once,
`late` waits for the test before it answers, `stuck` stops in the middle of a stream until the caller goes, `cut` drops
the connection there, `absent` is no model, `echo` repeats a key that it refuses, `moved` redirects, `tool` calls the
first tool that it is given.
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests import answers as shapes

ERRORS = {
    "quota": (
        429,
        {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"},
    ),
    "busy": (429, {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}),
    "broken": (500, {"message": "oops", "type": "server_error", "code": None}),
    "absent": (404, {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}),
}
OLLAMA = {
    "created_at": "2026-11-22T10:00:00Z",
    "message": {"role": "assistant", "content": "hi there"},
    "done": True,
    "done_reason": "stop",
    "total_duration": 5,
    "prompt_eval_count": 26,
    "eval_count": 8,
}


class FakeServer(ThreadingHTTPServer):
    """`asked` holds (path, headers, body) of each request that arrived."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.go_on = threading.Event()
        self.flaked = False
        self.down = False
        """Whether connections are dropped without an answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_GET(self) -> None:
        if "/responses/" in self.path:
            status = "completed" if self.server.go_on.is_set() else "in_progress"
            usage = shapes.RESPONSE["usage"] if status == "completed" else None
            answer = {**shapes.RESPONSE, "status": status, "usage": usage}
            self._send(200, json.dumps(answer).encode(), "application/json")
            return
        self._send(200, b'{"object": "list", "data": []}', "application/json")

    def do_POST(self) -> None:
        if self.server.down:
            self.close_connection = True
            return
        data = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(data) if "json" in self.headers.get("content-type", "") else {}
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        model = str(body.get("model", ""))
        if model == "flaky" and not self.server.flaked:
            self.server.flaked, model = True, "broken"
        if model == "moved":
            self.send_response(307)
            self.send_header("location", "http://127.0.0.1:9/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        if model == "echo":
            said = f"Incorrect API key provided: {self.headers.get('authorization', '').removeprefix('Bearer ')}"
            self._send(401, json.dumps({"error": {"message": said}}).encode(), "application/json")
            return
        if model in ERRORS:
            status, error = ERRORS[model]
            self._send(status, json.dumps({"error": error}).encode(), "application/json")
            return
        if model == "late":
            self.server.go_on.wait(10)
        self._answer(model, body, *self._shape(model, body))

    def _shape(self, model: str, body: dict[str, Any]) -> tuple[Any, list[Any], bool]:
        """Return the plain answer, the chunks of a streamed one, and whether chunks are named events."""
        path = self.path.partition("?")[0]
        if path.endswith("/chat/completions"):
            usage = None if model == "mute" else shapes.CHAT_USAGE
            message = {"role": "assistant", "content": "hi" * 20}
            plain = {**shapes.chat_chunk(), "object": "chat.completion", "usage": usage, "model": model}
            if model == "tool":
                called = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Bern"}'}
                message |= {"content": None, "tool_calls": [{"id": "c1", "type": "function", "function": called}]}
            plain["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
            wanted = (body.get("stream_options") or {}).get("include_usage")
            chunks = [{**chunk, "model": model} for chunk in shapes.CHAT_STREAM[: 3 if wanted else 2]]
            return plain, chunks, False
        if path.endswith("/responses") and body.get("background"):
            return {**shapes.RESPONSE, "model": model, "status": "queued", "usage": None}, [], True
        if path.endswith("/responses"):
            return shapes.RESPONSE, shapes.RESPONSE_STREAM, True
        if path.endswith("/embeddings"):
            row = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
            usage = {"prompt_tokens": 20, "total_tokens": 20}
            return {"object": "list", "model": model, "data": [row], "usage": usage}, [], False
        if path.endswith("/messages"):
            return {**shapes.MESSAGE, "model": model}, shapes.MESSAGE_STREAM, True
        if path.endswith("/api/chat"):
            return {"model": model, **OLLAMA}, [], False
        if path.endswith("/audio/transcriptions"):
            usage = {"type": "duration", "seconds": 12}
            return {"text": "hello", "usage": usage}, [], False
        named = {"modelVersion": "gemini-2.5-flash", "responseId": "r1", "usageMetadata": shapes.GEMINI_USAGE}
        return {**shapes.CONTENT, **named}, shapes.GEMINI_STREAM, False

    def _answer(self, model: str, body: dict[str, Any], plain: Any, chunks: list[Any], named: bool) -> None:
        if not body.get("stream") and "streamGenerate" not in self.path:
            self._send(200, json.dumps(plain).encode(), "application/json", compress=model == "gzip")
            return
        events = [(f"event: {chunk['type']}\n" if named else "") + f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        if "/chat/completions" in self.path:
            events.append("data: [DONE]\n\n")
        if model in ("stuck", "cut"):
            self._part(events[0].encode(), wait=model == "stuck")
            return
        self._send(200, "".join(events).encode(), "text/event-stream", compress=model == "gzip")

    def _part(self, data: bytes, *, wait: bool) -> None:
        """Send the beginning of a longer body."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data) + 1000))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
        if wait:
            self.server.go_on.wait(10)
        self.close_connection = True

    def _send(self, status: int, body: bytes, kind: str, *, compress: bool = False) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("x-request-id", "req_of_the_provider")
        if compress and "gzip" in self.headers.get("accept-encoding", ""):
            body = gzip.compress(body)
            self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the caller has gone
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving() -> Iterator[FakeServer]:
    """Run a server for the length of a test."""
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
