"""What the doors make of bodies that are nearly right: each of these counts as it is meant, or is refused by name."""

import json
from typing import Any

import pytest

from tests.laws.test_server_doors import CLOUD, EVENT, LITELLM, NOW_US, SEEDS, USAGE, Everybody
from tollmeter.producers.extract.usage import OTHER_TOKENS
from tollmeter.schemas.event import MAX_TAGS
from tollmeter.server.auth import Caller
from tollmeter.server.door import Bad, Call, Posted
from tollmeter.server.doors import cloudevents, ingest, litellm, otlp
from tollmeter.server.events import EventMaker, Made
from tollmeter.server.problems import Problem

CALLER = Caller("k", "ingest", "acme", may_set_identity=True)


def posted(document: object, **headers: str) -> Posted:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Posted({"content-type": "application/json", **headers}, {}, body)


def call_of(module: Any, document: object, **headers: str) -> Call:
    [entry] = module.read(posted(document, **headers)).entries
    assert isinstance(entry, Call), entry
    return entry


def bad_of(module: Any, document: object) -> Bad:
    [entry] = module.read(posted(document)).entries
    assert isinstance(entry, Bad), entry
    return entry


def made_of(call: Call) -> Made:
    made = EventMaker(Everybody(), "").make(call, CALLER, NOW_US)
    assert isinstance(made, Made), made
    return made


# -- /ingest


@pytest.mark.parametrize("more", [{"tags": {"model": "x"}}, {"feature": "model"}, {"tags": {"a": "model_sent"}}])
def test_what_is_called_model_inside_does_not_change_what_a_body_is(more: dict[str, Any]) -> None:
    assert call_of(ingest, EVENT | more).fields["input_tokens"] == 10
    assert call_of(ingest, USAGE | more).token == USAGE["tracking_token"]


def test_keys_that_differ_at_their_end_name_two_calls() -> None:
    long = "batch-" + "x" * 300
    ids = {made_of(call_of(ingest, EVENT, **{"idempotency-key": long + end})).event_id for end in "abb"}
    assert len(ids) == 2


def test_the_mark_of_a_suspect_total_is_kept_beside_as_many_tags_as_there_may_be() -> None:
    tags = {f"t{number}": "x" for number in range(MAX_TAGS)}
    call = call_of(ingest, USAGE | {"tags": tags, "total_tokens": 100})
    assert call.fields["total_tokens"] == 100
    assert call.fields["tags"]["usage_suspect"] == "total_tokens 100 exceed the sum 12"
    assert len(call.fields["tags"]) == MAX_TAGS


@pytest.mark.parametrize("module", [ingest, cloudevents, litellm])
def test_a_mark_before_utf_8_is_no_harm_and_another_utf_is_named(module: Any) -> None:
    document = {ingest: EVENT, cloudevents: CLOUD, litellm: LITELLM}[module]
    text = json.dumps(document)
    assert call_of(module, text.encode("utf-8-sig")).fields == call_of(module, text.encode()).fields
    for kind in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"):
        with pytest.raises(Problem, match="UTF-8") as refused:
            module.read(posted(text.encode(kind)))
        assert (refused.value.status, refused.value.code) == (400, "not_utf8")


@pytest.mark.parametrize("module", [ingest, cloudevents, litellm])
def test_half_a_character_costs_no_call(module: Any) -> None:
    document = {ingest: EVENT | {"feature": "$"}, cloudevents: CLOUD | {"subject": "$"}}.get(
        module, LITELLM | {"end_user": "$"}
    )
    name = {ingest: "feature"}.get(module, "user_id")
    for written, read in {
        r"a\ud83d": "a?",
        r"\uDE00b": "?b",
        r"\ud83d\ude00": "😀",
        r"\ud83d\ud83d\ude00": "?😀",
        r"\\ud83d": r"\ud83d",
        r"\\\ud83d\"": r"\?" + '"',
    }.items():
        whole = json.dumps([document, document]).replace("$", written).encode()
        first, second = module.read(posted(whole)).entries
        assert first.fields[name] == second.fields[name] == read


def test_half_a_character_in_a_prompt_costs_no_span() -> None:
    [traces] = (door for door in otlp.DOORS if door.path == "/v1/traces")
    prompt = {"key": "gen_ai.input.messages", "value": {"stringValue": "$"}}
    document = json.dumps(SEEDS["/v1/traces"][0]).replace('"attributes": [', f'"attributes": [{json.dumps(prompt)}, ')
    reading = traces.read(posted(document.replace("$", r"cut \ud83d").encode()))
    assert [type(entry) for entry in reading.entries] == [Call]


