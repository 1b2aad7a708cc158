"""What a request asks for: by path and body, of every provider; what is no call to a model is none."""

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from tollmeter.producers.http import estimates
from tollmeter.producers.http.request import Asked, read_request, worth_reading
from tollmeter.schemas.event import MAX_TOKENS

JSON = "application/json"
HELLO = [{"role": "user", "content": "hello"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}


def read(path: str, body: Any) -> Asked | None:
    return read_request(path, JSON, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/chat/completions", {"model": "gpt-4o", "messages": HELLO}, Asked("chat", "gpt-4o", False, 5)),
        (
            "/v1/chat/completions",
            {"model": "m", "messages": HELLO, "stream": True, "max_completion_tokens": 7, "n": 3},
            Asked("chat", "m", True, 5, 21),
        ),
        (
            "/v1/chat/completions",
            {"model": "m", "messages": [{"content": [{"type": "text", "text": "four"}, PICTURE]}]},
            Asked("chat", "m", False, 4),
        ),
        (
            "/v1/responses",
            {"model": "gpt-5", "input": "hi", "instructions": "be brief", "max_output_tokens": 9},
            Asked("responses", "gpt-5", False, 10, 9),
        ),
        ("/v1/embeddings", {"model": "e", "input": ["ab", "cde"]}, Asked("embeddings", "e", False, 5)),
        (
            "/v1/images/generations",
            {"model": "dall-e-3", "prompt": "a cat", "n": 2},
            Asked("image", "dall-e-3", False, 5),
        ),
        (
            "/v1/messages",
            {"model": "claude", "max_tokens": 9, "system": "abc", "messages": HELLO},
            Asked("chat", "claude", False, 8, 9, "anthropic"),
        ),
        (
            "/v1beta/models/gemini-2.5-flash:generateContent",
            {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 4}},
            Asked("chat", "gemini-2.5-flash", False, 5, 4, "google"),
        ),
        (
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
            {"contents": []},
            Asked("chat", "gemini-2.5-flash", True, 0, None, "google"),
        ),
        (
            "/api/chat",
            {"model": "llama3.2", "messages": HELLO, "options": {"num_predict": 3}},
            Asked("chat", "llama3.2", True, 5, 3, "ollama"),
        ),
        (
            "/api/chat",
            {"model": "llama3.2", "messages": HELLO, "stream": False},
            Asked("chat", "llama3.2", False, 5, None, "ollama"),
        ),
        ("/openai/deployments/MyGpt/chat/completions", {"messages": HELLO}, Asked("chat", "MyGpt", False, 5)),
        (
            "/model/anthropic.claude-v2/converse",
            {"messages": [{"content": [{"text": "hello"}]}]},
            Asked("chat", "anthropic.claude-v2", False, 5, None, "aws"),
        ),
        ("/v2/something/new", {"model": "m", "prompt": "abc"}, Asked("chat", "m", False, 3)),
        ("/v1/chat/completions", {"model": "m", "messages": HELLO, "tools": [{"a": 1}]}, Asked("chat", "m", False, 14)),
        (
            "/v1/chat/completions",
            {"model": 5, "messages": HELLO, "max_tokens": -1},
            Asked("chat", "", False, 5, MAX_TOKENS),
        ),
        ("/hook", {"text": "no model"}, None),
        ("/v1/chat/completions", ["a list"], Asked("chat", "")),
    ],
)
def test_what_is_asked(path: str, body: Any, expected: Asked | None) -> None:
    found = read(path, body)
    assert (None if found is None else replace(found, weight=0, answers=1)) == expected


def test_an_upload_names_its_model_in_the_form() -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b\r\nContent-Disposition: form-data'
    )
    kind = "multipart/form-data; boundary=b"
    assert read_request("/v1/audio/transcriptions", kind, form) == Asked("transcription", "whisper-1")
    assert read_request("/v1/files", kind, form) is None


@pytest.mark.parametrize(
    ("method", "path", "kind", "expected"),
    [
        ("POST", "/v1/chat/completions", JSON, True),
        ("POST", "/v1/audio/transcriptions", "multipart/form-data; boundary=b", True),
        ("POST", "/v1/files", "multipart/form-data; boundary=b", False),
        ("POST", "/v1/messages/count_tokens", JSON, False),
        ("POST", "/v1beta/models/m:countTokens", JSON, False),
        ("POST", "/v1/messages/batches", JSON, False),
        ("GET", "/v1/models", "", False),
        ("POST", "/anything", JSON, True),
        ("POST", "/upload", "application/octet-stream", False),
    ],
)
def test_what_is_worth_reading(method: str, path: str, kind: str, expected: bool) -> None:
    assert worth_reading(method, path, kind) is expected


def test_deep_nesting_is_survived() -> None:
    content = b"[" * 100_000
    assert read_request("/v1/chat/completions", JSON, content) == Asked("chat", "", weight=MAX_TOKENS)
    deep = b"[" * 500 + b'"' + b"x" * 4_000 + b'"' + b"]" * 500
    found = read_request("/v1/chat/completions", JSON, b'{"model": "m", "messages": ' + deep + b"}")
    assert found is not None
    assert found.weight >= 1_000


