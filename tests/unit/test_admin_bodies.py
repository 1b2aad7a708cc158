"""What changes a limit is JSON that means one thing: no number without end, no member twice."""

import asyncio

import pytest
from starlette.requests import Request

from tollmeter.server.bodies import document_of
from tollmeter.server.problems import Problem


def read(body: bytes) -> dict[str, object]:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "PUT", "headers": [], "path": "/", "query_string": b""}
    return asyncio.run(document_of(Request(scope, receive)))


@pytest.mark.parametrize("limit", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_limit_without_end_is_no_limit(limit: str) -> None:
    for body in (f'{{"limit": {limit}}}', f'{{"limits": [{{"usd": {limit}}}]}}'):
        with pytest.raises(Problem, match="no JSON"):
            read(body.encode())


def test_of_two_limits_none_is_chosen() -> None:
    for body in (b'{"daily": 1, "daily": 1000}', b'{"a": {"b": 1, "b": 1}}'):
        with pytest.raises(Problem, match="said twice"):
            read(body)


def test_a_plain_body_is_read() -> None:
    assert read(b'{"a": 1.5, "b": {"a": [1e3]}}') == {"a": 1.5, "b": {"a": [1000.0]}}
    assert read(b"") == {}
