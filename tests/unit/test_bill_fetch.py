"""Reports are fetched page by page from a server that speaks as the providers document; what fails changes nothing."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tollmeter.admin.bills.fetch import SOURCES, fetch
from tollmeter.admin.bills.reading import parse
from tollmeter.streams.rules.bills.lines import BillError

SPAN = (date(2026, 11, 1), date(2026, 11, 5))
KEY = "sk-admin-0123456789"


class Provider:
    """Answers in the providers' shapes: two days a page; `trouble` are statuses that come first."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[tuple[str, str]], dict[str, str]]] = []
        self.trouble: list[tuple[int, dict[str, str], bytes]] = []
        self.endless = False

    def answer(self, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        named = dict(query)
        if path == "/api/v1/activity":
            row = {"date": "2026-11-01", "model": "openai/gpt-4o", "usage": 0.1234567890123456789, "requests": 2}
            return {"data": [row | {"prompt_tokens": 10, "completion_tokens": 5, "byok_usage_inference": 0}]}
        begin = {"start_time", "starting_at"} & named.keys()
        assert begin
        assert "end_time" in named or "ending_at" in named
        offset = int(named.get("page", "0"))
        data = [self.bucket(path, 1 + offset + number) for number in (0, 1)]
        more = offset < 2 or self.endless
        return {"object": "page", "data": data, "has_more": more, "next_page": "2" if more else None}

    def bucket(self, path: str, day: int) -> dict[str, Any]:
        start = datetime(2026, 11, day, tzinfo=UTC)
        end = datetime(2026, 11, day + 1, tzinfo=UTC)
        if path.startswith("/v1/organizations"):
            times = {"starting_at": f"{start:%Y-%m-%dT%H:%M:%SZ}", "ending_at": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
            return {**times, "results": [_anthropic(path)]}
        times_ = {"start_time": int(start.timestamp()), "end_time": int(end.timestamp())}
        return {"object": "bucket", **times_, "results": [_openai(path)]}


def _openai(path: str) -> dict[str, Any]:
    if path.endswith("costs"):
        amount = {"value": 0.06, "currency": "usd"}
        return {"object": "organization.costs.result", "amount": amount, "line_item": "gpt-4o, input"}
    counts = {"input_tokens": 100, "input_cached_tokens": 40, "output_tokens": 7, "num_model_requests": 3}
    return {"object": "organization.usage.completions.result", **counts, "api_key_id": "key_1", "model": "gpt-4o"}


def _anthropic(path: str) -> dict[str, Any]:
    if path.endswith("cost_report"):
        cost = {"amount": "123.45", "currency": "USD", "cost_type": "tokens", "token_type": "output_tokens"}
        return {**cost, "model": "claude-sonnet-4-5", "workspace_id": None}
    return {
        "uncached_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3},
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "server_tool_use": {"web_search_requests": 1},
        "api_key_id": "apikey_1",
        "model": "claude-sonnet-4-5",
    }


@contextmanager
def serving(provider: Provider) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            provider.asked.append(
                (url.path, parse_qsl(url.query), {name.lower(): value for name, value in self.headers.items()})
            )
            status, headers, body = 200, {}, b""
            if provider.trouble:
                status, headers, body = provider.trouble.pop(0)
            else:
                body = json.dumps(provider.answer(url.path, parse_qsl(url.query))).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def bills(name: str, provider: Provider, waits: list[float] | None = None) -> list[Any]:
    with serving(provider) as address:
        pages = fetch(SOURCES[name], KEY, *SPAN, address, (waits if waits is not None else []).append)
        return [parse(one) for one in pages]


def test_openai() -> None:
    provider = Provider()
    usage, costs = bills("openai", provider)
    assert (usage.source, costs.source) == ("openai.usage.completions", "openai.costs")
    assert list(usage.days) == [date(2026, 11, day) for day in (1, 2, 3, 4)]
    assert sum(line.quantity for line in usage.lines if line.meter in ("input", "cache_read")) == 400
    assert sum(line.amount for line in costs.lines) == Decimal("0.24")
    assert [path for path, _, _ in provider.asked] == ["/v1/organization/usage/completions"] * 2 + [
        "/v1/organization/costs"
    ] * 2
    assert {headers["authorization"] for _, _, headers in provider.asked} == {f"Bearer {KEY}"}
    assert ("group_by[]", "api_key_id") in provider.asked[0][1]
    assert ("page", "2") in provider.asked[1][1]


def test_anthropic() -> None:
    provider = Provider()
    usage, costs = bills("anthropic", provider)
    assert sum(line.amount for line in costs.lines) == Decimal("4.938"), "cents"
    assert [line.quantity for line in usage.lines if line.day.day == 1 and line.meter != "other"] == [10, 4, 5, 5]
    assert {headers["x-api-key"] for _, _, headers in provider.asked} == {KEY}


def test_openrouter() -> None:
    (bill,) = bills("openrouter", Provider())
    assert [line.amount for line in bill.lines if line.amount is not None] == [Decimal("0.12345678901234568")]


def test_trouble_passes() -> None:
    provider, waits = Provider(), list[float]()
    provider.trouble = [(429, {"Retry-After": "7"}, b""), (503, {}, b""), (500, {}, b"oops")]
    assert len(bills("openai", provider, waits)) == 2
    assert 7 <= waits[0] <= 9
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ([(401, {}, b'{"error": {"message": "Incorrect key"}}')], "401 Incorrect key: an admin"),
        ([(302, {"Location": "http://127.0.0.1:9/"}, b"")], "redirects are not followed"),
        ([(200, {}, b'{"error": {"message": "no access"}}')], "no bill: no access"),
        ([(200, {}, b'{"object": "page", "data": [')], "breaks off"),
        ([(200, {}, b'{"data": [], "has_more": true, "next_page": null}')], "does not say where"),
        ([(429, {"Retry-After": "1"}, b"")] * 6, "6 times"),
    ],
)
def test_what_is_no_report(trouble: list[Any], said: str) -> None:
    provider = Provider()
    provider.trouble = trouble
    with pytest.raises(BillError, match=said) as error:
        bills("openai", provider)
    assert KEY not in str(error.value)


def test_pages_without_an_end() -> None:
    provider = Provider()
    provider.endless = True
    with pytest.raises(BillError, match="does not say where"):
        bills("openai", provider)
