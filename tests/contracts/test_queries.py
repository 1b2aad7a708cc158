"""Every named query on seeded rows, with results worked out by hand, and on an empty system."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.priced_rows import DEFAULTS, event_id, insert, row
from tollmeter.settings import Settings
from tollmeter.sinks.clickhouse.client import ClickHouse, connect
from tollmeter.sinks.clickhouse.queries import load, moment

pytestmark = pytest.mark.stack

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
NAMES = (
    "alerts",
    "budget_list",
    "call_list",
    "costs_today",
    "export",
    "find_call",
    "new_names",
    "open_alerts",
    "operations",
    "policy_trial",
    "reported",
    "reported_total",
    "rollup_dirty",
    "rollup_progress",
    "rollup_recompute",
    "silent_services",
    "spend",
    "spend_between",
    "spend_total",
    "token_summary",
    "token_use",
    "top_calls",
)
PERIOD = {"since": moment(NOW - timedelta(hours=48)), "until": moment(NOW)}
PARAMETERS: dict[str, Any] = {
    **PERIOD,
    "now": moment(NOW),
    "top": 10,
    "by": ["model", "key"],
    "steps": "",
    "today": "2026-11-20 00:00:00",
    "month": "2026-11-01 00:00:00",
    "zone": "UTC",
    "provider": "",
    "user_id": "",
    "org_id": "",
    "orgs": [],
    "model": "",
    "api_key_id": "",
    "label": "",
    "tag": "",
    "org": "o1",
    "scope": "org",
    "name": "",
    "each": "",
    "exempt": [],
    "window": "day",
    "unit": "USD",
    "amount": 1,
    "limit": 10,
    "skip": 0,
    "by_cost": 1,
    "offset": 0,
    "id": "nobody's",
    "after_time": "1970-01-01 00:00:00",
    "after_org": "",
    "after_id": "",
    "page": 10,
    "covered_until": moment(datetime(1970, 1, 1, tzinfo=UTC)),
    "oldest": moment(datetime(1970, 1, 1, tzinfo=UTC)),
    "slack_us": 0,
    "quiet_us": 0,
    "gap_us": 0,
    "minutes": [0, 60],
}
EMPTY_ROWS = {"spend_total", "spend_between", "reported_total", "token_summary", "rollup_progress"}
"""Queries that answer one row, of zeros, when there is nothing."""
WITH_TOTAL = ("costs_today", "operations", "spend")
"""Queries whose rows stand beside the total of the same reading."""


@pytest.fixture(scope="module", name="empty")
def connected(ledger_settings: Settings) -> Iterator[ClickHouse]:
    client = connect(ledger_settings)
    yield client
    client.close()


def call(number: int, hours_ago: float, **changed: Any) -> dict[str, Any]:
    at = NOW - timedelta(hours=hours_ago)
    return row(number, event_time=at, received_at=at, provider="openai", price_status="PRICED", status="OK", **changed)


CALLS = [
    # 50,000 nano twice and 50,000: exactly half of the fourth decimal, so the sums show half to even
    call(
        1,
        1,
        model_sent="gpt-4o",
        model_used="gpt-4o-2024",
        api_key_id="k1",
        input_tokens=100,
        output_tokens=10,
        cost_nano=50_000,
        request_id="r1",
        provider_request_id="p1",
        client_ip="10.0.0.1",
        user_id="u1",
        org_id="o1",
        operation_name="search",
        cost_rub_nano=4_000_000,
        price_book="b1",
        rule_id="rule-1",
    ),
    call(
        2,
        3,
        model_sent="gpt-4o",
        model_used="gpt-4o-2024",
        api_key_id="k2",
        input_tokens=7,
        output_tokens=3,
        cost_nano=150_000,
        request_id="r2",
        user_id="u1",
        org_id="o1",
        operation_name="search",
    ),
    call(
        3,
        4,
        model_sent="o3",
        model_used="",
        api_key_id="k1",
        input_tokens=1,
        output_tokens=1,
        cost_nano=2_000_004_999_999,
        user_id="u2",
        org_id="o1",
        operation_name="ingest",
        billing_scope="USER",
    ),
    # unknown cost: NULL, with what it may cost
    call(
        4,
        5,
        model_sent="new",
        model_used="new",
        api_key_id="k1",
        input_tokens=50,
        output_tokens=5,
        user_id="u1",
        org_id="o2",
        operation_name="search",
        at_risk_nano=7_000_000,
    ),
    # yesterday evening, and outside the 48 hours
    call(
        5,
        20,
        model_sent="o3",
        model_used="o3",
        api_key_id="k9",
        input_tokens=2,
        cost_nano=4_995_000_000,
        user_id="u1",
        org_id="o1",
        operation_name="ingest",
        cost_rub_nano=1,
    ),
    call(
        6,
        49,
        model_sent="o3",
        model_used="o3",
        api_key_id="k9",
        input_tokens=2,
        cost_nano=10,
        user_id="u1",
        org_id="o1",
        operation_name="old",
    ),
]


@pytest.fixture(scope="module", name="ledger")
def seeded(empty: ClickHouse) -> ClickHouse:
    insert(empty, CALLS, offset=1)
    insert(empty, CALLS[:3], offset=2)  # delivered twice
    empty.insert_rows(
        "price_rules",
        ("price_book", "rule_id", "provider", "model", "rule"),
        [("b1", "rule-1", "openai", "gpt-4o", '{"input_pico":1}'), ("b2", "rule-1", "openai", "gpt-4o", "{}")],
    )
    return empty


def ask(ledger: ClickHouse, name: str, **changed: Any) -> list[dict[str, Any]]:
    text = load(name)
    wanted = set(re.findall(r"\{(\w+):", text))
    return ledger.query(text, {key: value for key, value in (PARAMETERS | changed).items() if key in wanted})


def parts(ledger: ClickHouse, name: str, **changed: Any) -> list[dict[str, Any]]:
    """Return the rows without the row of totals."""
    return [line for line in ask(ledger, name, **changed) if not line["total"]]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_system_answers_nothing_or_zeros(empty: ClickHouse, name: str) -> None:
    if name == "rollup_recompute":
        empty.command(load(name), {"minutes": [0, 60]})
        return
    rows = ask(empty, name)
    if name in WITH_TOTAL:
        assert all(line["total"] and not line["calls"] for line in rows)
    elif name in EMPTY_ROWS:
        assert len(rows) == 1
        assert all(not value for value in rows[0].values() if not isinstance(value, datetime))
    else:
        assert rows == []


def test_top_calls(ledger: ClickHouse) -> None:
    found = ask(ledger, "top_calls", top=5, since=moment(NOW - timedelta(hours=24)))
    assert [line["est_cost"] for line in found] == [
        Decimal("2000.004999999"),
        Decimal("4.995"),
        Decimal("0.00015"),
        Decimal("0.00005"),
        None,
    ]
    assert found[3] == {
        "ts": NOW - timedelta(hours=1),
        "model_sent": "gpt-4o",
        "model_used": "gpt-4o-2024",
        "pt": 100,
        "ot": 10,
        "est_cost": Decimal("0.00005"),
        "client_ip": "10.0.0.1",
        "request_id": "r1",
        "api_key_id": "k1",
        "org_id": "o1",
        "unpriced": 0,
        "usd_at_risk": None,
    }
    assert (found[2]["client_ip"], found[4]["unpriced"], found[4]["usd_at_risk"]) == (None, 1, Decimal("0.007"))
    assert [line["pt"] for line in ask(ledger, "top_calls", top=1)] == [1]


SPEND = [
    ("o3", "k1", 1, 1, 1, Decimal("2000.0050")),
    ("o3", "k9", 1, 2, 0, Decimal("4.9950")),
    ("gpt-4o-2024", "k2", 1, 7, 3, Decimal("0.0002")),  # 1.5 of the last place: to the even 2
    ("gpt-4o-2024", "k1", 1, 100, 10, Decimal("0.0000")),  # 0.5: to the even 0
    ("new", "k1", 1, 50, 5, None),
]


def test_spend_by_any_columns(ledger: ClickHouse) -> None:
    by_model_key = parts(ledger, "spend")
    names = ("model", "api_key_id", "calls", "prompt_tokens", "output_tokens", "usd_est")
    assert [tuple(line[name] for name in names) for line in by_model_key] == SPEND
    by_user = parts(ledger, "spend", by=["user"])
    assert [(line["user_id"], line["calls"], line["usd_est"], line["unpriced"]) for line in by_user] == [
        ("u2", 1, Decimal("2000.0050"), 0),
        ("u1", 4, Decimal("4.9952"), 1),
    ]
    assert by_user[1]["usd_at_risk"] == Decimal("0.0070")
    days = parts(ledger, "spend", by=["day"])
    assert [(line["day"], line["calls"]) for line in days] == [("2026-11-20", 4), ("2026-11-19", 1)]
    (all_,) = parts(ledger, "spend", by=[])
    assert (all_["calls"], all_["usd_est"]) == (5, Decimal("2005.0002"))
    assert len(parts(ledger, "spend", top=3)) == 2, "the total counts, too"
    kiritimati = parts(ledger, "spend", by=["day"], zone="Pacific/Kiritimati")  # 14 hours ahead: one day earlier begins
    assert [(line["day"], line["calls"]) for line in kiritimati] == [("2026-11-20", 5)]


@pytest.mark.parametrize("name", WITH_TOTAL)
@pytest.mark.parametrize(
    "filters", [{}, {"orgs": ["o2"]}, {"user_id": "u1"}, {"since": moment(NOW - timedelta(hours=4))}]
)
def test_rows_stand_beside_the_total_of_the_same_reading(
    ledger: ClickHouse, name: str, filters: dict[str, Any]
) -> None:
    rows = ask(ledger, name, **filters)
    (total,) = (line for line in rows if line["total"])
    (apart,) = ask(ledger, "spend_total", **filters)
    shared = apart.keys() & total.keys()
    assert {key: total[key] for key in shared} == {key: apart[key] for key in shared}
    assert {"calls", "total_nano", "unpriced", "risk_nano", "prompt_tokens", "price_books", "value_nano"} <= shared
    assert sum(line["calls"] for line in rows) == 2 * total["calls"]


@pytest.mark.parametrize(
    ("filters", "calls"),
    [
        ({"orgs": ["o2"]}, 1),
        ({"user_id": "u1"}, 3),
        ({"provider": "anthropic"}, 0),
        ({"model": "gpt-4o"}, 2),
        ({"model": "gpt-4o-2024"}, 2),
        ({"api_key_id": "k1", "user_id": "u1"}, 2),
        ({"orgs": ["o1' OR '1'='1"]}, 0),
    ],
)
def test_filters_hold_in_every_report(ledger: ClickHouse, filters: dict[str, str], calls: int) -> None:
    for name in ("spend_total", "costs_today", "operations", "spend", "top_calls", "reported_total"):
        rows = ask(ledger, name, **filters, since=moment(NOW - timedelta(hours=10)))
        counted = [line for line in rows if not line.get("total")]
        assert sum(line.get("calls", 1) for line in counted) == calls, name


def test_a_sum_of_nothing_but_unknown_cost_is_not_zero(ledger: ClickHouse) -> None:
    for name in ("spend_total", "operations", "spend"):
        (found,) = (line for line in ask(ledger, name, orgs=["o2"]) if not line.get("total"))
        assert (found["usd_est"], found["unpriced"], found["usd_at_risk"]) == (None, 1, Decimal("0.0070")), name
    (operation,) = parts(ledger, "operations", orgs=["o2"])
    assert operation["cost_usd"] is None


def test_a_failed_call_that_used_nothing_is_no_unknown_cost(ledger: ClickHouse) -> None:
    at = NOW - timedelta(days=40)
    common = {"event_time": at, "received_at": at, "org_id": "failing", "cost_nano": None}
    failed = [row(800, **common, status="ERROR", price_status="NO_USAGE")]
    doubtful = [
        row(801, **common, status="ERROR", price_status="UNKNOWN_MODEL", input_tokens=5),
        row(802, **common, status="OK", price_status="NO_USAGE"),
    ]
    period = {"since": moment(at), "until": moment(at + timedelta(seconds=1)), "orgs": ["failing"]}
    insert(ledger, failed)
    (found,) = ask(ledger, "spend_total", **period)
    assert (found["calls"], found["unpriced"], found["usd_est"]) == (1, 0, Decimal(0))
    insert(ledger, doubtful)
    (found,) = ask(ledger, "spend_total", **period)
    assert (found["calls"], found["unpriced"], found["usd_est"]) == (3, 2, None)
    ledger.command(load("rollup_recompute"), {"minutes": [int(at.timestamp()) // 60 * 60]})
    for view in ("usage_hourly", "usage_daily"):
        rows = ledger.query(f"SELECT calls, unpriced, cost_nano, cost_usd FROM {view} WHERE org_id = 'failing'")
        assert rows == [{"calls": 3, "unpriced": 2, "cost_nano": None, "cost_usd": None}]


def test_stated_costs_beside_ours(ledger: ClickHouse) -> None:
    at = NOW - timedelta(days=41)
    common = {"event_time": at, "received_at": at, "org_id": "stated"}
    amounts = [(810, 4_500_000, 4_500_000), (811, 9_000_000, 4_500_000), (812, 1, None), (813, None, 7)]
    insert(ledger, [row(n, **common, reported_cost_nano=stated, cost_nano=ours) for n, stated, ours in amounts])
    period = {"since": moment(at), "until": moment(at + timedelta(seconds=1)), "orgs": ["stated"]}
    rows = ask(ledger, "reported", **period)
    assert [line["difference_usd"] for line in rows] == [None, Decimal("-0.0045"), Decimal(0)]
    (total,) = ask(ledger, "reported_total", **period)
    assert total == {
        "calls": 4,
        "without_reported": 1,
        "unpriced": 1,
        "equal": 1,
        "compared": 2,
        "reported_usd": Decimal("0.0135"),
        "cost_usd": Decimal("0.009"),
    }


def test_spend_total(ledger: ClickHouse) -> None:
    assert ask(ledger, "spend_total") == [
        {
            "calls": 5,
            "prompt_tokens": 160,
            "output_tokens": 19,
            "usd_est": Decimal("2005.0002"),
            "usd_user_billed": Decimal("2000.0050"),
            "known_nano": 2_005_000_199_999,
            "unpriced": 1,
            "risk_nano": 7_000_000,
            "total_nano": 2_005_000_199_999,
            "usd_at_risk": Decimal("0.0070"),
            "refused": 0,
            "estimated": 0,
            "corrected": 0,
            "price_books": ["b1"],
            "fx_from": None,
            "fx_until": None,
            "subscription_calls": 0,
            "value_nano": 0,
            "usd_subscription_value": Decimal(0),
        }
    ]


def test_costs_today(ledger: ClickHouse) -> None:
    *rows, total = ask(ledger, "costs_today", since=PARAMETERS["today"])
    assert [(line["model"], line["api_key_id"], line["usd_est"]) for line in rows] == [
        ("o3", "k1", Decimal("2000.0050")),
        ("gpt-4o-2024", "k2", Decimal("0.0002")),
        ("gpt-4o-2024", "k1", Decimal("0.0000")),
        ("new", "k1", None),
    ]
    assert (total["total"], total["calls"], total["usd_est"]) == (1, 4, Decimal("2000.0052"))
    assert (total["unpriced"], total["usd_at_risk"]) == (1, Decimal("0.0070"))


def test_token_summary(ledger: ClickHouse) -> None:
    (found,) = ask(ledger, "token_summary", user_id="u1")
    assert found == {
        "today_total_tokens": 175,
        "today_cost_rub": Decimal("0.0040"),
        "today_requests_count": 3,
        "today_unpriced": 2,
        "today_rub_at_risk": Decimal(0),
        "this_month_total_tokens": 179,
        "this_month_cost_rub": Decimal("0.0040"),
        "this_month_requests_count": 5,
        "this_month_unpriced": 3,
        "this_month_rub_at_risk": Decimal(0),
        "all_time_total_tokens": 179,
        "all_time_cost_rub": Decimal("0.0040"),
        "all_time_requests_count": 5,
        "all_time_unpriced": 3,
        "all_time_rub_at_risk": Decimal(0),
    }
    later = {"now": moment(NOW + timedelta(days=15)), "month": "2026-12-01 00:00:00", "today": "2026-12-05 00:00:00"}
    (other,) = ask(ledger, "token_summary", org_id="o2", **later)
    assert (other["this_month_requests_count"], other["all_time_requests_count"]) == (0, 1)
    assert (other["this_month_cost_rub"], other["all_time_cost_rub"]) == (0, None), "of no call, and of an unknown one"
    (nobody,) = ask(ledger, "token_summary", user_id="nobody")
    assert set(nobody.values()) == {0, Decimal(0)}


def test_operations_round_half_up(ledger: ClickHouse) -> None:
    month = {"since": "2026-11-01 00:00:00", "until": "2026-12-01 00:00:00"}
    names = ("operation_name", "calls", "total_tokens", "cost_usd")
    assert [tuple(line[name] for name in names) for line in parts(ledger, "operations", **month)] == [
        # 2005.000 - 1 nano: down; 4.995 alone would be up
        ("ingest", 2, 4, Decimal("2005.00")),
        ("search", 3, 175, Decimal("0.00")),
        ("old", 1, 2, Decimal("0.00")),
    ]
    (alone,) = parts(
        ledger, "operations", since=moment(NOW - timedelta(hours=21)), until=moment(NOW - timedelta(hours=19))
    )
    assert alone["cost_usd"] == Decimal("5.00")
    assert parts(ledger, "operations", provider="anthropic", **month) == []


@pytest.mark.parametrize("call_id", ["r1", "p1", event_id(1)])
def test_a_call_is_found_by_any_of_its_ids(ledger: ClickHouse, call_id: str) -> None:
    (found,) = ask(ledger, "find_call", id=call_id)
    assert (found["request_id"], found["cost_nano"], found["cost_usd"]) == ("r1", 50_000, Decimal("0.00005"))
    assert (found["price_book"], found["rule_id"], found["price_rule"]) == ("b1", "rule-1", '{"input_pico":1}')
    assert found.keys() >= DEFAULTS.keys()


def test_a_call_without_a_stored_rule_is_found_all_the_same(ledger: ClickHouse) -> None:
    (found,) = ask(ledger, "find_call", id="r2")
    assert (found["request_id"], found["price_rule"]) == ("r2", "")


def test_an_empty_id_finds_nothing_strange(ledger: ClickHouse) -> None:
    assert ask(ledger, "find_call", id="00000000-0000-0000-0000-000000000000") == []


def test_alerts_in_order(ledger: ClickHouse) -> None:
    events = [f'{{"id":"a{number}","time":"2026-11-20T09:0{number}:00.000Z"}}' for number in (2, 0, 1)]
    ledger.insert_rows("alerts", ("event", "appended_at"), [(event, NOW) for event in events])
    assert [line["event"] for line in ask(ledger, "alerts")] == sorted(events, key=lambda event: event[8])
    late = ask(ledger, "alerts", since="2026-11-20 09:01:00")
    assert [line["event"][7:9] for line in late] == ["a1", "a2"]


def test_views_speak_plainly(ledger: ClickHouse) -> None:
    assert ledger.query(
        "SELECT count() AS n, countIf(cost_usd IS NULL) AS unknown FROM token_usage WHERE user_id != ''"
    ) == [{"n": 6, "unknown": 1}]
    insert(
        ledger, [call(7, 1, tags=[{"key": "team", "value": "a"}], extra_units=[{"key": "web_searches", "value": 2.0}])]
    )
    (found,) = ledger.query("SELECT tags, extra_units FROM usage WHERE tags['team'] = 'a'")
    assert found == {"tags": {"team": "a"}, "extra_units": {"web_searches": 2.0}}
    minutes = [int((NOW - timedelta(hours=hours)).timestamp()) // 60 * 60 for hours in (1, 3, 4, 5)]
    ledger.command(load("rollup_recompute"), {"minutes": sorted(minutes)})
    sums = "SELECT sum(calls) AS calls, sum(cost_nano) AS cost"
    hourly = ledger.query(f"{sums} FROM usage_hourly WHERE org_id != 'failing'")
    daily = ledger.query(f"{sums} FROM usage_daily WHERE day = '2026-11-20'")
    assert hourly == daily == [{"calls": 5, "cost": 2_000_005_199_999}]


def test_sums_do_not_wrap(ledger: ClickHouse) -> None:
    """Int64 nano-USD holds 9.2 thousand million USD; a sum beyond it must still be right."""
    at = NOW - timedelta(days=30)
    insert(ledger, [row(900 + n, event_time=at, received_at=at, cost_nano=2**62, rule_id="big") for n in range(4)])
    (found,) = ask(ledger, "spend_total", since=moment(at), until=moment(at + timedelta(seconds=1)))
    assert found["usd_est"] == Decimal("18446744073.7096")
