"""Laws of what services send: counters are inclusive, streams agree with whole answers, what is read comes back equal.

Oracle: `extract_usage` of genai-prices, an independent reader of the same payloads, where it knows the shape.
"""

import json
from datetime import UTC, datetime
from typing import Any

from genai_prices import extract_usage
from hypothesis import example, given
from hypothesis import strategies as st

from tollmeter.producers.extract.extract import extract
from tollmeter.producers.extract.families import read_usage
from tollmeter.producers.imports.log_lines import from_line, parse, to_line
from tollmeter.schemas import codec
from tollmeter.schemas.event import UsageEvent, counter_problem

COUNT = st.integers(0, 100_000)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "cached_tokens",
    "reasoning_tokens",
    "cache_creation_input_tokens",
    "inputTokens",
    "cache_read_input_tokens",
    "cache_creation",
    "ephemeral_1h_input_tokens",
    "billed_units",
    "promptTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "candidatesTokenCount",
    "cost",
    "seconds",
    "cacheDetails",
    "promptTokensDetails",
    "server_tool_use",
    "web_search_requests",
    "input_tokens_details",
    "prompt_eval_count",
)
WILD = st.recursive(
    COUNT | ANYTHING, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=6), max_leaves=12
)


@example(usage={"promptTokensDetails": 1}, kind="usageMetadata", more={}, streamed=False)
@example(usage={"cacheDetails": 1, "inputTokens": 5}, kind="usage", more={}, streamed=False)
@given(
    usage=WILD,
    kind=st.sampled_from(["usage", "usageMetadata", "meta"]),
    more=st.dictionaries(st.sampled_from(["id", "model", "type", "object", "data", "output", "choices"]), ANYTHING),
    streamed=st.booleans(),
)
def test_whatever_an_answer_says_the_event_is_valid(usage: Any, kind: str, more: Any, streamed: bool) -> None:
    body = {kind: usage, **more}
    event = extract([body] if streamed else body, service="shop", model_sent="m")
    counters = (
        event.input_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.cache_write_1h_tokens,
        event.output_tokens,
        event.reasoning_tokens,
    )
    assert counter_problem(*counters) == ""
    assert codec.decode_body(codec.encode(event)[10:]) == event.wire()


@st.composite
def chats(draw: st.DrawFn) -> dict[str, Any]:
    prompt, completion = draw(COUNT), draw(COUNT)
    details = {"cached_tokens": draw(st.integers(0, prompt))}
    return {
        "model": "gpt-4o",
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": details,
            "completion_tokens_details": {"reasoning_tokens": draw(st.integers(0, completion))},
        },
    }


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    five, hour = draw(COUNT), draw(COUNT)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "usage": {
            "input_tokens": draw(COUNT),
            "output_tokens": draw(COUNT),
            "cache_read_input_tokens": draw(COUNT),
            "cache_creation_input_tokens": five + hour,
            "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        },
    }


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    prompt = draw(COUNT)
    return {
        "modelVersion": "gemini-2.5-flash",
        "usageMetadata": {
            "promptTokenCount": prompt,
            "candidatesTokenCount": draw(COUNT),
            "thoughtsTokenCount": draw(COUNT),
            "toolUsePromptTokenCount": draw(COUNT),
            "cachedContentTokenCount": draw(st.integers(0, prompt)),
        },
    }


@st.composite
def grok(draw: st.DrawFn) -> dict[str, Any]:
    prompt, completion, reasoning = draw(COUNT), draw(COUNT), draw(COUNT)
    return {
        "model": "grok-4",
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion + reasoning,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        },
    }


def agree(body: dict[str, Any], provider: str, flavour: str) -> None:
    """Assert that our reader and the oracle see the same counts."""
    ours, theirs = read_usage(body, provider), extract_usage(body, provider_id=provider, api_flavor=flavour).usage
    for mine, other in (
        ("input_tokens", "input_tokens"),
        ("cache_read_tokens", "cache_read_tokens"),
        ("cache_write_tokens", "cache_write_tokens"),
        ("cache_write_1h_tokens", "cache_write_1h_tokens"),
        ("output_tokens", "output_tokens"),
        ("reasoning_tokens", "output_reasoning_tokens"),
    ):
        assert getattr(ours, mine) == (getattr(theirs, other, None) or 0), mine


@given(chats())
def test_chat_agrees_with_the_oracle(body: dict[str, Any]) -> None:
    agree(body, "openai", "chat")


@given(messages())
def test_anthropic_agrees_with_the_oracle(body: dict[str, Any]) -> None:
    agree(body, "anthropic", "default")


@given(contents())
def test_gemini_agrees_with_the_oracle(body: dict[str, Any]) -> None:
    agree(body, "google", "default")


@given(grok())
def test_xai_agrees_with_the_oracle(body: dict[str, Any]) -> None:
    agree(body, "x-ai", "chat")


@given(chats(), st.integers(0, 3))
def test_a_chat_stream_says_what_the_whole_answer_says(body: dict[str, Any], empty: int) -> None:
    chunk = {"object": "chat.completion.chunk", "model": body["model"], "choices": []}
    chunks = [{**chunk, "usage": None}] * empty + [{**chunk, **body}]
    assert read_usage(extract_body(chunks)) == read_usage(body)


@given(messages(), st.lists(COUNT, max_size=4))
def test_the_largest_count_of_a_stream_holds(body: dict[str, Any], counts: list[int]) -> None:
    start = {"type": "message_start", "message": {**body, "usage": {**body["usage"], "output_tokens": 1}}}
    zeros = {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    deltas = [{"type": "message_delta", "usage": {**zeros, "output_tokens": count}} for count in counts]
    whole = {**body, "usage": {**body["usage"], "output_tokens": max([1, *counts])}}
    assert read_usage(extract_body([start, *deltas])) == read_usage(whole)


def extract_body(chunks: list[Any]) -> Any:
    from tollmeter.producers.extract.streams import Merged

    merged = Merged()
    for chunk in chunks:
        merged.add(chunk)
    return merged


TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    at=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    texts=st.tuples(TEXT, TEXT.map(lambda text: text.replace(",", "").strip()), TEXT, TEXT, TEXT),
    provider=st.sampled_from(["openai", "anthropic", "google", "azure"]),
    counts=st.tuples(COUNT, COUNT, st.none() | st.integers(0, 10**9)),
    nano=st.none() | st.integers(0, 10**12),
)
def test_a_line_comes_back_as_it_went(at: datetime, texts: Any, provider: str, counts: Any, nano: int | None) -> None:
    event = UsageEvent(
        event_id="0195d0e0-0000-7000-8000-000000000001",
        occurred_at=at.replace(microsecond=at.microsecond // 1_000 * 1_000),
        service="s",
        provider=provider,
        request_id=texts[0],
        client_ip=texts[1],
        model_sent=texts[2],
        model_used=texts[3],
        api_key_id=texts[4],
        status="OK",
        usage_source="PROVIDER",
        input_tokens=counts[0],
        output_tokens=counts[1],
        prompt_chars=counts[2],
        reported_cost_nano=nano,
    )
    line = to_line(event)
    again = from_line(parse(json.dumps(line)), service="s", producer="")
    assert again.model_copy(update={"event_id": event.event_id}) == event
    assert to_line(again) == line
    assert from_line(line).event_id == again.event_id
