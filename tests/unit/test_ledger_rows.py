"""What LEDGER reads off records beside rows: numbers that no column holds are refused here, never cut to fit."""

import json
from typing import Any, NamedTuple

import pytest

from tollmeter.schemas.envelope import Rows, Source, rows_headers
from tollmeter.schemas.priced import H_SOURCES
from tollmeter.schemas.record import Headers
from tollmeter.streams.ledger.rows import gap_row

WHOLE = {"stage": "watch", "partition": 3, "first_offset": 5, "last_offset": 9, "kind": "gap", "topic": "t"}


class Letter(NamedTuple):
    value: bytes
    headers: Headers = ()  # type: ignore[assignment]
    key: bytes = b""
    topic: str = "usage.alerts"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0


def gap(**changed: object) -> tuple[Any, ...] | None:
    return gap_row(Letter(json.dumps({"data": {**WHOLE, "topic_id": "", **changed}}).encode()))  # type: ignore[arg-type]


def test_a_declared_gap_is_a_row() -> None:
    assert gap() == ("watch", 3, 5, 9, "gap", "t", "")
    assert gap(last_offset=-1) == ("watch", 3, 5, 0, "gap", "t", "")


@pytest.mark.parametrize(
    "changed",
    [
        {"partition": None},
        {"partition": 70_000},
        {"partition": "3"},
        {"partition": True},
        {"first_offset": -1},
        {"first_offset": 1.5},
        {"last_offset": 2**64},
        {"stage": None},
        {"topic": 7},
        {"topic_id": None},
        {"kind": "other"},
    ],
    ids=str,
)
def test_an_alert_of_others_declares_nothing(changed: dict[str, object]) -> None:
    assert gap(**changed) is None


def test_what_a_batch_covers_is_read_as_it_was_written() -> None:
    headers = dict(rows_headers(2, [(Source(1, 10, 19, 10, 1), 9)], "book", "boot"))
    assert list(Rows(b"", headers).coverage()) == [(1, 10, 19, 10, 1, 9, "book", "boot")]


@pytest.mark.parametrize(
    "source",
    [
        [70_000, 10, 19, 10, 1, 9],
        [-1, 10, 19, 10, 1, 9],
        [1, None, 19, 10, 1, 9],
        [1, 10, 2**63, 10, 1, 9],
        [1, 10, 19, 2**32, 1, 9],
        [1, 10, 19, 10, "1", 9],
        [1, 10, 19, 10, 1.0, 9],
        [1, 10, 19, 10, 1, True],
        [1, 10, 19],
        7,
    ],
    ids=str,
)
def test_what_is_no_part_of_a_source_is_a_broken_record(source: object) -> None:
    headers = dict(rows_headers(2, [(Source(1, 10, 19, 10, 1), 9)], "book", "boot"))
    headers[H_SOURCES] = json.dumps([source]).encode()
    with pytest.raises((ValueError, TypeError)):
        list(Rows(b"", headers).coverage())
