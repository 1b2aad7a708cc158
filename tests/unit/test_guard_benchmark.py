"""The guard's benchmark measures what it says: every check is limited 14 times while updates are taken in."""

from benchmarks.guard import measure, prepare
from tollmeter.producers.guard.guard import Guard
from tollmeter.settings import Settings


def test_checks_are_made_while_updates_are_applied() -> None:
    guard = Guard(mode="memory", settings=Settings())
    rows = prepare(guard, 100, 300)
    assert (guard._known.limits.policies, guard._known.spend.rows) == (100, 300)
    applied, took = measure(guard, rows, 1_000, 0.3)
    assert applied >= 300
    assert len(took) >= 100
    assert guard._known.unreadable == 0
    assert guard._known.accounts.in_flight == 23  # one each from the resolving of the combinations, never settled
