"""The oracle of chaos: everything that may be wrong is noticed and named, and a sound line has nothing to name."""

import json
import random
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from tests.chaos.cluster_faults import faults_for
from tests.chaos.manifest import ORGS, SCHEMA, Call, draw, policies
from tests.chaos.oracle import Alerts, alert_faults, differing, ledger_faults, rollup_of, windows_of
from tollmeter.schemas.policy import Policy

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000


def sent(count: int = 200, seed: int = 1) -> pl.DataFrame:
    rng = random.Random(seed)
    calls = [draw(rng, NOW_US + number, ORGS[number % len(ORGS)]) for number in range(count)]
    return pl.DataFrame(calls, schema=SCHEMA, orient="row")


def stored(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("event_id", "at_us", "org", "input_tokens", "output_tokens", "cost_nano")


def faults(ledger: pl.DataFrame, rows: pl.DataFrame) -> dict[str, int]:
    return {name: len(keys) for name, keys in ledger_faults(rows, ledger).items() if keys}


def test_a_sound_ledger_has_no_fault() -> None:
    rows = sent()
    assert faults(stored(rows), rows) == {}


def test_each_fault_of_the_ledger_has_its_name() -> None:
    rows = sent()
    ledger = stored(rows)
    assert faults(ledger[1:], rows) == {"lost": 1}
    assert faults(pl.concat([ledger, ledger[:3]]), rows) == {"double": 3}
    first = pl.int_range(pl.len()) == 0
    dearer = ledger.with_columns(pl.when(first).then(pl.col("cost_nano") + 1).otherwise("cost_nano").alias("cost_nano"))
    assert faults(dearer, rows) == {"wrong_rows": 1}
    unpriced = ledger.with_columns(pl.lit(None, pl.Int64).alias("cost_nano"))
    assert faults(unpriced, rows) == {"wrong_rows": len(rows)}
    assert faults(ledger, rows[1:]) == {"unknown_rows": 1}


@pytest.mark.parametrize("total", [windows_of, rollup_of])
def test_totals_that_differ_are_named(total: Any) -> None:
    rows = sent()
    expected = total(rows)
    assert differing(expected, expected.sample(fraction=1.0, shuffle=True, seed=2)) == set()
    assert len(differing(expected, expected[1:])) == 1
    assert len(differing(expected[1:], expected)) == 1
    off = expected.with_columns(pl.col("calls") + pl.when(pl.int_range(pl.len()) < 2).then(1).otherwise(0))
    assert len(differing(expected, off)) == 2


def test_windows_by_hand() -> None:
    call = Call("x", NOW_US + 1, "org", "g", "u", "k", "ip", "", "m", "p", "ORG", 3, 4, 50)
    found = windows_of(
        pl.DataFrame([call, call._replace(event_id="y", at_us=NOW_US + 61_000_000)], schema=SCHEMA, orient="row")
    )
    minutes = found.filter((pl.col("level") == "minute") & (pl.col("scope") == "org"))
    assert sorted(minutes["calls"]) == [1, 1]
    (hour,) = found.filter((pl.col("level") == "hour") & (pl.col("scope") == "user")).iter_rows(named=True)
    assert (hour["start_s"], hour["calls"], hour["cost_nano"]) == (NOW_US // 1_000_000, 2, 100)
    assert found.filter(pl.col("scope") == "agent").is_empty(), "an empty name is no scope"


def _alert(policy: Policy, pct: int, period: str, id_: str) -> bytes:
    data = {"kind": "budget", "policy_id": policy.policy_id, "period": period, "threshold_pct": pct}
    return json.dumps({"id": id_, "data": data}).encode()


def test_alerts_missing_wrong_and_under_two_ids() -> None:
    policy = Policy(org_id="org", daily_limit_micro=1, alert_pcts=(50, 100, 200), warn_threshold_pct=50)
    paid = Call("x", NOW_US, "org", "", "", "", "", "", "m", "p", "ORG", 1, 1, 1_000)
    own = paid._replace(event_id="y", scope="USER", cost_nano=10**9)
    rows = pl.DataFrame([paid, own], schema=SCHEMA, orient="row")

    def judged(*records: bytes, stored: set[str]) -> tuple[list[Any], list[Any]]:
        alerts = Alerts(stored=stored)
        for record in records:
            alerts.add(record)
        missing, wrong = alert_faults(rows, [policy], alerts, NOW.timestamp())
        return sorted(key[2] for key in missing), sorted(key[2] for key in wrong)  # type: ignore[index]

    half, whole = _alert(policy, 50, "2026-11-22", "a"), _alert(policy, 100, "2026-11-22", "b")
    assert judged(half, whole, half, stored={"a", "b"}) == ([], [])
    assert judged(half, stored={"a"}) == ([100], [])
    assert judged(half, whole, stored={"a"}) == ([100], []), "not in ClickHouse"
    assert judged(half, whole, _alert(policy, 200, "2026-11-22", "c"), stored={"a", "b", "c"}) == ([], [200])
    assert judged(half, whole, _alert(policy, 100, "2026-11-22", "d"), stored={"a", "b", "d"}) == ([], [100])


def test_of_sealed_days_no_alert_is_asked() -> None:
    policy = Policy(org_id="org", daily_limit_micro=1, alert_pcts=(100,), warn_threshold_pct=100)
    call = Call("x", NOW_US - 30 * 3_600_000_000, "org", "", "", "", "", "", "m", "p", "ORG", 1, 1, 1_000)
    rows = pl.DataFrame([call], schema=SCHEMA, orient="row")
    assert alert_faults(rows, [policy], Alerts(), NOW.timestamp()) == (set(), set())


def test_what_came_late_into_a_day_that_was_over_is_told_as_late_spend() -> None:
    policy = Policy(org_id="org", daily_limit_micro=1, alert_pcts=(50, 100), warn_threshold_pct=80)
    midnight_us = NOW_US - 12 * 3_600_000_000
    first = Call("x", midnight_us - 2, "org", "", "", "", "", "", "m", "p", "ORG", 1, 1, 600)
    late = first._replace(event_id="y", cost_nano=500)
    rows = pl.DataFrame([first, late], schema=SCHEMA, orient="row")
    alerts = Alerts(stored={"a"})
    alerts.add(_alert(policy, 50, "2026-11-21", "a"))
    just_after = midnight_us / 1e6 + 60
    assert alert_faults(rows, [policy], alerts, just_after)[0] == {(policy.policy_id, "2026-11-21", 100)}
    data = {"kind": "late_spend", "policy_id": policy.policy_id, "period": "2026-11-21", "late": 500}
    for _ in range(2):  # delivered twice it is one
        alerts.add(json.dumps({"id": "b", "data": data}).encode())
    assert alert_faults(rows, [policy], alerts, just_after) == (set(), set())
    alerts.found.clear()
    assert alert_faults(rows, [policy], alerts, just_after)[0] == {(policy.policy_id, "2026-11-21", 50)}


def test_calls_come_from_the_seed_and_some_are_late() -> None:
    assert sent(seed=4).equals(sent(seed=4))
    ages_s = (NOW_US - sent(2_000)["at_us"]) / 1e6
    assert (ages_s > 4 * 3_600 - 1).sum() > 5
    assert ((ages_s > 60) & (ages_s < 20 * 60)).sum() > 50
    assert not ((ages_s > 20 * 60 + 1) & (ages_s < 4 * 3_600 - 1)).any(), "between the horizon and sealed nothing rests"


def test_policies_are_of_every_organisation_and_faults_have_names_of_their_own() -> None:
    assert {policy.org_id for policy in policies(random.Random(1), 10**9)} == set(ORGS)
    faults = faults_for(3)
    assert len({fault.name for fault in faults}) == len(faults)
    assert set(faults_for(1)) < set(faults)
