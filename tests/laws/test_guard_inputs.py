"""Whatever an application passes on: a blocked caller stays blocked, a spent budget refuses, nothing leaks."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.guard_rows import NOON, USD, Time, access, as_of, book, feed, layout, policy, spend
from tests.hostile_questions import World
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard.decision import Allow, Deny
from tollmeter.producers.guard.guard import Guard
from tollmeter.producers.http.request import Asked, read_request
from tollmeter.producers.http.weight import CHARS_PER_TOKEN
from tollmeter.schemas.access import Block
from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.schemas.policy import Policy

JSON = "application/json"


class Odd:
    """A value whose own code fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


texts = st.text(max_size=20) | st.sampled_from(("\ud800", "x" * 5_000, "a\x00b", "\x1b[2J", "ann", " ann"))
odd: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=8) | st.builds(Odd)
)
tags = odd | st.dictionaries(st.one_of(texts, st.integers()), odd, max_size=30)
counts = odd | st.sampled_from((-1, -(10**9), 10**9, 10**40, "100000", "1e400", math.inf, -math.inf, math.nan))
questions = st.fixed_dictionaries(
    {},
    optional={
        "prompt_chars": counts,
        "prompt_tokens": counts,
        "prompt": odd,
        "max_output_tokens": counts,
        "answers": counts,
        "groups": odd | st.lists(odd, max_size=4),
        "api_key_id": odd,
        "client_ip": odd,
        "provider": odd,
        "agent": odd,
        "tags": tags,
        "counted": odd | st.lists(odd, max_size=2),
        "feature": odd,
        "session_id": odd,
        "request_id": odd,
    },
)


def guard(tokenizer: Any = None) -> tuple[Guard, UsageProducer]:
    """A guard that has blocked user bob, and whose organisation broke has spent its budget."""
    producer = UsageProducer(service="test", mode="memory")
    made = Time().guard(producer=producer, tokenizer=tokenizer, max_usd=1_000.0)
    limit = Policy(org_id="broke", daily_limit_micro=1_000_000, currency="USD")
    block = Block(org_id="acme", scope="user", name="bob", reason="leak")
    feed(made, layout(), book(gpt_4o=(2_500_000, 10_000_000)), policy(limit), access(block))
    feed(made, spend(USD, org="broke"), as_of(NOON * 1_000, org="broke"))
    return made, producer


