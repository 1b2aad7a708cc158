"""RejectFloods of dead letters: an alert once an hour and partition, whatever batches the records came in."""

from datetime import UTC, datetime

import pytest

from tollmeter.schemas.alert import Alert
from tollmeter.streams.rules.events.reject_flood import RejectFloods

NOON = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000


def add(floods: RejectFloods, records: int, rejected: int, at: int = NOON, partition: int = 0) -> Alert | None:
    """A batch whose rejects stand at its end."""
    return floods.add(partition, 100, records, range(100 + records - rejected, 100 + records), at)


@pytest.mark.parametrize(
    ("records", "rejected", "alert"),
    [
        (1_000, 99, False),
        (1_000, 100, True),
        (1_001, 100, False),
        (99, 99, False),
        (100, 100, True),
        (99_999, 999, False),
        (99_999, 1_000, True),
    ],
)
def test_limits(records: int, rejected: int, alert: bool) -> None:
    assert (add(RejectFloods(), records, rejected) is not None) is alert


def test_counts_of_an_hour_add_up_and_begin_anew_in_the_next() -> None:
    floods = RejectFloods()
    assert add(floods, 500, 60) is None
    assert add(floods, 400, 30, NOON + HOUR) is None
    found = add(floods, 500, 70, NOON + HOUR)
    assert found is not None
    assert (found.kind, found.period, found.name) == ("dlq_flood", "2026-11-22T13", "usage.events/0")
    assert found.facts["rejected"] == 100


def test_once_an_hour_for_each_partition_under_one_id() -> None:
    floods = RejectFloods()
    first = add(floods, 100, 100)
    assert first is not None
    assert add(floods, 100, 100) is None
    other, later = add(floods, 100, 100, partition=1), add(floods, 100, 100, NOON + HOUR)
    again = add(RejectFloods(), 100, 100, NOON + 5)
    assert other is not None
    assert later is not None
    assert again is not None
    assert again.id == first.id
    assert len({first.id, other.id, later.id}) == 3


def test_a_run_goes_on_from_pass_to_pass_until_a_sound_record() -> None:
    def runs(*passes: tuple[int, range]) -> list[bool]:
        floods = RejectFloods()
        floods.add(0, 0, 50_000, [], NOON)  # far from a tenth
        return [floods.add(0, 0, records, places, NOON) is not None for records, places in passes]

    assert runs((600, range(600)), (600, range(400))) == [False, True]
    assert runs((600, range(600)), (600, range(1, 600))) == [False, False]
    assert runs((600, range(599)), (600, range(600))) == [False, False]
    assert runs((3_000, range(0, 3_000, 2))) == [False]
    assert runs((600, range(600)), (1, range(0)), (600, range(600))) == [False, False, False]
