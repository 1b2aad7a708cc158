"""Malformed records among sound ones, on a line of its own: each becomes a dead letter, no neighbour is touched."""

import pytest

from benchmarks.poison import Load, measure

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


def test_a_cluster_of_malformed_records(stack: object) -> None:
    """The quick form of `python -m benchmarks.poison` (`stack` says whether Java and Maven are there)."""
    found = measure(Load(4_000, 300, clustered=True), seed=1)
    assert found["dead_letters"] == found["malformed"] == 300
    assert found["in_ledger"] == 3_700
    assert len(found["reasons"]) > 5