@pytest.mark.parametrize(
    ("fields", "limit", "answers"),
    [
        ({}, None, 1),
        ({"max_tokens": 100, "max_completion_tokens": 200}, 200, 1),
        ({"max_tokens": 10_000_001}, MAX_TOKENS, 1),
        ({"max_tokens": "100000"}, 100_000, 1),
        ({"max_tokens": -5}, MAX_TOKENS, 1),
        ({"max_tokens": True}, MAX_TOKENS, 1),
        ({"max_tokens": 0}, None, 1),
        ({"n": 4}, None, 4),
        ({"max_tokens": 10, "n": 4, "best_of": 8}, 80, 8),
        ({"max_tokens": 10, "prompt": ["a", "b", "c"]}, 30, 3),
        ({"max_tokens": 10, "prompt": [1, 2, 3]}, 10, 1),
        ({"max_tokens": 10, "prompt": [[1, 2], [3]]}, 20, 2),
        ({"generationConfig": {"maxOutputTokens": 7, "candidateCount": 2}}, 14, 2),
        ({"n": "many"}, None, MAX_TOKENS),
    ],
)
def test_the_largest_limit_of_all_answers_counts(fields: dict[str, Any], limit: int | None, answers: int) -> None:
    asked = read("/v1/completions", {"model": "m", **fields})
    assert asked is not None
    assert (asked.max_output_tokens, asked.answers) == (limit, answers)


def test_a_limit_that_is_no_finite_number_is_the_most() -> None:
    asked = read_request("/v1/chat/completions", JSON, b'{"model": "m", "max_tokens": 1e400}')
    assert asked is not None
    assert asked.max_output_tokens == MAX_TOKENS


@pytest.mark.parametrize(
    ("message", "least"),
    [
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x" * 2_000_000}}]}, 500_000),
        ({"content": [{"type": "tool_use", "input": {"deep": {"er": "x" * 4_000}}}]}, 1_000),
        ({"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}]}, 1_600),
        ({"content": [{"type": "image", "source": {"type": "base64", "data": "A" * 100_000}}]}, 1_600),
        ({"parts": [{"inlineData": {"mimeType": "image/png", "data": "A" * 100_000}}]}, 1_600),
        ({"content": [{"type": "document", "source": {"type": "base64", "data": "A" * 4_000_000}}]}, 100_000),
        ({"content": [{"type": "file", "file": {"file_id": "file-1"}}]}, 3_000),
        ({"content": [{"type": "input_audio", "input_audio": {"data": "A" * 100_000}}]}, 3_000),
    ],
)
def test_what_is_no_plain_text_weighs_too(message: dict[str, Any], least: int) -> None:
    asked = read("/v1/chat/completions", {"model": "m", "messages": [message]})
    assert asked is not None
    assert asked.weight >= least


def test_a_packed_body_is_read_and_a_bomb_is_the_worst_case() -> None:
    plain = json.dumps({"model": "m", "messages": [{"content": "x" * 4_000}]}).encode()
    asked = read_request("/v1/chat/completions", JSON, gzip.compress(plain), "gzip")
    assert asked is not None
    assert (asked.model, 1_000 <= asked.weight < 1_100) == ("m", True)
    bomb = read_request("/v1/chat/completions", JSON, gzip.compress(b" " * 100_000_000), "gzip")
    assert bomb is not None
    assert bomb.weight == MAX_TOKENS


@pytest.mark.parametrize(("chars", "expected"), [(0, 0), (1, 1), (4, 1), (5, 2), (10**9, 10_000_000)])
def test_tokens_of_characters(chars: int, expected: int) -> None:
    assert estimates.tokens(chars) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"choices": [{"message": {"content": "abc", "reasoning_content": "de"}}]}, 5),
        ({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}, {"delta": {"content": "x"}}]}, 3),
        ({"choices": [{"text": "abc"}]}, 3),
        ({"content": [{"type": "text", "text": "abc"}, {"type": "thinking", "thinking": "de"}]}, 5),
        ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}}, 2),
        ({"type": "response.output_text.delta", "delta": "abc"}, 3),
        ({"output": [{"content": [{"text": "abc"}]}, {"type": "function_call", "arguments": "{}"}]}, 5),
        ({"candidates": [{"content": {"parts": [{"text": "ab"}, {"text": "c"}]}}]}, 3),
        ({"message": {"content": "abc"}}, 3),
        ({"response": "abc"}, 3),
        ({"type": "response.completed", "response": {"output": [{"content": [{"text": "said before"}]}]}}, 0),
        ({"data": [{"embedding": [0.5]}]}, 0),
        ({"choices": "nonsense", "delta": 5, "message": None}, 0),
    ],
)
def test_characters_of_answers(part: Any, expected: int) -> None:
    assert estimates.reply_chars(part) == expected
