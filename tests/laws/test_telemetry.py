"""Law: whatever bytes arrive as telemetry, the reader reads or refuses them; what it found becomes an event."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.fuzz.telemetry import run, seeds
from tests.otlp_bodies import CURRENT, events_of, read, span, traces
from tollmeter.producers.telemetry.reading import UnreadableError
from tollmeter.schemas.event import MAX_TOKENS
from tollmeter.server.otlp import read_logs, read_traces


def test_no_input_breaks_a_reader() -> None:
    """`python -m tests.fuzz.telemetry` does the same with a million."""
    told = run(examples(3_000), seed=1)
    assert told["read"] > 1_000
    assert told["refused whole"] > 1_000
    assert told["Made"] > 500
    assert told["refused"] > 100
    assert len(seeds()) > 40


@settings(deadline=None, max_examples=examples(300))
@given(st.binary(max_size=200), st.sampled_from(("json", "protobuf")))
def test_random_bytes_are_read_or_refused(body: bytes, encoding: str) -> None:
    for reader in (read_traces, read_logs):
        try:
            reader(body, encoding)
        except UnreadableError:
            continue


counts = st.integers(0, MAX_TOKENS)


@settings(deadline=None, max_examples=examples(200))
@given(counts, counts, counts, counts, counts)
def test_parts_never_exceed_their_whole(total: int, cached: int, written: int, output: int, reasoning: int) -> None:
    said = CURRENT | {
        "gen_ai.usage.input_tokens": total,
        "gen_ai.usage.output_tokens": output,
        "gen_ai.usage.cache_read.input_tokens": cached,
        "gen_ai.usage.cache_creation.input_tokens": written,
        "gen_ai.usage.reasoning.output_tokens": reasoning,
    }
    (event,) = events_of(read(traces([span(attributes=said)])))
    beside, thought = cached + written > total, reasoning > output
    wanted = total + (cached + written) * beside, output + reasoning * thought
    if max(wanted) > MAX_TOKENS:
        assert (event.usage_source, event.tags["usage_problem"]) == ("NONE", "input or output: too large")
    else:
        assert (event.input_tokens, event.output_tokens) == wanted
        assert ("usage_suspect" in event.tags) == (beside or thought)