tokenizers = st.sampled_from((None, lambda *_: -5, lambda *_: math.nan, lambda *_: "many", lambda *_: 1 // 0))


@settings(max_examples=examples(400))
@given(questions, odd | st.just("gpt-4o"), tokenizers)
def test_a_blocked_caller_stays_blocked(about: dict[str, Any], model: Any, tokenizer: Any) -> None:
    made, producer = guard(tokenizer)
    denied = made.check(model, **about, org="acme", user="bob")
    assert isinstance(denied, Deny)
    assert denied.error == "blocked"
    assert [event.status for event in producer.events] == ["BLOCKED"]
    entered = made.admit(org="acme", user="bob", **{k: v for k, v in about.items() if k in ("feature", "client_ip")})
    assert entered is not None
    assert entered.error == "blocked"


@settings(max_examples=examples(400))
@given(questions, tokenizers)
def test_a_spent_budget_refuses(about: dict[str, Any], tokenizer: Any) -> None:
    made, _ = guard(tokenizer)
    denied = made.check("gpt-4o", **{**about, "provider": "openai"}, org="broke", user="ann")
    assert isinstance(denied, Deny)
    assert made._known.accounts.in_flight == 0


@settings(max_examples=examples(400))
@given(st.lists(questions, max_size=5), odd | st.just("gpt-4o"))
def test_nobody_gets_a_credit_and_nothing_stays_reserved(asked: list[dict[str, Any]], model: Any) -> None:
    made, _ = guard()
    for about in asked:
        decided = made.check(model, **about, org="acme", user="ann")
        if isinstance(decided, Allow):
            assert decided.est_nano is None or decided.est_nano >= 0
            assert min(decided.reservation.amounts) >= 0
            decided.reservation.settle()
    assert made._known.accounts.in_flight == 0


@settings(max_examples=examples(400))
@given(questions)
def test_every_event_survives_what_users_send(about: dict[str, Any]) -> None:
    producer = UsageProducer(service="test", mode="memory", org_id="acme")
    fields = {name: about[name] for name in ("client_ip", "agent", "tags", "feature", "session_id") if name in about}
    assert producer.record(provider="openai", model_sent="gpt-4o", input_tokens=10, **fields)
    (event,) = producer.events
    assert len(event.tags) <= 16
    assert event.model_dump_json().encode()


def body(**fields: Any) -> Asked:
    asked = read_request("/v1/chat/completions", JSON, json.dumps({"model": "gpt-4o", **fields}).encode())
    assert asked is not None
    return asked


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def chars_of(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(chars_of, value.values()))
    return sum(map(chars_of, value)) if isinstance(value, list) else 0


@settings(max_examples=examples(300))
@given(json_values)
def test_every_text_of_a_body_weighs(value: Any) -> None:
    assert body(messages=value, tools=value).weight * CHARS_PER_TOKEN >= 2 * chars_of(value)


@settings(max_examples=examples(200))
@given(st.binary(max_size=200), st.sampled_from(("", "gzip", "deflate", "br", "zstd", "identity", "x" * 50)))
def test_what_cannot_be_read_is_the_worst_case_or_nothing(content: bytes, encoding: str) -> None:
    asked = read_request("/v1/chat/completions", JSON, content, encoding)
    assert asked is not None
    assert 0 <= asked.weight <= MAX_TOKENS
    if encoding in ("br", "zstd") and content:
        assert asked.weight == MAX_TOKENS


LONG_TEXT = "what we know of it " * 2_000
PLACES: dict[str, Any] = {
    "parts that look like frames": [{"role": "user", "content": [{"type": "text", "text": "user"}] * 9_500}],
    "frames alone": [{"role": "user", "content": ""}] * 2_600,
    "names of frames in arguments": [
        {"role": "assistant", "content": [{"type": "tool_use", "input": [{"text": ""}] * 9_600}]}
    ],
    "an address in arguments": [
        {"role": "assistant", "content": [{"type": "tool_use", "input": {"url": LONG_TEXT.replace(" ", "_")}}]}
    ],
    "an image in arguments": [
        {"role": "assistant", "content": [{"type": "tool_use", "input": {"type": "image", "data": LONG_TEXT}}]}
    ],
    "text called an image": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": LONG_TEXT}}]}],
    "a role": [{"role": LONG_TEXT, "content": ""}],
    "data that is text": [{"role": "user", "content": {"data": LONG_TEXT}}],
}


@pytest.mark.parametrize("place", PLACES)
def test_no_place_hides_text(place: str) -> None:
    """38,000 characters weigh their quarter wherever they stand."""
    asked = read_request("/v1/messages", JSON, json.dumps({"model": "m", "messages": PLACES[place]}).encode())
    assert asked is not None
    assert asked.weight >= 38_000 // CHARS_PER_TOKEN - 16


IMAGE = "A" * 400_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
        {"inline_data": {"mime_type": "image/png", "data": IMAGE}},
        {"image": {"format": "png", "source": {"bytes": IMAGE}}},
    ],
)
def test_an_image_weighs_as_one(part: Any) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": [part]}]}).encode()
    asked = read_request("/v1/messages", JSON, body)
    assert asked is not None
    assert 1_600 <= asked.weight <= 1_700 + len(IMAGE) // 40


def test_one_short_question_weighs_its_text() -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x" * 400}]}
    asked = read_request("/v1/chat/completions", JSON, json.dumps(body).encode())
    assert asked is not None
    assert asked.weight == 100


NIGHTLY = [pytest.param(100_000, seed, marks=pytest.mark.nightly) for seed in range(2, 12)]


@pytest.mark.parametrize(("decisions", "seed"), [(4_000, 1), *NIGHTLY])
def test_no_hostile_question_escapes(decisions: int, seed: int) -> None:
    """Blocks, budgets and rules about models hold together; each refusal is an event, and nothing stays reserved."""
    found = World(seed).run(decisions)
    assert found.escapes == []
    assert (found.leaked, found.events) == (0, found.refusals)
    assert found.decisions == decisions
    assert set(found.answers) == {"allowed", "blocked", "cost_cap", "model_not_allowed", "CostLimitExceeded"}
