"""Pricing laws: columns equal the scalar definition, the compiled table the library, and parts add up to the whole."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.price_events import SCHEMA, frame, shipped_book
from tollmeter.schemas.event import micros
from tollmeter.schemas.money import MAX_EVENT_NANO
from tollmeter.schemas.priced import PRICE_STATUSES
from tollmeter.streams.price.book.book import COMPONENT_COLUMNS, COUNTER_COLUMNS
from tollmeter.streams.price.book.check import DIFFERENT, EQUAL, check
from tollmeter.streams.price.book.compile import LATTICE, leaves_of
from tollmeter.streams.rules.pricing.fx import MAX_PER_USD_NANO, Rate, Rates, convert, convert_columns
from tollmeter.streams.rules.pricing.model_names import Names
from tollmeter.streams.rules.pricing.price_columns import (
    Columns,
    Table,
    price_columns,
    round_thousandth,
)
from tollmeter.streams.rules.pricing.price_one import Call, Plan, component_pico, counts_of, price_one
from tollmeter.streams.rules.pricing.rates import BOOK, FREE, OVERRIDE, SINGLE, Band, day_number

FIRST, LAST = datetime(2024, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)

MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "o3"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-image-1"),
    ("openai", "dall-e-3"),
    ("openai", "gpt-4o-2099-01-01"),
    ("openai", "zeta"),
    ("openai", "tts-1"),
    ("openai", ""),
    ("openai", "gpt-4o-audio-preview"),
    ("openai", "ft:gpt-4.1-2025-04-14:acme"),
    ("openai", "o1-pro"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-opus-5"),
    ("google", "gemini-2.5-pro"),
    ("deepseek", "deepseek-v4-flash"),
    ("deepseek", "deepseek-chat"),
    ("mistral", "mistral-large-latest"),
    ("azure", "gpt-4-turbo"),
    ("azure", "gpt-4o"),
    ("groq", "whisper-large-v3"),
    ("perplexity", "sonar-pro"),
    ("ollama", "llama3"),
    ("acme", "zeta"),
    ("", "gpt-4o"),
)
EDGES = ("2025-06-10", "2025-12-02", "2026-03-13", "2026-08-17", "2026-08-23", "2026-09-10", "2026-10-12", "2026-10-14")
UNITS = ("web_searches", "input_audio_tokens", "audio_seconds", "images", "input_characters", "no_such_unit")


@st.composite
def instants(draw: st.DrawFn) -> datetime:
    if draw(st.booleans()):
        day = datetime.fromisoformat(draw(st.sampled_from(EDGES))).replace(tzinfo=UTC)
        return day + timedelta(microseconds=draw(st.sampled_from((-1, 0, 1))), hours=draw(st.integers(0, 23)))
    return draw(st.datetimes(FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None))).replace(tzinfo=UTC)


@st.composite
def token_counts(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    sizes = st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 300_000), st.sampled_from((100_000, 136_000)))
    text, read, write, hour, out, reasoning = (draw(sizes) for _ in range(6))
    whole = (text + read + write + hour, read, write + hour, hour, out + reasoning, reasoning)
    if draw(st.integers(0, 30)) == 0:  # impossible or absurd
        return (*whole[:3], whole[2] + 1, *whole[4:]) if draw(st.booleans()) else (10_000_001, *whole[1:])
    return whole


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    provider, model = draw(st.sampled_from(MODELS))
    used = draw(st.sampled_from(("", "", model, "gpt-4o-mini")))
    extra = draw(st.dictionaries(st.sampled_from(UNITS), st.sampled_from((0.0, 1.0, 2.5, 0.1, 37.0)), max_size=2))
    return {
        "provider": provider,
        "model_sent": model,
        "model_used": used,
        "deployment": draw(st.sampled_from(("", "", "prod"))),
        "region": draw(st.sampled_from(("", "eu"))),
        "event_time": draw(instants()),
        "operation": draw(st.sampled_from(("chat", "image"))),
        "service_tier": draw(
            st.sampled_from(("", "", "default", "flex", "priority", "fast", "hd", "subscription", "subscription+fast"))
        ),
        "processing": draw(st.sampled_from(("REALTIME", "REALTIME", "BATCH"))),
        "status": draw(st.sampled_from(("OK", "OK", "OK", "UNKNOWN", "ERROR", "CANCELLED", "BLOCKED"))),
        "extra_units": extra if draw(st.integers(0, 3)) == 0 else {},
        **dict(zip(COUNTER_COLUMNS, draw(token_counts()), strict=True)),
    }


@settings(deadline=None, max_examples=examples(150))
@given(st.lists(events(), max_size=40))
def test_columns_price_as_the_definition_does(rows: list[dict[str, Any]]) -> None:
    book = shipped_book()
    got = book.price(frame(*rows)).to_dicts()
    assert len(got) == len(rows)
    for fields, row in zip(rows, got, strict=True):
        full = {name: fields.get(name, "") for name in Names._fields}
        call = Call(
            micros(fields["event_time"]),
            fields["status"],
            tuple(fields[name] for name in COUNTER_COLUMNS),
            fields["extra_units"],
            fields["service_tier"].startswith("subscription"),
        )
        wanted = price_one(book.planner.plan(Names(**full)), call)
        assert row["price_status"] == wanted.price_status
        assert row["cost_nano"] == wanted.cost_nano
        assert tuple(row[name] for name in COMPONENT_COLUMNS) == wanted.components
        assert row["at_risk_nano"] == wanted.at_risk_nano
        assert row["rule_id"] == wanted.rule_id
        assert row.get("est_cost_nano") == wanted.value_nano
        holds_the_promises(row)


def holds_the_promises(row: dict[str, Any]) -> None:
    known = row["price_status"] not in ("UNKNOWN_MODEL", "NO_USAGE", "INVALID")
    assert (row["cost_nano"] is not None) == known
    if known:
        assert sum(row[name] for name in COMPONENT_COLUMNS) == row["cost_nano"] <= MAX_EVENT_NANO
        assert all(row[name] >= 0 for name in COMPONENT_COLUMNS)
        assert row["at_risk_nano"] is None or row["price_status"] == "PARTIAL"
    for currency in ("eur", "rub"):
        assert (row[f"cost_{currency}_nano"] is None) == (row["cost_nano"] is None or row["fx_date"] is None) or (
            currency == "rub" and row["fx_date"] == date(2024, 12, 31)
        )


@st.composite
def bands(draw: st.DrawFn) -> Band:
    units = draw(
        st.sampled_from(
            (
                ("input_tokens", "output_tokens"),
                ("input_tokens", "output_tokens", "cache_read_tokens"),
                ("input_tokens", "output_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
                ("input_tokens", "output_tokens", "output_reasoning_tokens", "requests"),
                ("images",),
                ("input_tokens", "images", "requests"),
            )
        )
    )
    prices = {unit: draw(st.integers(0, 10**7)) for unit in units}
    edges = sorted(draw(st.sets(st.integers(0, 24), min_size=2, max_size=2)))
    days = st.none() | st.dates(date(2026, 11, 1), date(2026, 11, 10))
    band = Band(
        "p",
        "m",
        "",
        prices,
        leaves_of(frozenset(prices)),
        "made up",
        valid_from=draw(days),
        valid_to=draw(days),
        weekdays=draw(st.sampled_from((127, 96, 31, 1))),
        from_second=edges[0] * 3600,
        to_second=edges[1] * 3600,
        above_input=draw(st.sampled_from((-1, -1, 0, 100))),
        without_tokens=draw(st.integers(0, 5)) == 0,
        layer=draw(st.sampled_from((BOOK, BOOK, OVERRIDE, FREE, SINGLE))),
        sure_from=draw(st.sampled_from((None, None, date(2026, 11, 5)))),
        partial=draw(st.integers(0, 3)) == 0,
        at_most_pct=draw(st.sampled_from((100, 100, 110, 200))),
        name=str(draw(st.integers(0, 10**9))),
    )
    return replace(band, prices={}, leaves=()) if band.layer == FREE else band


plans = st.builds(
    lambda own, dearest, partial, image, rule, lacking: Plan(
        tuple(own), tuple(dearest), partial, image, risk_rule=rule, lacking=lacking
    ),
    st.lists(bands(), max_size=4),
    st.lists(bands().filter(lambda band: band.layer != FREE), max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from(("", "default")),
    st.dictionaries(st.sampled_from(("input_tokens", "output_tokens", "cache_write_tokens")), st.integers(0, 10**7)),
)
small = st.integers(0, 200)


@settings(deadline=None, max_examples=examples(150))
@given(
    st.lists(plans, min_size=1, max_size=5),
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.datetimes(datetime(2026, 10, 30), datetime(2026, 11, 12)),
            st.sampled_from(("OK", "ERROR", "BLOCKED")),
            small,
            small,
            small,
            small,
            small,
            small,
        ),
        max_size=30,
    ),
)
def test_any_bands_price_by_column_as_by_row(made: list[Plan], rows: list[Any]) -> None:
    table = Table()
    numbers = [table.add(plan) for plan in made]
    calls = []
    for choice, at, status, text, read, write, hour, out, reasoning in rows:
        whole = (text + read + write + hour, read, write + hour, hour, out + reasoning, reasoning)
        call = Call(micros(at.replace(tzinfo=UTC)), status, whole, subscribed=choice % 5 == 0)
        calls.append((choice % len(made), call))
    tokens = [np.array([call.tokens[i] for _, call in calls], np.int64) for i in range(6)]
    priced = price_columns(
        table,
        Columns(
            plan=np.array([numbers[choice] for choice, _ in calls], np.int64),
            at_us=np.array([call.at_us for _, call in calls], np.int64),
            blocked=np.array([call.status == "BLOCKED" for _, call in calls], np.bool_),
            failed=np.array([call.status == "ERROR" for _, call in calls], np.bool_),
            subscribed=np.array([call.subscribed for _, call in calls], np.bool_),
            tokens=(tokens[0], tokens[1], tokens[2], tokens[3], tokens[4], tokens[5]),
        ),
    )
    for row, (choice, call) in enumerate(calls):
        wanted = price_one(made[choice], call)
        assert PRICE_STATUSES[priced.status[row]] == wanted.price_status
        assert (int(priced.total[row]) if priced.known[row] else None) == wanted.cost_nano
        if wanted.cost_nano is not None:
            assert tuple(int(part[row]) for part in priced.parts) == wanted.components
        assert (int(priced.at_risk[row]) if priced.risky[row] else None) == wanted.at_risk_nano
        assert table.rule_ids[priced.rule[row]] == wanted.rule_id
        assert (int(priced.value[row]) if priced.valued[row] else None) == wanted.value_nano


@given(bands().filter(lambda band: band.layer != FREE), token_counts(), st.integers(0, 50))
def test_marginal_rates_and_leaf_prices_are_two_views_of_one_price(
    band: Band, tokens: tuple[int, int, int, int, int, int], images: int
) -> None:
    counts = counts_of(Plan((band,)), Call(0, "OK", tokens, {"images": float(images)}), band)
    pico = component_pico(band, counts)
    if pico is not None:
        rates = band.rates
        assert sum(pico) == sum(n * rates.get(unit, 0) for unit, n in counts.items()) + rates.get("requests", 0)


@given(st.lists(st.integers(0, 9 * 10**18), max_size=20))
def test_rounding_is_half_to_even(pico: list[int]) -> None:
    edges = [base + rest for base in (0, 1_000, 2_000) for rest in (499, 500, 501)]
    values = [*pico, *edges]
    got = round_thousandth(np.array(values, np.int64)).tolist()
    assert got == [int((Decimal(value) / 1000).quantize(Decimal(1), ROUND_HALF_EVEN)) for value in values]


@given(st.lists(st.tuples(st.integers(0, MAX_EVENT_NANO), st.integers(1, MAX_PER_USD_NANO)), max_size=30))
def test_conversion_by_column_is_exact(pairs: list[tuple[int, int]]) -> None:
    pairs = [*pairs, (MAX_EVENT_NANO, MAX_PER_USD_NANO), (1, 500_000_000), (3, 500_000_000), (5, 100_000_000)]
    got = convert_columns(np.array([n for n, _ in pairs], np.int64), np.array([r for _, r in pairs], np.int64)).tolist()
    assert got == [convert(nano, rate) for nano, rate in pairs] == [round(Fraction(n * r, 10**9)) for n, r in pairs]


@given(
    st.lists(st.dates(date(2026, 1, 1), date(2026, 1, 20)), unique=True, max_size=5),
    st.lists(st.dates(date(2025, 12, 30), date(2026, 1, 25)), max_size=10),
)
def test_the_rate_is_the_last_on_or_before_the_day(days: list[date], asked: list[date]) -> None:
    rates = Rates([Rate(day, "EUR", day_number(day), "test") for day in days])
    numbers = np.array([day_number(day) for day in asked], np.int64)
    found_days, found = rates.find(numbers)
    for i, day in enumerate(asked):
        before = [known for known in days if known <= day]
        wanted = (day_number(max(before)),) * 2 if before else None
        assert rates.at(day_number(day)) == wanted
        assert (int(found_days[i]), int(found[i])) == (wanted or (0, 0))


def test_the_compiled_table_equals_the_library() -> None:
    outcome = check(rounds=1, seed=11)
    assert outcome.differences == []
    assert outcome.counts[DIFFERENT] == 0
    assert outcome.counts[EQUAL] > 2_000


def test_every_unit_of_a_frame_is_known_to_the_schema() -> None:
    assert set(Names._fields) | set(COUNTER_COLUMNS) <= SCHEMA.keys()
    assert LATTICE["images"].component == "other"
    assert LATTICE["cache_audio_read_tokens"].component == "cache_read"
