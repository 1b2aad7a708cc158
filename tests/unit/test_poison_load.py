"""The loads of the poison benchmark: as many malformed records as asked for, spread or in runs, each refused."""

import random
import time
from itertools import groupby

import pytest

from benchmarks.poison import CLUSTER, Load, mixed, places
from tollmeter.streams.rules.events.decode_avro import decode
from tollmeter.streams.rules.events.validate import validate
from tollmeter.traffic.company import company
from tollmeter.traffic.stream import Wire


@pytest.mark.parametrize("clustered", [False, True])
def test_exactly_the_malformed_ones_are_refused(clustered: bool) -> None:
    load = Load(3_000, 100, clustered)
    span_us = 600_000_000
    wire = Wire(company(1, 4), load.sound, int(time.time() * 1e6) - span_us, span_us, duplicates=0.0, block=700)
    values = [value for block in mixed(load, wire, random.Random(2)) for value in block]
    decoded = decode(values)
    good = validate(decoded.frame, decoded.index)
    assert len(values) == load.records
    assert len(good.index) == load.sound
    bad = {reject.position for reject in (*decoded.rejects, *good.rejects)}
    runs = [len(list(run)) for refused, run in groupby(at in bad for at in range(len(values))) if refused]
    assert max(runs) >= 50 if clustered else max(runs) < 5


def test_clusters_are_runs_of_a_thousand() -> None:
    found = places(Load(1_000_000, 10_000, clustered=True), random.Random(3))
    assert len(found) == 10_000
    assert found == sorted(found)
    assert {len(list(run)) % CLUSTER for _, run in groupby(found)} == {0}


def test_places_lie_between_sound_records() -> None:
    found = places(Load(1_000, 400, clustered=False), random.Random(3))
    assert len(found) == 400
    assert max(found) < 600
