"""Laws of reading answers: nothing raises, a count never turns into a zero that looks stated, larger counts win."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from itertools import permutations
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_golden_payloads import cases
from tests.unit.test_payloads import _thing
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.extract.extract import aextract, aextract_all, extract, extract_all
from tollmeter.producers.extract.families import read_usage
from tollmeter.producers.extract.grown import grown
from tollmeter.producers.extract.usage import count
from tollmeter.schemas.event import MAX_TOKENS, UsageEvent

SURROGATE = "a\ud800b"


class Hostile:
    """An object whose every look raises."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise RuntimeError(name)


class Nested:
    @property
    def usage(self) -> Any:
        raise KeyError("usage")

    model = SURROGATE


def deep(depth: int = 3000) -> Any:
    body: Any = {}
    for _ in range(depth):
        body = {"usage": body, "choices": [body]}
    return body


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.just(SURROGATE),
    st.binary(max_size=4),
    st.just(float("inf")),
    st.builds(Hostile),
    st.builds(Nested),
    st.builds(object),
)
NAMES = st.sampled_from(
    [
        *(
            "usage",
            "prompt_tokens",
            "completion_tokens",
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "cost",
            "model",
        ),
        *(
            "usageMetadata",
            "promptTokenCount",
            "candidatesTokenCount",
            "seconds",
            "iterations",
            "type",
            "object",
            "data",
        ),
        *("prompt_tokens_details", "cached_tokens", "choices", "response", "message", "billed_units", "meta", "id"),
        *("inputTokens", "outputTokens", "cache_read_input_tokens", "service_tier", "serviceTier", "status", "output"),
        *("usage_metadata", "details", "generated_tokens", "usage_info", "pages_processed", "predictions", "result"),
    ]
)
BODIES = st.recursive(
    ODD, lambda inner: st.one_of(st.dictionaries(NAMES, inner, max_size=5), st.lists(inner, max_size=4)), max_leaves=20
)
FIELDS = st.dictionaries(
    st.sampled_from([*sorted(set(UsageEvent.model_fields) - {"event_id"}), "started_at"]),
    ODD.filter(lambda value: not isinstance(value, Hostile)),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(body=BODIES, fields=FIELDS)
def test_no_answer_and_no_value_raises(body: Any, fields: dict[str, Any]) -> None:
    event = extract(body, **fields)
    assert isinstance(event, UsageEvent)
    json.dumps(event.wire(), default=str).encode()
    for one in extract_all(body, **fields):
        assert isinstance(one, UsageEvent)
        assert one.usage_source != "PROVIDER" or one.input_tokens <= MAX_TOKENS


@pytest.mark.parametrize(
    "response",
    [
        Hostile(),
        Nested(),
        deep(),
        [Hostile(), Nested()],
        iter([Hostile()]),
        (x for x in [deep()]),
        SURROGATE,
        b"\xff",
        7,
        None,
    ],
)
def test_a_hostile_answer_is_an_event_without_usage(response: Any) -> None:
    event = extract(response, model_sent="m", session_id=SURROGATE, started_at=datetime(2026, 1, 1))
    assert (event.usage_source, event.model_sent, event.session_id) == ("NONE", "m", "a?b")
    assert event.occurred_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_a_generator_that_breaks_keeps_what_it_said() -> None:
    def chunks() -> Iterator[dict[str, Any]]:
        yield {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
        raise OSError("gone")

    event = extract(chunks())
    assert (event.input_tokens, event.output_tokens, event.status) == (10, 2, "CANCELLED")


def test_a_keyword_that_no_event_has_is_a_mistake_in_the_program() -> None:
    with pytest.raises(ValueError, match="usr_id"):
        extract({}, usr_id="ann")


def test_values_that_no_event_takes_are_named() -> None:
    event = extract({}, http_status=-5, session_id={"a": 1}, status="weird", user_id=17, tags={"a": "x" * 500, 3: True})
    assert event.user_id == "17"
    assert event.tags["left_out_fields"] == "http_status,session_id,status"
    assert len(event.tags["a"]) == 128


def test_an_async_stream_is_no_silent_nothing() -> None:
    async def chunks() -> AsyncIterator[Any]:
        yield {"model": "gpt-4o", "usage": {"prompt_tokens": 1}}

    event = extract(chunks(), model_sent="gpt-4o")
    assert (event.usage_source, event.tags) == ("NONE", {"usage_problem": "asynchronous: it takes aextract"})


def test_chunks_in_the_wrapping_of_their_transport() -> None:
    chunks = cases()["bedrock: metrics beside Anthropic's own usage"]["stream"]
    given_ = {"provider": "aws", "model_sent": "us.anthropic.claude-sonnet-4-6"}
    wanted = counters(extract(chunks, **given_))
    boto3 = [{"chunk": {"bytes": json.dumps(chunk).encode()}} for chunk in chunks]
    events = [{"event": chunk["type"], "data": json.dumps(chunk)} for chunk in chunks]
    assert counters(extract(boto3, **given_)) == counters(extract(events, **given_)) == wanted


class Chunks:
    """Can be iterated, and is no iterator."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[Any]:
        return iter(self.chunks)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for chunk in self.chunks:
            yield chunk


def counters(event: UsageEvent) -> tuple[Any, ...]:
    return event.input_tokens, event.cache_read_tokens, event.output_tokens, event.extra_units, event.status


STREAMS = [name for name, case in cases().items() if isinstance(case.get("stream"), list) and "batch" not in name]


@pytest.mark.parametrize("name", STREAMS)
def test_every_way_to_hold_a_stream_says_the_same(name: str) -> None:
    chunks, given_ = cases()[name]["stream"], cases()[name].get("keywords", {})
    wanted = counters(extract(chunks, **given_))
    events = "".join(f"event: x\ndata: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n"
    assert counters(extract(iter(chunks), **given_)) == wanted
    assert counters(extract(Chunks(chunks), **given_)) == wanted
    assert counters(extract(events, **given_)) == wanted
    assert counters(extract(events.encode(), **given_)) == wanted
    assert counters(asyncio.run(aextract(Chunks(chunks), **given_))) == wanted
    apart = [counters(one) for one in extract_all(chunks, **given_)]
    assert [counters(one) for one in asyncio.run(aextract_all(Chunks(chunks), **given_))] == apart


def whole(event: UsageEvent) -> dict[str, Any]:
    varies = {"event_id", "occurred_at", "latency_ms", "http_status"}
    return event.model_dump(exclude=varies)


@pytest.mark.parametrize("name", [name for name in cases() if "headers alone" not in name])
def test_objects_texts_raw_responses_and_counts_as_text_say_the_same(name: str) -> None:
    """The answer as SDKs give it, as it travelled, and with every count written as text."""
    answer = cases()[name].get("stream") or cases()[name].get("input")
    given_ = cases()[name].get("keywords", {})
    wanted = [whole(event) for event in extract_all(answer, **given_)]
    forms = (_thing(answer), json.dumps(answer), httpx.Response(200, json=answer), as_text(answer))
    for form in forms if "problem" not in str(wanted) else forms[:3]:
        assert [whole(event) for event in extract_all(form, **given_)] == wanted


FAILED_LINES: tuple[dict[str, Any], ...] = (
    {"error": {"message": "x", "code": 400}},
    {"key": "z", "error": {"code": 400, "message": "x"}},
    {"custom_id": "z", "response": None, "error": {"code": "batch_expired", "message": "x"}},
    {"custom_id": "z", "result": {"type": "errored", "error": {"type": "error"}}},
    {"recordId": "z", "modelInput": {}, "error": {"errorCode": 400}},
    {"status": "Bad Request", "request": {}, "response": {}},
)
LINES = [
    name
    for name, case in cases().items()
    if isinstance(case.get("stream"), list)
    and any(event.processing == "BATCH" for event in extract_all(case["stream"], **case.get("keywords", {})))
]


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("failed", FAILED_LINES, ids=str)
def test_a_call_of_a_batch_that_failed_changes_nothing_for_the_others(name: str, failed: dict[str, Any]) -> None:
    lines, given_ = cases()[name]["stream"], cases()[name].get("keywords", {})
    wanted = [whole(event) for event in extract_all(lines, **given_)]
    assert wanted
    for place in (0, 1, len(lines)):
        among = [*lines[:place], failed, *lines[place:]]
        assert [whole(event) for event in extract_all(among, **given_)] == wanted


def as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_text(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("name", STREAMS)
def test_repeating_any_chunk_of_usage_changes_nothing(name: str) -> None:
    """A block of usage that comes again, or again with zeros, is the same statement."""
    if "add up" in name or "LangChain" in name or "two " in name or "turns" in name:
        return
    chunks, given_ = cases()[name]["stream"], cases()[name].get("keywords", {})
    wanted = read_usage(_merged(chunks), str(given_.get("provider", "")))
    for place in range(len(chunks)):
        again = [*chunks[: place + 1], *chunks[place:]]
        assert read_usage(_merged(again), str(given_.get("provider", ""))) == wanted


def _merged(chunks: list[Any]) -> Any:
    from tollmeter.producers.extract.streams import Merged

    merged = Merged()
    for chunk in chunks:
        merged.add(chunk)
    return merged


BLOCKS = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(0, 99), st.just(0), st.none()), max_size=3),
    min_size=1,
    max_size=4,
)


@given(BLOCKS)
def test_counts_only_grow_in_any_order(blocks: list[dict[str, Any]]) -> None:
    results = []
    for order in permutations(blocks):
        whole: Any = {}
        for block in order:
            whole = grown(whole, block)
        results.append({name: value for name, value in whole.items() if value is not None})
    assert all(result == results[0] for result in results)
    for name, value in results[0].items():
        assert value == max(block[name] for block in blocks if block.get(name) is not None)


@given(st.one_of(st.integers(-5, MAX_TOKENS + 5), st.floats(), st.text(max_size=6), st.booleans()))
def test_what_is_no_count_is_no_stated_zero(value: Any) -> None:
    usage = read_usage({"model": "m", "usage": {"prompt_tokens": value, "completion_tokens": 3}})
    read = count(value)
    assert (usage.problem == "") == (read is not None)
    if read is not None:
        assert usage.input_tokens == read


def test_a_producer_records_several_events_and_none() -> None:
    answer = cases()["anthropic: an advisor in a stream"]["stream"]
    with UsageProducer(mode="memory", service="shop") as producer:
        assert producer.record(extract_all(answer), user_id="ann")
        assert [event.model_used for event in producer.events] == ["claude-sonnet-4-6", "claude-opus-4-7"]
        assert {event.user_id for event in producer.events} == {"ann"}
        assert len({event.event_id for event in producer.events}) == 2
        assert producer.record(extract_all({"object": "response.input_tokens", "input_tokens": 3})) == ""
        assert producer.record_response({"input_tokens": 14}) == ""
        assert producer.record_response(answer, event_id="0198c0de-0000-7000-8000-000000000001").endswith("01")
        assert len(producer.events) == 4
