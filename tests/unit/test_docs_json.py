"""`docs/json.md` is true: its examples are taken as they stand, its table is the schema, its rules are kept."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tollmeter.schemas import codec
from tollmeter.streams.rules.events.decode_avro import decode
from tollmeter.streams.rules.events.validate import validate

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES: list[dict[str, Any]] = [json.loads(text) for text in _BLOCK.findall(PAGE)]


def test_the_table_is_the_schema() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+? \| (required)? ?\|", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == list(codec.FIELDS)
    assert {name for name, required in rows if required} == set(codec.FIELDS) - set(codec.DEFAULTS)


def test_examples_are_taken_as_they_stand() -> None:
    assert len(EXAMPLES) == 6
    decoded = decode([json.dumps(example).encode() for example in EXAMPLES])
    assert decoded.rejects == []
    assert decoded.frame["input_tokens"].to_list() == [1_000, 1_000, 0, 0, 0, 10]
    assert len(set(decoded.frame["event_id"].to_list())) == 6
    at = decoded.frame["occurred_at"].to_list()
    assert at[0] == at[1], "text and microseconds"


@pytest.mark.parametrize(
    "change",
    [
        {"input_token": 5},
        {"input_tokens": "5"},
        {"input_tokens": 5.0},
        {"input_tokens": -1},
        {"cache_read_tokens": 1_001},
        {"event_id": "not-a-uuid"},
        {"occurred_at": "2026-11-29T10:00:00"},
        {"tags": {"a": 1}},
        {"user_id": "x" * 257},
        {"tags": {f"k{number}": "v" for number in range(17)}},
        {"model_sent": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_breaks_a_rule_is_refused(change: dict[str, Any]) -> None:
    decoded = decode([json.dumps(EXAMPLES[0] | change).encode()])
    assert len(decoded.rejects or validate(decoded.frame, decoded.index).rejects) == 1
