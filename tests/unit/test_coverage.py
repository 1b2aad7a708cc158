"""Two sources of prices: what one alone says is never PRICED; where they differ, the row or a kept reason says so."""

import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.price_events import price_one_of, shipped_book
from tollmeter.cli.root import tollmeter
from tollmeter.schemas.money import MAX_EVENT_NANO
from tollmeter.streams.price.book.coverage import load_settled
from tollmeter.streams.price.book.public_map import MapError, load_shipped, read_map
from tollmeter.streams.rules.pricing.model_names import Names

IN, OUT = 1_000, 200

CASES = [
    # names that the book lacks: one source, so PARTIAL, at its rates
    pytest.param("together", "Qwen/Qwen3-Coder-Next-FP8", "PARTIAL", 500_000 + 240_000, id="one source"),
    pytest.param("together_ai", "together_ai/Qwen/Qwen3-Coder-Next-FP8", "PARTIAL", 740_000, id="map's spelling"),
    pytest.param(
        "nebius", "deepseek-ai/DeepSeek-R1", "PARTIAL", 800_000 + 480_000, id="a provider unknown to the book"
    ),
    pytest.param(
        "bedrock", "bedrock/eu-west-2/meta.llama3-8b-instruct-v1:0", "PARTIAL", 390_000 + 156_000, id="region"
    ),
    # the second source contradicts: the exact name, the seller's own price
    pytest.param("azure", "deepseek-v3.2", "PARTIAL", 580_000 + 336_000, id="the seller's own price"),
    pytest.param("together", "mistralai/Mixtral-8x7B-Instruct-v0.1", "PARTIAL", 900_000 + 180_000, id="nobody knows"),
    # agreed by both once our rules are in front
    pytest.param("azure", "azure/eu/gpt-4o-2024-08-06", "OVERRIDE", 2_750_000 + 2_200_000, id="a data zone"),
    pytest.param("perplexity", "openai/gpt-5-mini", "PRICED", 250_000 + 400_000, id="agent"),
    pytest.param("bedrock", "claude_platform/claude-sonnet-5", "PRICED", 2_000_000 + 2_000_000, id="platform"),
    pytest.param("xai", "grok-code-fast-1", "PRICED", 1_000_000 + 400_000, id="retired name"),
    # settled for the book
    pytest.param("aws", "anthropic.claude-sonnet-5", "PRICED", 2_200_000 + 2_200_000, id="a bare id is regional"),
]


@pytest.mark.parametrize(("provider", "model", "status", "cost_nano"), CASES)
def test_cost(provider: str, model: str, status: str, cost_nano: int | None) -> None:
    row = price_one_of(shipped_book(), provider=provider, model_used=model, input_tokens=IN, output_tokens=OUT)
    assert row["price_status"] == status
    if cost_nano is None:
        assert row["cost_nano"] > 0
        assert row["rule_id"].startswith("single_source:")
    else:
        assert row["cost_nano"] == cost_nano


def test_a_region_of_the_event_is_priced_as_one_in_the_name() -> None:
    fields = {"provider": "aws", "model_used": "meta.llama3-8b-instruct-v1:0", "input_tokens": IN, "output_tokens": OUT}
    london = price_one_of(shipped_book(), **fields, region="eu-west-2")
    assert (london["price_status"], london["cost_nano"]) == ("PARTIAL", 546_000)
    anywhere = price_one_of(shipped_book(), **fields)
    assert (anywhere["price_status"], anywhere["cost_nano"]) == ("PRICED", 420_000)


@pytest.mark.parametrize("at", [datetime(2026, 10, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)])
def test_what_one_source_says_is_never_priced(at: datetime) -> None:
    row = price_one_of(
        shipped_book(), provider="together", model_used="Qwen/Qwen3-Coder-Next-FP8", event_time=at, input_tokens=IN
    )
    assert row["price_status"] == "PARTIAL"


@pytest.mark.parametrize(
    ("fields", "status", "cost_nano"),
    [
        pytest.param({"event_time": datetime(2024, 6, 1, tzinfo=UTC)}, "PARTIAL", 2_500_000, id="before the book"),
        pytest.param({"event_time": datetime(2025, 6, 1, tzinfo=UTC)}, "PRICED", 2_500_000, id="since it began"),
        pytest.param(
            {"event_time": datetime(2026, 9, 1, tzinfo=UTC), "processing": "BATCH"},
            "PRICED",
            1_250_000,
            id="a tier whose date is known",
        ),
        pytest.param(
            {"event_time": datetime(2024, 4, 14, tzinfo=UTC), "processing": "BATCH"},
            "PARTIAL",
            2_500_000,
            id="before the provider offered it",
        ),
        pytest.param(
            {"event_time": datetime(2026, 9, 1, tzinfo=UTC), "service_tier": "priority"},
            "PARTIAL",
            5_000_000,
            id="a tier whose date is not known, at a fair guess",
        ),
        pytest.param(
            {"event_time": datetime(2026, 11, 1, tzinfo=UTC), "service_tier": "priority"},
            "PRICED",
            4_250_000,
            id="a tier that is listed",
        ),
        pytest.param({"service_tier": "hyper"}, "PARTIAL", 2_500_000, id="a tier that nobody lists"),
    ],
)
def test_a_date_without_a_source_is_partial(fields: dict[str, Any], status: str, cost_nano: int) -> None:
    row = price_one_of(shipped_book(), model_used="gpt-4o", input_tokens=IN, **fields)
    assert (row["price_status"], row["cost_nano"]) == (status, cost_nano)


