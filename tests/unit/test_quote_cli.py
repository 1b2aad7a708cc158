"""`tollmeter quote`: any way an answer comes, one JSON document for machines, one line for a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_golden_payloads import cases
from tollmeter.cli.root import run
from tollmeter.schemas.event import UsageEvent

CHAT = {"id": "c1", "model": "gpt-4o", "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}}
AT = ["--at", "2026-11-29T12:00:00Z"]


def write(folder: Path, content: object) -> str:
    file = folder / "answer"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(file)


def test_one_document_with_the_event_and_its_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", write(tmp_path, CHAT), *AT, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["events"]
    (event,) = document["events"]
    assert event["event"].keys() == UsageEvent.model_fields.keys()
    assert (event["event"]["input_tokens"], event["event"]["occurred_at"]) == (1000, "2026-11-29T12:00:00Z")
    assert (event["cost_nano"], event["price_status"], event["rule_id"]) == (
        4_500_000,
        "PRICED",
        "openai/gpt-4o/standard",
    )
    parts = {"input": 2_500_000, "cache_read": 0, "cache_write": 0, "output": 2_000_000, "other": 0}
    assert event["components_nano"] == parts


def test_no_billable_call_is_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", write(tmp_path, {"input_tokens": 14}), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"events": []}
    assert run(["quote", write(tmp_path, {"input_tokens": 14})]) == 0
    assert "no billable call" in capsys.readouterr().out


@pytest.mark.parametrize("shape", ["array", "events", "lines"])
def test_a_stream_in_any_form(shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunks = cases()["anthropic: a later delta wipes nothing"]["stream"]
    texts = {
        "array": json.dumps(chunks),
        "events": "".join(f"event: {chunk['type']}\r\ndata: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks),
        "lines": "\n".join(map(json.dumps, chunks)),
    }
    assert run(["quote", write(tmp_path, texts[shape]), *AT, "--json"]) == 0
    (event,) = json.loads(capsys.readouterr().out)["events"]
    assert (event["cost_nano"], event["event"]["stream"], event["event"]["status"]) == (5_850_000, True, "OK")


def test_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tollmeter", "quote", "-", "--json"]
    done = subprocess.run(
        [*command, "--model-sent", "gpt-realtime", *AT],
        input='data: {"type":"response.done","response":{"id":"r","usage":{"input_tokens":10,"output_tokens":0}}}\n',
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["events"][0]["cost_nano"] == 40_000
    assert list(tmp_path.iterdir()) == [], "nothing is left behind, and no stack was needed"


def test_people_see_the_parts_and_the_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", write(tmp_path, CHAT), *AT]) == 0
    shown = capsys.readouterr().out
    for text in ("0.002500000", "0.004500000", "PRICED by openai/gpt-4o/standard", "model_used"):
        assert text in shown


def test_options_are_the_callers_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--api-host", "eu.api.openai.com", "--model-used", "gpt-5.4", "--processing", "BATCH"]
    assert run(["quote", write(tmp_path, CHAT), *AT, "--json", *given]) == 0
    (event,) = json.loads(capsys.readouterr().out)["events"]
    assert (event["event"]["region"], event["event"]["processing"]) == ("eu", "BATCH")
    assert event["cost_nano"] == (1000 * 1250 + 200 * 7500) * 11 // 10


def test_an_unknown_model_shows_what_is_at_risk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", write(tmp_path, CHAT | {"model": "gpt-4o-ultra"}), *AT, "--json"]) == 0
    (event,) = json.loads(capsys.readouterr().out)["events"]
    assert (event["cost_nano"], event["price_status"]) == (None, "UNKNOWN_MODEL")
    assert event["at_risk_nano"] > 0


def test_a_case_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = {"at": "2026-11-29T12:00:00Z", "keywords": {}, "input": CHAT}
    right = {"input_tokens": 1000, "cost_nano": 4_500_000, "price_status": "PRICED or OVERRIDE", "note": "for people"}
    assert run(["quote", "--case", write(tmp_path, case | {"right": right})]) == 0
    wrong = right | {"cost_nano": 1, "extra_units": {"web_searches": 1}}
    assert run(["quote", "--case", write(tmp_path, case | {"right": wrong})]) == 1
    said = capsys.readouterr().err
    assert "cost_nano is 4500000, should be 1" in said
    assert "extra_units" in said


@pytest.mark.parametrize(
    ("content", "arguments", "text"),
    [
        ("hello", [], "neither JSON nor"),
        ("", [], "nothing in it"),
        ({"input": {}}, ["--case"], "a case has `input` or `stream`"),
        ({"input": CHAT, "right": {}, "keywords": {"usr": 1}}, ["--case"], "no such field of a usage event: usr"),
        ({"input": CHAT, "right": {}, "at": "yesterday"}, ["--case"], "is no time"),
    ],
)
def test_a_mistake_is_one_line(
    content: object, arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["quote", write(tmp_path, content), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert text in said.err
    assert said.err.count("\n") == 1


def test_no_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", str(tmp_path / "none.json")]) == 2
    assert run(["quote"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