# -- CloudEvents


def cloud(**data: object) -> dict[str, Any]:
    return CLOUD | {"data": {"model": "gpt-4o", **data}}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (cloud(prompt_tokens="10"), "bad_field"),
        (cloud(prompt_tokens=10.5), "bad_field"),
        (cloud(prompt_tokens=True), "bad_field"),
        (cloud(prompt_tokens=10, completion_tokens=[]), "bad_field"),
        (cloud(prompt_tokens=10, org_id={"a": 1}), "bad_field"),
        (cloud(prompt_tokens=10, service=5), "bad_field"),
        (cloud(prompt_tokens=10, completion_tokens=2, total_tokens="12"), "bad_field"),
        (cloud(prompt_tokens=10, completion_tokens=2, total_tokens=11), "total_too_small"),
        (CLOUD | {"subject": 17}, "bad_field"),
        (CLOUD | {"subject": {"a": 1}}, "bad_field"),
        (CLOUD | {"data": EVENT | {"user_id": 5}}, "bad_field"),
    ],
)
def test_an_event_with_a_wrong_member_is_refused(document: object, code: str) -> None:
    assert bad_of(cloudevents, document).code == code


def test_a_total_above_the_counts_is_kept_and_marked_as_at_ingest() -> None:
    fields = call_of(cloudevents, cloud(prompt_tokens=10, completion_tokens=2, total_tokens=100)).fields
    assert (fields["total_tokens"], set(fields["tags"])) == (100, {"usage_suspect"})


def test_headers_in_binary_mode_are_read_as_they_are_escaped() -> None:
    plain = call_of(cloudevents, CLOUD | {"id": "é 1", "source": "/caf%"})
    headers = {"ce-specversion": "1.0", "ce-type": "llm", "ce-id": "%C3%A9%201", "ce-source": "/caf%25"}
    binary = call_of(cloudevents, CLOUD["data"], **headers)
    assert binary.fields["event_id"] == plain.fields["event_id"]


# -- LiteLLM

BARE = LITELLM | {"metadata": None}


@pytest.mark.parametrize("wrong", [-5, 10.5, "ten", True, 1e300, 10_000_001])
def test_what_is_no_count_is_no_zero(wrong: object) -> None:
    objects = {"prompt_tokens": wrong, "completion_tokens": 20}
    for payload in (
        BARE | {"prompt_tokens": wrong, "completion_tokens": 20},
        LITELLM | {"metadata": {"usage_object": objects}},
    ):
        fields = call_of(litellm, [payload]).fields
        assert fields["usage_source"] == "NONE"
        assert not fields.keys() & {"input_tokens", "output_tokens"}
        assert "prompt_tokens" in fields["tags"]["usage_problem"]
        made_of(call_of(litellm, [payload]))


def test_counts_as_text_and_a_total_above_them() -> None:
    fields = call_of(litellm, [BARE | {"prompt_tokens": "10", "completion_tokens": 2.0, "total_tokens": 100}]).fields
    assert (fields["input_tokens"], fields["output_tokens"], fields["usage_source"]) == (10, 2, "PROVIDER")
    assert (fields["total_tokens"], "usage_suspect" in fields["tags"]) == (100, True)


@pytest.mark.parametrize("hit", [True, "True", "true"])
def test_what_the_gateways_cache_answered_is_no_call(hit: object) -> None:
    assert litellm.read(posted([LITELLM | {"cache_hit": hit}])).ignored == {"cache_hit": 1}


def test_what_another_model_did_within_a_call_is_no_part_of_its_price() -> None:
    parts = [
        {"type": "message", "input_tokens": 10, "output_tokens": 2},
        {"type": "advisor_message", "model": "claude-opus-4-5", "input_tokens": 100, "output_tokens": 20},
    ]
    usage = {"input_tokens": 10, "output_tokens": 2, "iterations": parts}
    payload = LITELLM | {"model": "claude-sonnet-4-5", "metadata": {"usage_object": usage}}
    fields = call_of(litellm, [payload | {"custom_llm_provider": "anthropic"}]).fields
    assert fields["extra_units"].get(OTHER_TOKENS) == 120.0
