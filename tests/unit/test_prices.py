"""What single calls cost: values worked out by hand from the providers' price lists, in nano-USD."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.exchange import dated
from tests.price_events import frame, price_one_of, priced, shipped_book
from tollmeter.schemas.money import round_half_even
from tollmeter.schemas.names import without_date
from tollmeter.schemas.priced import PRICED_COLUMNS
from tollmeter.settings import Settings
from tollmeter.streams.price.book import publish
from tollmeter.streams.price.book.book import PriceBook, load
from tollmeter.streams.price.book.fx_history import load_rates
from tollmeter.streams.price.book.overrides import load_overrides
from tollmeter.streams.price.book.relatives import Default
from tollmeter.streams.rules.pricing.fx import Staleness
from tollmeter.streams.rules.pricing.model_names import spellings, tiers, words

SONNET = {"provider": "anthropic", "model_sent": "claude-sonnet-4-5"}
GEMINI = {"provider": "google", "model_sent": "gemini-2.5-pro", "output_tokens": 1_000}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


CASES: list[Any] = [
    # 1000 x 2.50 + 200 x 10 USD per million
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "output_tokens": 200}, "PRICED", 4_500_000, id="gpt-4o"
    ),
    # 400 x 2.50 + 600 cached x 1.25 + 200 x 10
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "cache_read_tokens": 600, "output_tokens": 200},
        "PRICED",
        1_000_000 + 750_000 + 2_000_000,
        id="gpt-4o cached",
    ),
    # batch since 2026-10-14: half
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "output_tokens": 200, "processing": "BATCH"},
        "PRICED",
        2_250_000,
        id="batch",
    ),
    pytest.param(
        {
            "model_sent": "gpt-4o",
            "input_tokens": 1000,
            "output_tokens": 200,
            "processing": "BATCH",
            "event_time": at("2026-10-13T23:59:59"),
        },
        "PRICED",
        2_250_000,
        id="batch before it is listed",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "output_tokens": 200, "service_tier": "priority"},
        "PRICED",
        4_250_000 + 3_400_000,
        id="priority",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "output_tokens": 200, "service_tier": "default"},
        "PRICED",
        4_500_000,
        id="default tier is the standard price",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "service_tier": "scale"},
        "PARTIAL",
        2_500_000,
        id="a tier without a price of its own",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "service_tier": "flex", "processing": "BATCH"},
        "PARTIAL",
        1_250_000,
        id="two tiers of which the book knows one",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "processing": "BATCH", "event_time": at("2024-03-01T00:00:00")},
        "PARTIAL",
        2_500_000,
        id="batch before there was any",
    ),
    pytest.param(
        {"provider": "aws", "model_sent": "openai.gpt-oss-120b-1:0", "input_tokens": 1000, "service_tier": "flex"},
        "PARTIAL",
        75_000,
        id="a tier whose factor is a guess",
    ),
    pytest.param(
        {"provider": "anthropic", "model_sent": "claude-sonnet-4-6", "region": "us", "input_tokens": 1000}
        | {"extra_units": {"web_searches": 1}},
        "PRICED",
        3_300_000 + 10_000_000,
        id="a regional surcharge is on tokens alone",
    ),
    pytest.param(
        {"model_sent": "gpt-5.4", "api_host": "https://eu.api.openai.com/v1", "input_tokens": 1000},
        "PRICED",
        2_750_000,
        id="the host of a region",
    ),
    pytest.param(
        {"model_sent": "gpt-5.2", "api_host": "eu.api.openai.com", "input_tokens": 1000},
        "PRICED",
        1_750_000,
        id="a model from before the surcharge",
    ),
    pytest.param(
        {"provider": "google", "model_sent": "claude-sonnet-4-5@20250929", "input_tokens": 1000, "region": "us-east5"}
        | {"api_host": "us-east5-aiplatform.googleapis.com"},
        "PRICED",
        3_300_000,
        id="host and region say the same surcharge, billed once",
    ),
    pytest.param(
        {"provider": "google", "model_sent": "claude-sonnet-4-5", "input_tokens": 1000, "region": "europe-west1"},
        "PRICED",
        3_300_000,
        id="a region without a host",
    ),
    pytest.param(
        {"provider": "vertex_ai", "model_sent": "claude-sonnet-4-5", "input_tokens": 1000},
        "PARTIAL",
        3_000_000,
        id="neither host nor region: it may be the dearer endpoint",
    ),
    pytest.param(
        {"provider": "vertex_ai", "model_sent": "claude-sonnet-4-5", "input_tokens": 1000, "processing": "BATCH"},
        "PARTIAL",
        1_500_000,
        id="the same by batch",
    ),
    pytest.param(
        {"provider": "vertex_ai", "model_sent": "claude-sonnet-4", "input_tokens": 1000},
        "PRICED",
        3_000_000,
        id="a model from before regional endpoints cost more",
    ),
    pytest.param(
        {"provider": "google", "model_sent": "claude-sonnet-4-5", "input_tokens": 1000, "region": "global"},
        "PRICED",
        3_000_000,
        id="the global endpoint",
    ),
    pytest.param(
        {"provider": "google", "model_sent": "claude-opus-4-1", "input_tokens": 1000, "region": "us-east5"},
        "PRICED",
        15_000_000,
        id="a model that costs the same in every region",
    ),
    pytest.param(
        {"provider": "google", "model_sent": "gemini-2.5-flash", "input_tokens": 1000}
        | {"extra_units": {"web_searches": 1}},
        "PRICED",
        300_000 + 35_000_000,
        id="a fee that the book leaves out",
    ),
    pytest.param(
        {"provider": "perplexity", "model_sent": "sonar-pro", "input_tokens": 1000}
        | {"extra_units": {"search_context_medium": 1}},
        "PRICED",
        3_000_000 + 10_000_000,
        id="a request fee by its search context",
    ),
    pytest.param(
        {"model_sent": "dall-e-3", "operation": "image", "extra_units": {"images": 2, "images_hd_large": 2}},
        "OVERRIDE",
        240_000_000,
        id="images by quality and size",
    ),
    pytest.param(
        {"provider": "deepseek", "model_sent": "deepseek-chat", "input_tokens": 1000, "output_tokens": 1000}
        | {"event_time": at("2026-08-20T02:00:00")},
        "PRICED",
        440_000 + 1_320_000,
        id="an old name stands for the new model, at its peak hours",
    ),
    pytest.param(
        {"provider": "deepseek", "model_sent": "deepseek-reasoner", "input_tokens": 1000, "output_tokens": 1000}
        | {"event_time": at("2026-01-05T12:00:00")},
        "PRICED",
        280_000 + 420_000,
        id="an old name before that",
    ),
    # 4000 x 3 + 4000 x 0.30 + 1500 x 3.75 + 500 x 6 + 200 x 15
    pytest.param(
        SONNET
        | {
            "input_tokens": 10_000,
            "cache_read_tokens": 4_000,
            "cache_write_tokens": 2_000,
            "cache_write_1h_tokens": 500,
            "output_tokens": 200,
        },
        "PRICED",
        12_000_000 + 1_200_000 + 5_625_000 + 3_000_000 + 3_000_000,
        id="claude with cache",
    ),
    # the whole request at the tier of its total input, from 200,001 on
    pytest.param(GEMINI | {"input_tokens": 200_000}, "PRICED", 200_000 * 1_250 + 10_000_000, id="gemini at 200k"),
    pytest.param(GEMINI | {"input_tokens": 200_001}, "PRICED", 200_001 * 2_500 + 15_000_000, id="gemini above 200k"),
    pytest.param(
        {"model_sent": "o3", "input_tokens": 1000, "output_tokens": 100, "event_time": at("2025-06-09T23:59:59")},
        "PRICED",
        10_000_000 + 4_000_000,
        id="o3 before the cut",
    ),
    pytest.param(
        {"model_sent": "o3", "input_tokens": 1000, "output_tokens": 100, "event_time": at("2025-06-10T00:00:00")},
        "PRICED",
        2_000_000 + 800_000,
        id="o3 after the cut",
    ),
    # 20 tokens x 0.02 USD per million = 400 nano-USD: micro units would lose it
    pytest.param(
        {"model_sent": "text-embedding-3-small", "operation": "embeddings", "input_tokens": 20},
        "PRICED",
        400,
        id="small embedding",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "extra_units": {"web_searches": 3.0}},
        "PRICED",
        2_500_000 + 30_000_000,
        id="web searches",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "extra_units": {"code_executions": 1.0}},
        "PARTIAL",
        2_500_000,
        id="a unit without a price",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 1000, "extra_units": {"input_image_tokens": 765.0}},
        "PRICED",
        2_500_000,
        id="image input is billed as text",
    ),
    # Groq bills at least 10 s: 10 x 0.04 USD / 3600, rounded as the compiled rate is
    pytest.param(
        {
            "provider": "groq",
            "model_sent": "whisper-large-v3-turbo",
            "operation": "transcription",
            "extra_units": {"audio_seconds": 2.5},
        },
        "PRICED",
        111_111,
        id="groq minimum of 10 s",
    ),
    # images
    pytest.param({"model_sent": "dall-e-3", "operation": "image"}, "OVERRIDE", 40_000_000, id="dall-e-3, no tokens"),
    pytest.param(
        {"model_sent": "dall-e-3", "operation": "image", "extra_units": {"images": 3.0}},
        "OVERRIDE",
        120_000_000,
        id="three images",
    ),
    pytest.param(
        {"model_sent": "dall-e-3", "operation": "image", "service_tier": "hd"}, "OVERRIDE", 80_000_000, id="hd"
    ),
    pytest.param(
        {"model_sent": "dall-e-3", "operation": "image", "input_tokens": 12},
        "OVERRIDE",
        40_000_000,
        id="prompt tokens of an image are not billed",
    ),
    pytest.param(
        {"model_sent": "gpt-image-1", "operation": "image"}, "OVERRIDE", 42_000_000, id="gpt-image, no tokens"
    ),
    pytest.param(
        {"model_sent": "gpt-image-1", "operation": "image", "input_tokens": 100, "output_tokens": 1056},
        "PRICED",
        500_000 + 42_240_000,
        id="gpt-image by token",
    ),
    # overrides
    pytest.param(
        {"provider": "mistral", "model_sent": "mistral-large-latest", "input_tokens": 1000, "output_tokens": 100},
        "PRICED",
        500_000 + 150_000,
        id="alias",
    ),
    pytest.param(
        {
            "provider": "mistral",
            "model_sent": "mistral-large-latest",
            "input_tokens": 1000,
            "event_time": at("2025-12-01T00:00:00"),
        },
        "PRICED",
        2_000_000,
        id="alias not yet in force",
    ),
    pytest.param(
        {"provider": "azure", "model_sent": "text-embedding-3-small", "input_tokens": 1000},
        "OVERRIDE",
        22_000,
        id="azure embeddings, 10 % dearer",
    ),
    pytest.param(
        {"provider": "azure", "model_sent": "gpt-4o", "input_tokens": 1000, "processing": "BATCH"},
        "PRICED",
        1_250_000,
        id="azure keeps the batch discount",
    ),
    pytest.param(
        {"model_sent": "ft:gpt-4.1-2025-04-14:acme::x", "input_tokens": 1000, "cache_read_tokens": 1000},
        "OVERRIDE",
        750_000,
        id="fine-tune",
    ),
    pytest.param(
        {"model_sent": "gpt-4o-audio-preview", "input_tokens": 1000, "extra_units": {"input_audio_tokens": 400.0}},
        "OVERRIDE",
        600 * 2_500 + 400 * 40_000,
        id="audio tokens",
    ),
    # peak hour of a Friday and of the Saturday after it
    pytest.param(
        {
            "provider": "deepseek",
            "model_sent": "deepseek-v4-flash",
            "input_tokens": 1000,
            "event_time": at("2026-11-20T02:00:00"),
        },
        "PRICED",
        300_000,
        id="peak hour",
    ),
    pytest.param(
        {
            "provider": "deepseek",
            "model_sent": "deepseek-v4-flash",
            "input_tokens": 1000,
            "event_time": at("2026-11-21T02:00:00"),
        },
        "OVERRIDE",
        150_000,
        id="weekend",
    ),
    pytest.param({"provider": "ollama", "model_sent": "llama3.3", "input_tokens": 1000}, "FREE", 0, id="local model"),
    pytest.param(
        {"provider": "huggingface", "model_sent": "Qwen/Qwen3-8B", "api_host": "localhost:8080", "input_tokens": 1000},
        "FREE",
        0,
        id="huggingface on this machine",
    ),
    # names
    pytest.param(
        {"provider": "google", "model_sent": "models/gemini-2.5-pro", "input_tokens": 1000},
        "PRICED",
        1_250_000,
        id="models/ prefix",
    ),
    pytest.param({"model_sent": "gpt-4o-2099-01-01", "input_tokens": 1000}, "PARTIAL", 2_500_000, id="unknown date"),
    pytest.param(
        {"model_sent": "gpt-4o", "model_used": "gpt-4o-mini", "input_tokens": 1000},
        "PRICED",
        150_000,
        id="the model used counts",
    ),
    pytest.param(
        {"provider": "gcp.vertex_ai", "model_sent": "gemini-2.5-pro", "input_tokens": 1000},
        "PRICED",
        1_250_000,
        id="OpenTelemetry provider name",
    ),
    pytest.param(
        {"provider": "openai", "api_host": "api.deepseek.com", "model_sent": "deepseek-v3.2-exp", "input_tokens": 1000},
        "PRICED",
        270_000,
        id="the host settles the provider",
    ),
    pytest.param(
        {"provider": "aws", "model_sent": "amazon.nova-pro-v1:0", "region": "us-gov-west-1", "input_tokens": 1000},
        "PRICED",
        960_000,
        id="GovCloud",
    ),
    # none
    pytest.param(
        {"model_sent": "gpt-4o", "status": "BLOCKED", "input_tokens": 1000}, "FREE", 0, id="refused by our cap"
    ),
    pytest.param({"model_sent": "gpt-4o", "status": "ERROR"}, "NO_USAGE", None, id="no usage"),
    pytest.param({"model_sent": "dall-e-9", "operation": "image"}, "UNKNOWN_MODEL", None, id="unknown image model"),
    pytest.param(
        {"model_sent": "dall-e-3", "operation": "image", "status": "ERROR"},
        "NO_USAGE",
        None,
        id="a failed image call made none",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 10, "cache_read_tokens": 11},
        "INVALID",
        None,
        id="a part above its whole",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "input_tokens": 10, "extra_units": {"input_audio_tokens": 11.0}},
        "PARTIAL",
        25_000,
        id="an unpriced part",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "model_used": "a-routers-choice", "input_tokens": 1000},
        "PARTIAL",
        2_500_000,
        id="an unknown model answered for the one that was asked",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "model_used": "gpt-4o-mega-2027-01-31", "input_tokens": 1000},
        "PARTIAL",
        2_500_000,
        id="an unknown model whose name begins alike",
    ),
    pytest.param(
        {"model_sent": "gpt-4o", "model_used": "gpt-4o-2027-01-31", "input_tokens": 1000},
        "PRICED",
        2_500_000,
        id="another version of the model that was asked",
    ),
    pytest.param({"model_sent": "o1-pro", "output_tokens": 10_000_000}, "INVALID", None, id="above 1,000 USD"),
    pytest.param(
        {"model_sent": "tts-1", "input_tokens": 10}, "UNKNOWN_MODEL", None, id="nothing of what was used is priced"
    ),
]


@pytest.mark.parametrize(("fields", "status", "cost_nano"), CASES)
def test_cost(fields: dict[str, Any], status: str, cost_nano: int | None) -> None:
    row = price_one_of(shipped_book(), **fields)
    assert (row["price_status"], row["cost_nano"]) == (status, cost_nano)
    parts = [row[f"cost_{part}_nano"] for part in ("input", "cache_read", "cache_write", "output", "other")]
    if cost_nano is None:
        assert parts == [None] * 5
        assert row["rule_id"] == ""
        assert row["cost_eur_nano"] is None
    else:
        assert sum(parts) == cost_nano
        assert row["at_risk_nano"] is None or status == "PARTIAL"


def test_all_cases_in_one_frame_as_one_by_one() -> None:
    fields = [case.values[0] for case in CASES]
    together = priced(shipped_book(), fields)
    assert together == [price_one_of(shipped_book(), **one) for one in fields]
    assert [row["price_status"] for row in together] == [case.values[1] for case in CASES]


def test_components_of_a_cached_call() -> None:
    row = price_one_of(
        shipped_book(),
        **SONNET,
        input_tokens=10_000,
        cache_read_tokens=4_000,
        cache_write_tokens=2_000,
        cache_write_1h_tokens=500,
        output_tokens=200,
        extra_units={"web_searches": 1.0},
    )
    assert (row["cost_input_nano"], row["cost_cache_read_nano"]) == (12_000_000, 1_200_000)
    assert (row["cost_cache_write_nano"], row["cost_output_nano"]) == (8_625_000, 3_000_000)
    assert row["cost_other_nano"] == 10_000_000
    assert row["rule_id"] == "anthropic/claude-sonnet-4-5/standard"


@pytest.mark.parametrize(
    ("fields", "at_risk"),
    [
        # the dearest gpt-4o-mini for these counts is the one that speaks: 0.60 and 12
        pytest.param({"provider": "azure", "deployment": "gpt-4o-mini-prod"}, 600_000 + 1_200_000, id="of the family"),
        # no model of the name's first word: the dearest of the provider, o1-pro at 150 and 600
        pytest.param({"model_sent": "zeta-1"}, 150_000_000 + 60_000_000, id="of the provider"),
        pytest.param({"provider": "acme", "model_sent": "zeta-1"}, 1_100 * 75_000 + 1_000_000, id="nobody knows"),
        pytest.param({"model_sent": "zeta-1", "input_tokens": 0, "output_tokens": 0}, None, id="no usage"),
    ],
)
def test_unknown_models_are_at_risk(fields: dict[str, Any], at_risk: int | None) -> None:
    row = price_one_of(shipped_book(), **({"input_tokens": 1000, "output_tokens": 100} | fields))
    assert row["price_status"] in ("UNKNOWN_MODEL", "NO_USAGE")
    assert (row["cost_nano"], row["at_risk_nano"]) == (None, at_risk)
    assert (row["at_risk_eur_nano"] is None) == (at_risk is None)


def test_columns_are_those_of_the_contract() -> None:
    made = shipped_book().price(frame({"model_sent": "gpt-4o", "input_tokens": 1}))
    names = [column.name for column in PRICED_COLUMNS]
    assert made.columns == [name for name in names[names.index("price_status") :] if name != "total_tokens"]
    types = {pl.String: {"dict"}, pl.Int64: {"i64?"}, pl.Date: {"date?"}}
    for column in PRICED_COLUMNS[names.index("price_status") :]:
        if column.source:
            continue
        assert column.kind in types[made.schema[column.name].base_type()], column.name


def test_an_empty_frame_and_categorical_text() -> None:
    assert len(shipped_book().price(frame())) == 0
    events = frame(*(case.values[0] for case in CASES))
    texts = [name for name, kind in events.schema.items() if kind == pl.String]
    as_categories = events.with_columns(pl.col(texts).cast(pl.Categorical))
    assert shipped_book().price(as_categories).equals(shipped_book().price(events))


@pytest.mark.parametrize(
    ("day", "eur", "rub", "fx_date"),
    [
        # 4,500,000 nano-USD x 0.962556550 and x 101.6797
        pytest.param("2025-01-01T00:00:00", 4_331_504, 457_558_650, date(2024, 12, 31), id="both"),
        pytest.param("2024-12-31T23:59:59", 4_331_504, None, date(2024, 12, 31), id="EUR only"),
        pytest.param("2024-12-30T23:59:59", None, None, None, id="before every rate"),
    ],
)
def test_currencies(day: str, eur: int | None, rub: int | None, fx_date: date | None) -> None:
    row = price_one_of(shipped_book(), model_sent="gpt-4o", input_tokens=1000, output_tokens=200, event_time=at(day))
    assert (row["cost_eur_nano"], row["cost_rub_nano"], row["fx_date"]) == (eur, rub, fx_date)


def test_the_newest_rate_on_or_before_the_day(tmp_path: Path) -> None:
    file = tmp_path / "fx.csv"
    file.write_text(
        "day,currency,usd_per_unit,units_per_usd,source\n"
        "2026-11-18,EUR,1.25,,test\n2026-11-20,EUR,2,,test\n2026-11-21,EUR,4,,test\n"
    )
    book = load(Settings(fx_file=str(file)))
    rows = priced(
        book,
        [
            {"model_sent": "gpt-4o", "input_tokens": 1000, "event_time": at(f"2026-11-{day}T12:00:00")}
            for day in (17, 18, 19, 20, 22)
        ],
    )
    assert [row["cost_eur_nano"] for row in rows] == [None, 2_000_000, 2_000_000, 1_250_000, 625_000]
    assert [row["fx_date"] and row["fx_date"].day for row in rows] == [None, 18, 18, 20, 21]


def test_the_name_of_the_book_follows_its_rules(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("version: 1\nfree: [{name: lab, provider: lab, source: our own machines}]\n")
    book = load(dated().model_copy(update={"prices_file": str(own)}))
    assert book.id != shipped_book().id == load(dated()).id
    assert book.id.startswith("genai-prices-0.2.3-")
    assert price_one_of(book, provider="lab", model_sent="x", input_tokens=1)["price_status"] == "FREE"
    assert price_one_of(book, model_sent="dall-e-3", operation="image")["cost_nano"] == 40_000_000


def test_own_rules_stand_before_the_shipped_ones(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "version: 1\n"
        "aliases: [{name: prod-mini, provider: azure, model: gpt-4o-mini-prod, to: gpt-4o-mini, source: portal}]\n"
        "factors:\n"
        "  - {name: deal, provider: openai, factor: '0.8', valid_from: 2026-11-01, source: contract}\n"
        "rates:\n"
        "  - {name: gpu, provider: ollama, usd_per_mtok: {input_tokens: 0.01, output_tokens: 0.02}, source: power}\n"
    )
    book = load(dated().model_copy(update={"prices_file": str(own)}))
    old = at("2026-10-31T12:00:00")
    rows = priced(
        book,
        [
            {"provider": "azure", "deployment": "gpt-4o-mini-prod", "input_tokens": 1000},
            {"model_sent": "gpt-4o", "input_tokens": 1000},
            {"model_sent": "gpt-4o", "input_tokens": 1000, "event_time": old},
            {"model_sent": "dall-e-3", "operation": "image"},
            {"provider": "ollama", "model_sent": "llama3.3", "input_tokens": 1000},
        ],
    )
    assert [(row["price_status"], row["cost_nano"]) for row in rows] == [
        ("PRICED", 150_000),
        ("OVERRIDE", 2_000_000),
        ("PRICED", 2_500_000),
        ("OVERRIDE", 32_000_000),
        ("OVERRIDE", 10_000),
    ]
    _, value = publish.document(load(dated().model_copy(update={"prices_file": str(own)})))
    named = {rule["rule_id"] for rule in json.loads(value)["rules"]}
    assert {row["rule_id"] for row in rows} <= named


def test_published_rules_re_price_every_case() -> None:
    """Counts times the published marginal rates give the cost; failing that nobody can check a bill."""
    book = load(dated())
    key, value = publish.document(book)
    assert key == book.id.encode()
    assert len(value) < 8_000_000
    rules = {rule["rule_id"]: rule for rule in json.loads(value)["rules"]}
    assert len(rules) == len(json.loads(value)["rules"])
    for case in CASES:
        fields = case.values[0]
        row = price_one_of(book, **fields)
        if not row["cost_nano"] or "groq" in case.id:
            continue
        rates = rules[row["rule_id"]]["rate_pico"]
        counts = dict(fields.get("extra_units", {})) | {unit: fields.get(unit, 0) for unit in rates if "tokens" in unit}
        counts |= {"images": 1.0} if fields.get("operation") == "image" and "images" not in counts else {}
        counts |= fields.get("extra_units", {})
        pico = sum(int(count) * rates.get(unit, 0) for unit, count in counts.items()) + rates.get("requests", 0)
        assert round_half_even(pico, 1_000) == row["cost_nano"], case.id


def test_a_flood_of_names_is_forgotten_not_kept() -> None:
    book = PriceBook(load_overrides(), load_rates(), Default(75), Staleness(7, 5), remembered=100)
    for start in range(0, 600, 50):
        rows = priced(book, [{"model_sent": f"zeta-{start + i}", "input_tokens": 1} for i in range(25)])
        rows += priced(book, [{"provider": f"acme-{start + i}", "input_tokens": 1} for i in range(25)])
        assert {row["price_status"] for row in rows} == {"UNKNOWN_MODEL"}
        assert book.known <= 150
    assert len(book.plans) < 10


@pytest.mark.parametrize(
    ("name", "shorter"),
    [
        ("gpt-4o-2099-01-01", "gpt-4o"),
        ("claude-x-20250101", "claude-x"),
        ("x@20250101", "x"),
        ("gpt-4-0613", ""),
        ("mistral-large-2512", ""),
        ("gpt-4o", ""),
        ("gpt-4o-2025-13-01", ""),
    ],
)
def test_only_whole_dates_are_stripped(name: str, shorter: str) -> None:
    assert without_date(name) == shorter


def test_names() -> None:
    assert spellings("publishers/google/models/Gemini-2.5-Pro", "google")[-1] == "gemini-2.5-pro"
    assert "gpt-4o" in spellings("openai/gpt-4o", "openai")
    assert words("ft:gpt-4.1-mini:acme") == ("gpt", "4.1", "mini", "acme")
    assert tiers("Priority", "BATCH") == ("batch", "priority")
    assert tiers("standard", "REALTIME") == ()


@pytest.mark.parametrize(
    ("day", "cost", "at_risk", "dated_by"),
    [
        pytest.param("2026-11-01", 2_000_000, None, date(2026, 11, 1), id="on its day"),
        pytest.param("2026-11-08", 2_000_000, None, date(2026, 11, 1), id="seven days old"),
        # 2,500,000 x 0.8 x 1.05
        pytest.param("2026-11-09", None, 2_100_000, None, id="eight days old: unknown, and at risk with a margin"),
        pytest.param("2026-10-31", None, None, None, id="before the first rate"),
    ],
)
def test_a_rate_that_is_too_old_is_no_rate(
    tmp_path: Path, day: str, cost: int | None, at_risk: int | None, dated_by: date | None
) -> None:
    file = tmp_path / "fx.csv"
    file.write_text("day,currency,usd_per_unit,units_per_usd,source\n2026-11-01,EUR,1.25,,deal\n")
    book = load(Settings(fx_file=str(file)))
    known = price_one_of(book, model_used="gpt-4o", input_tokens=1_000, event_time=at(f"{day}T12:00:00"))
    assert (known["cost_nano"], known["at_risk_nano"]) == (2_500_000, None)
    assert (known["cost_eur_nano"], known["at_risk_eur_nano"], known["fx_date"]) == (cost, at_risk, dated_by)
    unknown = price_one_of(
        book, provider="nobody", model_used="x", input_tokens=1_000, event_time=at(f"{day}T12:00:00")
    )
    assert (unknown["cost_eur_nano"], unknown["at_risk_nano"]) == (None, 76_000_000)
    wanted = {2_000_000: 60_800_000, None: 63_840_000 if at_risk else None}[cost]
    assert unknown["at_risk_eur_nano"] == wanted


def test_a_margin_never_rounds_down() -> None:
    assert Staleness(7, 5).raised(np.array([1, 10, 962_556_550])).tolist() == [2, 11, 1_010_684_378]
