"""A voided call counts nowhere: every question answers as if it had never been, whatever parts its rows lie in."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.priced_rows import event_id, insert, row
from tollmeter.schemas.policy import SCOPE_COLUMNS
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.sinks.clickhouse.queries import load, moment
from tollmeter.streams.rules.windows.totals import MEASURES

pytestmark = pytest.mark.stack

NOW = datetime(2026, 11, 20, 10, 0, 30, tzinfo=UTC)
SINCE, UNTIL = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
HOUR = int(NOW.timestamp()) // 3600 * 3600
PARAMETERS: dict[str, Any] = {
    "since": moment(SINCE),
    "until": moment(UNTIL),
    "from": HOUR,
    "now": moment(UNTIL),
    "today": moment(SINCE),
    "month": moment(SINCE),
    "day": "2026-11-20",
    "top": 9,
    "limit": 9,
    "offset": 0,
    "by": ["org", "user", "status"],
    "steps": "",
    "org": "acme",
    "org_id": "acme",
    "orgs": ["acme"],
    "label": "",
    "tag": "",
    "user": "u",
    "user_id": "",
    "users": ["u", "gone"],
    "count": 9,
    "scope": "org",
    "name": "",
    "currency": "USD",
    "own": 0,
    "provider": "",
    "model": "",
    "api_key_id": "",
    "zone": "UTC",
    "suffix": "",
    "unit": "minute",
    "within": "hour",
    "starts": [HOUR],
    "partition": 0,
    "upto": 99,
    "step": 900,
    "kinds": [*SCOPE_COLUMNS, "tag"],
    "id": event_id(2),
    "minutes": [int(NOW.timestamp()) // 60 * 60],
    "applied": 99,
    "stamp": 99,
    "renewed_ms": 0,
    "late": 3_000,
    "scopes": list(SCOPE_COLUMNS),
    "slack_us": 0,
    "oldest": moment(SINCE),
}
OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "repair_totals": {"from": SINCE.replace(second=0), "until": UNTIL.replace(second=0)},
    "verify_rollup": {"from": moment(SINCE)},
    "repair_extras": {"until": HOUR + 3_600},
}
QUESTIONS = (
    "alert_causes",
    "budget_report",
    "budget_use",
    "costs_today",
    "find_call",
    "known_callers",
    "operations",
    "provider_keys",
    "repair_extras",
    "repair_totals",
    "spend",
    "spend_total",
    "token_summary",
    "top_calls",
    "users_seen",
    "verify_rollup",
    "verify_windows",
)


def call(number: int, **changed: Any) -> dict[str, Any]:
    plain = {
        "event_time": NOW,
        "received_at": NOW,
        "org_id": "acme",
        "user_id": "u",
        "api_key_id": "k",
        "provider": "openai",
        "model": "gpt-4o",
        "model_sent": "gpt-4o",
        "price_status": "PRICED",
        "status": "OK",
        "billing_scope": "ORG",
        "operation_name": "search",
        "client_ip": "10.0.0.1",
        "input_tokens": 10,
        "output_tokens": 1,
        "cost_nano": 1_000,
        "cost_eur_nano": 900,
        "cost_input_nano": 1_000,
        "revision": 0,
        "tags": [{"key": "team", "value": "a"}],
    }
    return row(number, **plain | changed)


VOIDED: dict[str, Any] = {"status": "VOID", "price_status": "FREE", "rule_id": "void", "revision": 1} | dict.fromkeys(
    ("input_tokens", "output_tokens", "cost_nano", "cost_eur_nano", "cost_input_nano"), 0
)
GONE = {"user_id": "gone", "api_key_id": "k-gone"}


@pytest.fixture
def client(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    for table in ("usage_events", "usage_minutes", "usage_windows"):
        client.command(f"TRUNCATE TABLE {table}")
    client.command("SYSTEM STOP MERGES usage_events")
    yield client
    client.command("SYSTEM START MERGES usage_events")
    client.close()


def answers(client: ClickHouse) -> dict[str, Any]:
    client.command(load("rollup_recompute"), {"minutes": PARAMETERS["minutes"]})
    found: dict[str, Any] = {}
    for name in QUESTIONS:
        text = load(name)
        wanted = {key: (PARAMETERS | OF_ITS_OWN.get(name, {}))[key] for key in re.findall(r"\{(\w+):", text)}
        found[name] = client.query(text, wanted)
    for view in ("usage", "token_usage"):
        found[view] = client.query(f"SELECT * FROM {view} ORDER BY ALL")
    found["minutes"] = client.query("SELECT * EXCEPT computed_at FROM usage_minutes FINAL WHERE calls > 0 ORDER BY ALL")
    return _plain(found)


def _plain(found: Any) -> Any:
    """Without what an insert itself writes: when it was."""
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items() if name != "inserted_at"}
    return [_plain(one) for one in found] if isinstance(found, list) else found


def parts(client: ClickHouse) -> int:
    where = "active AND table = 'usage_events' AND database = currentDatabase()"
    return int(client.query(f"SELECT count() AS n FROM system.parts WHERE {where}")[0]["n"])


@pytest.mark.parametrize("several", [False, True], ids=["one part", "two parts"])
def test_voided_call_is_in_no_answer(client: ClickHouse, several: bool) -> None:
    insert(client, [call(1)], offset=1)
    without = answers(client)
    assert all(without[name] for name in QUESTIONS if name != "find_call")
    client.command("TRUNCATE TABLE usage_events")
    insert(client, [call(1), call(2, **GONE), call(3, api_key_id="k-gone")], offset=1)
    there = answers(client)
    same = {name for name in without if without[name] == there[name]}
    assert same == set(), "these questions do not see the second call at all"
    insert(client, [call(2, **GONE, **VOIDED), call(3, api_key_id="k-gone", **VOIDED)], offset=2)
    assert parts(client) == 2
    if not several:
        client.command("SYSTEM START MERGES usage_events")
        client.command("OPTIMIZE TABLE usage_events FINAL")
        assert parts(client) == 1
    assert client.query("SELECT countIf(status = 'VOID') AS void, count() AS n FROM usage_events FINAL") == [
        {"void": 2, "n": 3}
    ]
    assert answers(client)["verify_rollup"][0]["differing"] == 0, "the emptied group is a row of zeros"
    client.command("TRUNCATE TABLE usage_minutes")
    found = answers(client)
    for name, rows in without.items():
        assert found[name] == rows, name


def test_older_revision_in_a_later_part_stays_hidden(client: ClickHouse) -> None:
    """The correction may be stored first: LEDGER's inserts of two partitions know no order."""
    insert(client, [call(2, **GONE, **VOIDED)], offset=2)
    insert(client, [call(2, **GONE)], offset=1)
    found = answers(client)
    assert found["usage"] == found["token_usage"] == found["top_calls"] == found["users_seen"] == []
    assert found["spend_total"][0]["calls"] == 0


