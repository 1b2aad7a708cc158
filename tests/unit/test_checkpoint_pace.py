"""When a partition of WATCH is saved: every few seconds while something comes, seldom while only ticks do."""

import pytest

from tollmeter.streams.watch.checkpoint import QUIET_S, Pace


@pytest.mark.parametrize(
    ("every_s", "moved_at", "due_at"),
    [
        (5.0, None, 30.0),  # nothing but ticks
        (5.0, 1.0, 5.0),
        (5.0, 12.0, 12.0),  # the few seconds are over already
        (60.0, None, 60.0),  # a longer pace stays
        (60.0, 1.0, 60.0),
    ],
)
def test_the_second_checkpoint(every_s: float, moved_at: float | None, due_at: float) -> None:
    pace = Pace(every_s)
    assert pace.due(0, 0.0), "the first is due at once"
    found = None
    for step in range(700):
        now = step / 10
        if now == moved_at:
            pace.moved(0)
        if found is None and pace.due(0, now):
            found = now
    assert found == due_at
    assert QUIET_S == 30.0, "docs/architecture.md says half a minute"


def test_partitions_have_paces_of_their_own() -> None:
    pace = Pace(5.0)
    assert [pace.due(number, 0.0) for number in (0, 1)] == [True, True]
    pace.moved(1)
    assert [pace.due(number, 6.0) for number in (0, 1)] == [False, True]
    assert not pace.due(1, 12.0), "what moved it is saved"