@pytest.mark.parametrize(
    ("fields", "at_risk_nano"),
    [
        pytest.param({"provider": "nobody", "input_tokens": 1_000}, 75_000_000 + 1_000_000, id="tokens"),
        pytest.param({"provider": "", "input_tokens": 1}, 75_000 + 1_000_000, id="no provider"),
        pytest.param({"provider": "nobody", "operation": "image"}, 250_000_000 + 1_000_000, id="an image"),
        pytest.param(
            {"provider": "nobody", "extra_units": {"input_characters": 40_000_000}},
            MAX_EVENT_NANO,
            id="characters",
        ),
        pytest.param(
            {"provider": "deepseek", "extra_units": {"audio_seconds": 60}}, 600_000_000, id="no relative bills it"
        ),
        pytest.param(
            {"provider": "deepseek", "extra_units": {"unexplained_tokens": 1_000}}, 75_000_000, id="a total alone"
        ),
    ],
)
def test_an_unknown_model_is_always_at_risk(fields: dict[str, Any], at_risk_nano: int) -> None:
    row = price_one_of(shipped_book(), **{"model_used": "zz-made-up", **fields})
    assert (row["price_status"], row["cost_nano"]) == ("UNKNOWN_MODEL", None)
    assert row["at_risk_nano"] == at_risk_nano
    assert row["rule_id"] == ("" if fields["provider"] == "deepseek" else "at-risk-default")


def entry(**fields: Any) -> dict[str, Any]:
    return {"litellm_provider": "openai", "mode": "chat", **fields}


def write(path: Path, document: Any, *, packed: bool = False) -> Path:
    body = json.dumps(document).encode()
    path.write_bytes(gzip.compress(body) if packed else body)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_every_difference_is_listed_with_its_reason(tmp_path: Path, packed: bool) -> None:
    names = {
        "gpt-4o": entry(
            input_cost_per_token=2.5e-06, output_cost_per_token=1e-05, cache_read_input_token_cost=1.25e-06
        ),
        "gpt-4o-mini": entry(input_cost_per_token=9e-07, output_cost_per_token=6e-07),
        "gpt-zz-9": entry(input_cost_per_token=1e-06, output_cost_per_token=1e-06),
        "sample_spec": {"mode": "one of: chat"},
    }
    file = write(tmp_path / "map", names, packed=packed)
    done = CliRunner().invoke(tollmeter, ["prices", "compare", str(file), "--json"])
    found = json.loads(done.stdout)
    assert (found["names"], found["agreed"], found["different"], found["unexplained"]) == (3, 1, 1, 1)
    (one,) = found["differences"]
    assert (one["name"], one["ours_usd"], one["theirs_usd"]) == (
        "gpt-4o-mini",
        {"input_tokens": "0.00000015"},
        {"input_tokens": "0.0000009"},
    )
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no name with a rate"),
        ("{", "is neither JSON nor CSV"),
        ("{" * 100_000, "is neither JSON nor CSV"),
        ('{"a": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": "free"}}', "a: "),
        ('{"a": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": -1}}', "no price"),
        ('{"a": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": NaN}}', "no price"),
        ("name,provider,mode,input_cost_per_token\nx,openai,chat,1e999\n", "line 2: "),
        ('name,provider\n"x', "is neither JSON nor CSV"),
        ("\x00\x01", "no name with a rate"),
    ],
)
def test_a_map_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "map.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MapError, match=said):
        read_map(file)
    done = CliRunner().invoke(tollmeter, ["prices", "compare", str(file)])
    assert isinstance(done.exception, Exception | SystemExit)


def test_the_shipped_table_reads_whole_and_settled_names_are_in_it() -> None:
    lines = load_shipped()
    assert len(lines) > 5_000
    assert all(price > 0 for line in lines for price in line.usd.values())
    book = shipped_book()
    for row in load_settled():
        assert row.why
        if not set(row.name) & set("*?["):
            host = "aiplatform.googleapis.com" if row.provider == "google" else ""
            meaning = book.planner.meaning(Names(row.provider, row.name, "", "", host, "", "chat", "", ""))
            assert meaning.listed, f"{row.provider} {row.name} is settled, but the map does not have it"


@pytest.mark.skipif("TOLLMETER_TRACES" not in os.environ, reason="no trace folder: set TOLLMETER_TRACES")
def test_the_whole_map_is_covered_and_explained() -> None:
    (file,) = (Path(os.environ["TOLLMETER_TRACES"]) / "price_names").glob("public_map*.csv.gz")
    done = CliRunner().invoke(tollmeter, ["prices", "compare", str(file), "--json"])
    found = json.loads(done.stdout)
    assert found["unexplained"] == 0
    assert found["names"] > 1_200
    assert found["priced"] >= 0.97 * found["names"]
    assert found["agreed"] >= 0.60 * found["names"]
    assert all(one["why"] for one in found["differences"])
