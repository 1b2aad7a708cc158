"""`tollmeter prices`: tables for people, one JSON document for machines, 1 for a finding, 2 for a wrong file."""

import json
from pathlib import Path

import pytest

from tollmeter.cli.root import run


def test_show_lists_tiers_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prices", "show", "claude-sonnet-4-5", "--at", "2026-11-22"]) == 0
    text = capsys.readouterr().out
    assert "anthropic/claude-sonnet-4-5/batch/from=2026-10-14/above=200000: genai-prices 0.2.3" in text


def test_show_as_json_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prices", "show", "o3", "--at", "2025-06-09T12:00:00Z", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    standard = next(rule for rule in document["rules"] if rule["tier"] == "standard")
    assert standard["usd_per_unit"]["input_tokens"] == "0.00001"
    assert standard["rate_pico"]["output_tokens"] == 40_000_000
    assert standard["in_force"]
    assert standard["valid_to"] == "2025-06-10"


def test_show_tells_the_hour(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prices", "show", "deepseek-v4-flash", "--at", "2026-11-20T02:00:00Z", "--json"]
    assert run(arguments) == 0
    rules = json.loads(capsys.readouterr().out)["rules"]
    assert {rule["from_second"] // 3600: rule["in_force"] for rule in rules} == {
        0: False,
        1: True,
        4: False,
        6: False,
        10: False,
    }


def test_show_an_image_model_and_a_free_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prices", "show", "dall-e-3", "--provider", "openai"]) == 0
    assert "images 0.04 each" in capsys.readouterr().out
    assert run(["prices", "show", "llama3.3", "--provider", "ollama"]) == 0
    assert "free" in capsys.readouterr().out


def test_an_unknown_model_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prices", "show", "gpt4o-mni"]) == 1
    said = capsys.readouterr()
    assert "UNKNOWN_MODEL" in said.err
    assert "openai/gpt-4o-mini" in said.err
    assert run(["prices", "show", "gpt4o-mni", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["known"] is False


def test_check_finds_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prices", "check", "--rounds", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["differences"] == []
    assert document["counts"]["equal"] > 2_000


def test_fx(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prices", "fx", "--json"]) == 0
    assert {row["currency"] for row in json.loads(capsys.readouterr().out)} == {"EUR", "RUB"}


def test_a_wrong_file_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("version: 1\nfree:\n  - {name: a}\n")
    monkeypatch.setenv("TOLLMETER_PRICES_FILE", str(file))
    assert run(["prices", "show", "gpt-4o"]) == 2
    assert capsys.readouterr().err == f"tollmeter: {file}:3: free.0.source: Field required\n"


def test_each_mistake_in_a_file_of_one_s_own_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "version: 1\nfactors:\n  - {name: a, factor: 0, source: test}\n  - {name: b, factor: x, source: test}\n"
    )
    monkeypatch.setenv("TOLLMETER_PRICES_FILE", str(own))
    assert run(["prices", "fx"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": factors")[0] for line in lines] == [f"tollmeter: {own}:{number}" for number in (3, 4)]
