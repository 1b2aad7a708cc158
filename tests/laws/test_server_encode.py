"""The quick way and the general way of an event into bytes: the same bytes, or the same refusal, whatever it holds."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tollmeter.producers.client.encoding import RefusedError, build, to_bytes
from tollmeter.producers.client.queue import Entry
from tollmeter.schemas.event import MAX_TOKENS, UsageEvent
from tollmeter.server.encode import EventEncoder

DEFAULTS = {"producer": "tollmeter-http/0", "service": "http", "provider": ""}
ID = "0195d0e0-0000-7000-8000-000000000001"
AT = 1_795_946_400_250_000
SECRETS = st.sampled_from(["sk-" + "a" * 20, "Bearer\n" + "b" * 16, "x AKIA" + "C" * 16, "Bearer"])
TEXTS = st.text(max_size=12) | st.sampled_from(["gpt-4o", "", "é" * 300, "a" * 256, "\ud800", "OK", "BATCH"]) | SECRETS
NUMBERS = st.integers(-1, MAX_TOKENS + 1) | st.sampled_from([0, 1, 127, 128, 2_047, 2_048, 2**31, 10**12, 10**13])
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=17) | st.dictionaries(TEXTS, st.floats() | st.integers(), max_size=3)
ANYTHING = TEXTS | NUMBERS | st.booleans() | st.floats() | MAPS | st.lists(TEXTS, max_size=2)
FITTING = {
    "tags": MAPS,
    "extra_units": MAPS,
    "stream": st.booleans(),
    **{name: NUMBERS for name in UsageEvent.model_fields if name.endswith(("_tokens", "_ms", "_nano", "_chars"))},
}


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(UsageEvent.model_fields)), unique=True, max_size=12))
    odd = draw(st.booleans())
    made = {name: draw(ANYTHING if odd else FITTING.get(name, TEXTS)) for name in names}
    return {"model_sent": "gpt-4o", **made, "event_id": draw(st.sampled_from([ID, ID, ID, "no id"])), "occurred_at": AT}


def outcome(encode: Any) -> bytes | str:
    try:
        made: bytes = encode()
    except RefusedError as refused:
        return str(refused)
    return made


@settings(max_examples=examples(300))
@given(fields())
def test_both_ways_give_the_same(event: dict[str, Any]) -> None:
    encoder = EventEncoder(DEFAULTS, "pepper")
    general = Entry(0, event["event_id"], AT, None, dict(event))
    assert outcome(lambda: encoder.encode(dict(event))) == outcome(lambda: to_bytes(build(general, DEFAULTS, "pepper")))


def test_the_usual_event_goes_the_quick_way() -> None:
    usual = {"model_sent": "gpt-4o", "input_tokens": 10, "tags": {"a": "b"}, "event_id": ID, "occurred_at": AT}
    encoder = EventEncoder(DEFAULTS, "")
    assert encoder._plainly(usual) == encoder.encode(usual)