@pytest.mark.parametrize("name", ["repair_totals", "repair_extras"])
def test_repairs_hold_every_measure_of_a_cell(client: ClickHouse, name: str) -> None:
    insert(client, [call(1)], offset=1)
    assert set(MEASURES) <= answers(client)[name][0].keys()


@pytest.mark.parametrize("name", ["repair_totals", "repair_extras"])
def test_repairs_find_what_runs_ahead_of_its_append_time_however_far(client: ClickHouse, name: str) -> None:
    """It counts when it came; what is dated then, and came then, is of another hour."""
    then = NOW + timedelta(days=2)
    ahead = {"event_time": then, "flags": "ahead"}
    insert(client, [call(1), call(2, **ahead), call(3, **ahead), call(4, event_time=then, received_at=then)], offset=1)
    insert(client, [call(5, **ahead, org_id="other")], offset=2)
    insert(client, [call(2, **ahead, revision=1, cost_nano=7_000), call(3, **ahead | VOIDED)], offset=3)
    text = load(name)
    wanted = {key: (PARAMETERS | OF_ITS_OWN[name])[key] for key in re.findall(r"\{(\w+):", text)}
    (org,) = (cell for cell in client.query(text, wanted) if cell["scope"] == "org")
    assert (org["calls"], org["cost_nano"]) == (2, 8_000)
