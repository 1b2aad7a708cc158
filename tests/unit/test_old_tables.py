"""What older meters kept becomes events: each row once, with its own id, and nothing made up."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tollmeter.producers.imports.imports import Import, Report, events
from tollmeter.producers.imports.readers import UnreadableError
from tollmeter.schemas.event import UsageEvent

AT = "2026-11-22T10:00:00Z"
LOG = "(id, tracking_token, model, prompt_tokens, completion_tokens, total_tokens, timestamp)"


def database(folder: Path, **tables: tuple[str, list[tuple[Any, ...]]]) -> Path:
    file = folder / "old.sqlite"
    file.unlink(missing_ok=True)
    with sqlite3.connect(file) as made:
        for name, (columns, rows) in tables.items():
            made.execute(f"CREATE TABLE {name} {columns}")
            for row in rows:
                made.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
    made.close()
    return file


def imported(file: Path, **options: Any) -> tuple[list[UsageEvent], Report]:
    report = Report()
    return [event for _, event in events(Import(str(file), **options), report)], report


def test_a_usage_log_with_its_tokens(tmp_path: Path) -> None:
    rows = [
        (1, "t" * 22, "gpt-4o", 1_000, 200, 1_200, AT),
        (2, "t" * 22, "gpt-4o", 1_000, 200, 1_200, AT),  # looks the same, and is another call
        (3, "u" * 22, "claude-x", 5, 5, 12, 1_795_946_400),
        (4, "u" * 22, "gpt-4o", 5, 5, 9, AT),
        (5, "u" * 22, "gpt-4o", 5, None, None, AT),
        (6, "u" * 22, "gpt-4o", "5.5", 1, None, AT),
        (7, "u" * 22, "gpt-4o", 5, 5, 10, "yesterday"),
        (8, "u" * 22, None, 5, 5, 10, AT),
    ]
    tokens = [(1, "shop", "t" * 22, 1, AT), (2, "app", "u" * 22, 0, "2026-01-01 00:00:00")]
    file = database(
        tmp_path,
        usage_log=(LOG, rows),
        ingest_tokens=("(id, name, value, active, created_at)", tokens),
        sessions=("(id)", [(1,)]),
    )
    found, report = imported(file)
    assert [(event.input_tokens, event.output_tokens, event.provider) for event in found] == [
        (1_000, 200, "openai"),
        (1_000, 200, "openai"),
        (5, 5, "anthropic"),
    ]
    assert len({event.event_id for event in found}) == 3
    assert {event.org_id for event in found} == {"default"}
    assert found[0].tags == {"tracking_token": "t" * 22}
    assert found[2].tags["usage_suspect"] == "total_tokens 12 exceed the sum 10"
    assert found[2].occurred_at == datetime(2026, 11, 29, 10, 0, tzinfo=UTC)
    assert (report.read, report.events, report.bad, len(report.tokens)) == (10, 3, 5, 2)
    assert [(bad.place, bad.reason.partition(":")[0]) for bad in report.first_bad] == [
        ("usage_log row 4", "total_tokens"),
        ("usage_log row 5", "tokens"),
        ("usage_log row 6", "prompt_tokens"),
        ("usage_log row 7", "timestamp"),
        ("usage_log row 8", "model"),
    ]
    assert [(token.name, token.active) for token in report.tokens] == [("shop", True), ("app", False)]
    assert [event.event_id for event in imported(file)[0]] == [event.event_id for event in found]
    assert {event.org_id for event in imported(file, org="acme")[0]} == {"acme"}


def test_a_row_that_goes_changes_no_other_id(tmp_path: Path) -> None:
    columns = "(user_id, agent_id, ai_provider, ai_model, prompt_tokens, completion_tokens, total_tokens, created_at)"
    rows = [("ann", "bot", "openai", "gpt-4o", 1, 1, 2, AT), ("bob", "bot", "openai", "gpt-4o", 1, 1, 2, AT)]
    both = imported(database(tmp_path, token_usage=(columns, [*rows, rows[0]])))[0]
    assert len({event.event_id for event in both}) == 3
    left = imported(database(tmp_path, token_usage=(columns, rows[1:])))[0]
    assert [event.event_id for event in left] == [both[1].event_id]


def test_token_usage_and_images(tmp_path: Path) -> None:
    rows = [
        {"user_id": "ann", "agent_id": "bot", "ai_provider": "OpenAI", "ai_model": "gpt-4o", "prompt_tokens": 1000,
         "completion_tokens": 200, "total_tokens": 1200, "cost_usd": 0.0045, "created_at": AT},
        {"user_id": "ann", "ai_provider": "openai", "ai_model": "dall-e-3", "prompt_tokens": 0,
         "completion_tokens": 0, "total_tokens": 0, "cost_usd": "0.04", "created_at": AT},
        {"user_id": "ann", "ai_provider": "openai", "ai_model": "gpt-4o", "cost_usd": "much", "created_at": AT},
    ]  # fmt: skip
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    (call, image), report = imported(file)
    assert (call.user_id, call.agent, call.provider, call.reported_cost_nano) == ("ann", "bot", "openai", 4_500_000)
    assert (image.operation, image.extra_units, image.usage_source) == ("image", {"images": 1.0}, "ESTIMATED")
    assert [bad.reason for bad in report.first_bad] == ["cost_usd: 'much' is no amount in USD"]


def test_operations_that_know_only_a_total_stay_without_a_cost(tmp_path: Path) -> None:
    columns = "(id, operation_name, provider, model, tokens_used, estimated_cost, success, timestamp)"
    rows = [(1, "summarise", "openai", "gpt-4o", 1_200, 0.0045, 1, AT), (2, "x", "ollama", "llama3", None, None, 0, AT)]
    first, failed = imported(database(tmp_path, llm_operations=(columns, rows)))[0]
    assert (first.feature, first.usage_source, first.tags) == ("summarise", "NONE", {"total_tokens": "1200"})
    assert (first.input_tokens, first.reported_cost_nano) == (0, 4_500_000)
    assert (failed.status, failed.reported_cost_nano) == ("ERROR", None)


def test_a_database_of_something_else_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"none of the tables usage_log, .*\(its tables: sessions\)"):
        imported(database(tmp_path, sessions=("(id)", [])))
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"SQLite format 3\0" + b"\xff" * 4_000)
    with pytest.raises(UnreadableError, match="cannot be read as a database"):
        imported(broken)
