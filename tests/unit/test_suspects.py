"""The rules about identity, each at its figures: silent below, told once beyond, silent for whom it is usual."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from tests import watch_rows
from tests.suspects import USD, a_log, told, told_after
from tollmeter.schemas.alert import Alert
from tollmeter.streams.rules.anomalies.layout import (
    BODIES,
    BORN,
    CALLS,
    ERRORS,
    KEPT_WINDOWS,
    P_ERRORS,
    PARTNERS,
    PER_DAY,
    PER_WEEK,
    SET_BITS,
    W_WINDOWS,
    WIDTH,
    distinct,
    peak,
    repeats,
    set_bits,
    two_weeks,
)
from tollmeter.streams.rules.anomalies.observe import turn
from tollmeter.streams.rules.anomalies.words import KINDS as SUSPICIONS
from tollmeter.streams.rules.windows.name_hashes import hash_of, network_hash
from tollmeter.streams.watch.thresholds import SHIPPED, read_limits, shipped_limits
from tollmeter.yaml_files import YamlError

RULES = tuple(kind for kind in SUSPICIONS if kind != "unusual_use")
WINDOW_S, DAY_S = 600, 86_400
Call = dict[str, Any]


def addresses(count: int, usd: float = 6) -> list[Call]:
    return [{"client_ip": f"10.0.{n // 250}.{n % 250}", "cost_nano": int(usd * USD) // count} for n in range(count)]


def public(count: int, usd: float) -> list[Call]:
    return [{"client_ip": f"10.{n % 20}.0.{n // 20}", "cost_nano": int(usd * USD) // count} for n in range(count)]


def failures(count: int, fine: int = 0) -> list[Call]:
    return [{"status": "ERROR", "cost_nano": 0}] * count + [{"cost_nano": 0}] * fine


def bodies(count: int, usd: float = 6, others: int = 0) -> list[Call]:
    each = int(usd * USD) // (count + others)
    same = [{"prompt_hash": "5a5a5a5a5a5a5a5a", "cost_nano": each}] * count
    return same + [{"prompt_hash": f"{hash_of(str(n)):016x}", "cost_nano": each} for n in range(others)]


def keys(usd: float, others: int = 20, other_usd: float = 0.02) -> list[Call]:
    rest = [
        {"api_key_id": f"k{n}", "cost_nano": int(other_usd * USD), "client_ip": f"10.0.1.{n}"} for n in range(others)
    ]
    return [*rest, {"api_key_id": "big", "cost_nano": int(usd * USD)}]


def days(calls: Callable[[int], Sequence[Call]], count: int = 1, start: float = watch_rows.START) -> list[Any]:
    """Return a log of so many days, calls(n) in each window."""
    return [(start + n * WINDOW_S, calls(n)) for n in range(0, count * PER_DAY + 1, 4)]


def suspicions(steps: list[Any]) -> list[tuple[str, str]]:
    return [(alert.kind, alert.severity) for alert in told(a_log(steps)) if alert.kind in RULES]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        pytest.param(addresses(48), [], id="few addresses"),
        pytest.param(addresses(250), [("fan_out", "warning")], id="many addresses"),
        pytest.param(addresses(250, usd=4.9), [], id="many addresses below the floor"),
        pytest.param(addresses(250, usd=11), [("fan_out", "critical")], id="many addresses, dear"),
        pytest.param(failures(100), [], id="exactly a hundred failures"),
        pytest.param(failures(101), [("error_storm", "warning")], id="more failures"),
        pytest.param(failures(101, fine=250), [], id="failures among many calls"),
        pytest.param(bodies(50), [], id="fifty equal bodies"),
        pytest.param(bodies(51), [("same_body", "warning")], id="more equal bodies"),
        pytest.param(bodies(51, usd=4.9), [], id="equal bodies below the floor"),
        pytest.param(bodies(0, others=2_000), [], id="two thousand bodies, all different"),
        pytest.param(bodies(300, others=600), [("same_body", "warning")], id="one body among many"),
        pytest.param([{"prompt_hash": "", "cost_nano": USD // 10}] * 90, [], id="no bodies are sent"),
        pytest.param(keys(11), [("dominance", "warning")], id="one key among twenty"),
        pytest.param(keys(9.9), [], id="one key among twenty, below the floor"),
        pytest.param(keys(11, others=3), [], id="one key among four"),
        pytest.param(keys(11, other_usd=1), [], id="one key, others as much together"),
    ],
)
def test_without_a_past_absolute_figures_hold(calls: list[Call], expected: list[tuple[str, str]]) -> None:
    assert suspicions([(watch_rows.START, calls)]) == expected


@pytest.mark.parametrize(
    ("usual", "burst", "expected"),
    [
        pytest.param(addresses(2, 0.1), addresses(6, 2), [], id="three times as many addresses"),
        pytest.param(addresses(2, 0.1), addresses(9, 2), [("fan_out", "warning")], id="more addresses"),
        pytest.param(addresses(2, 0.1), addresses(9, 0.9), [("fan_out", "info")], id="more addresses, soon dear"),
        pytest.param(addresses(2, 0.1), addresses(9, 0.19), [], id="more addresses below the floor"),
        pytest.param(public(200, 2), public(400, 20), [], id="a public service"),
        pytest.param(failures(1, 5), failures(51), [("error_storm", "warning")], id="failures of a key that has few"),
        pytest.param(failures(1, 5), failures(21, 21), [("error_storm", "info")], id="half of some calls fail"),
        pytest.param(failures(1, 5), failures(21, 22), [], id="fewer fail than work"),
        pytest.param(failures(1, 5), failures(20), [], id="few failures"),
        pytest.param(failures(7, 5), failures(21), [], id="few failures of a key that has some"),
        pytest.param(failures(40, 5), failures(110), [], id="failures of a key that has many"),
        pytest.param(bodies(3, 0.1), bodies(25, 2), [("same_body", "warning")], id="equal bodies"),
        pytest.param(bodies(3, 0.1), bodies(16, 0.2), [("same_body", "info")], id="equal bodies, soon dear"),
        pytest.param(bodies(3, 0.1), bodies(15, 2), [], id="few equal bodies"),
        pytest.param(bodies(15, 0.1), bodies(40, 2), [], id="equal bodies of a key that has many"),
        pytest.param(keys(0.05, other_usd=0.05), keys(6), [("dominance", "info")], id="a share grows"),
        pytest.param(keys(0.05, other_usd=0.05), keys(25), [("dominance", "warning")], id="a share grows, dear"),
        pytest.param(keys(20), keys(60), [], id="who always has the most"),
    ],
)
def test_with_a_past_a_key_is_held_against_itself(
    usual: list[Call], burst: list[Call], expected: list[tuple[str, str]]
) -> None:
    past = days(lambda _: usual, 4 if "api_key_id" in usual[0] else 1)
    at_s = past[-1][0] + WINDOW_S
    since = datetime.fromtimestamp(at_s, UTC)
    alerts = told_after(past, [(at_s, burst)])
    found = [alert for alert in alerts if alert.kind in RULES and alert.received_at >= since]
    assert [(alert.kind, alert.severity) for alert in found] == expected


def plain(usd: float = 0.1, **columns: Any) -> list[Call]:
    return [{"cost_nano": int(usd * USD), "input_tokens": 1_000_000, **columns}]


def from_keys(count: int, usd: float) -> list[Call]:
    return [{"api_key_id": f"k{n}", "cost_nano": int(usd * USD) // count} for n in range(count)]


FOREIGN = {"client_ip": "203.0.113.9"}
CACHED = {"cache_read_tokens": 600_000}


@pytest.mark.parametrize(
    ("usual", "after_s", "burst", "expected"),
    [
        pytest.param(plain(), 600, plain(0.3, model="dear"), [("new_model", "info")], id="a dear model"),
        pytest.param(plain(), 600, plain(0.29, model="dear"), [], id="a new model that is not so dear"),
        pytest.param(plain(), 600, plain(0, model="dear"), [], id="a new model that failed"),
        pytest.param(plain(), 600, plain(4, model="dear"), [("new_model", "critical")], id="a dear model, at once"),
        pytest.param(plain(), 600, plain(0.1, **FOREIGN), [("new_network", "info")], id="a foreign network"),
        pytest.param(plain(), 600, plain(1, **FOREIGN), [("new_network", "warning")], id="a foreign network, dear"),
        pytest.param(
            [*plain(0.05), *plain(0.05, **FOREIGN)], 600, plain(0.1, **FOREIGN), [], id="a network of two that it knows"
        ),
        pytest.param(plain(), 600, plain(0.1, client_ip="10.0.0.77"), [], id="a new address of a known network"),
        pytest.param(
            [{**call, "client_ip": f"10.{n}.0.1"} for n in range(9) for call in plain(0.01)],
            600,
            plain(1, **FOREIGN),
            [],
            id="a foreign network of a key that has many",
        ),
        pytest.param(plain(), 13 * DAY_S, plain(1), [], id="nearly two weeks of silence"),
        pytest.param(plain(), 14 * DAY_S, plain(1), [("woken", "warning")], id="two weeks of silence"),
        pytest.param(plain(), 14 * DAY_S, plain(0.9), [], id="a key that wakes and spends little"),
        pytest.param(plain(**CACHED), 600, plain(1), [("cache_lost", "warning")], id="a cache that is lost"),
        pytest.param(plain(**CACHED), 600, plain(1, cache_read_tokens=250_000), [], id="a cache that is used less"),
        pytest.param(plain(), 600, plain(1), [], id="nothing was ever cached"),
        pytest.param([], 600, from_keys(3, 2) * 2, [], id="three keys from an address without a past"),
        pytest.param(
            from_keys(1, 0.1), 600, from_keys(3, 2), [("shared_address", "warning")], id="an address, three keys"
        ),
        pytest.param(from_keys(3, 0.1), 600, from_keys(4, 2), [], id="an address that always has some"),
        pytest.param(
            plain(), 600, plain(0.001, received_s=0) * 20, [("clock_ahead", "info")], id="calls from the future"
        ),
    ],
)
def test_what_a_key_never_did_before(
    usual: list[Call], after_s: int, burst: list[Call], expected: list[tuple[str, str]]
) -> None:
    past = days(lambda _: usual, 5)
    at_s = past[-1][0] + after_s
    burst = [{**call, "received_s": at_s - 301} if "received_s" in call else call for call in burst]
    found = [alert for alert in told_after(past, [(at_s, burst)]) if alert.kind in RULES]
    since = datetime.fromtimestamp(at_s - 301, UTC)
    assert [(alert.kind, alert.severity) for alert in found if alert.received_at >= since] == expected


def test_a_network_is_told_of_a_key_whose_hosts_do_not_come_by_the_day() -> None:
    def first_seen(day: int) -> list[Call]:
        return [call for n in range(day + 1) for call in plain(0.01, client_ip=f"10.{n}.0.1")]

    steps = [
        (watch_rows.START + day * DAY_S + n * 4 * WINDOW_S, first_seen(day)) for day in range(4) for n in range(36)
    ]
    assert suspicions(steps) == []
    settled = [
        (watch_rows.START + day * DAY_S + n * 4 * WINDOW_S, first_seen(3)) for day in (4, 5, 6) for n in range(36)
    ]
    at_s = watch_rows.START + 7 * DAY_S
    assert suspicions([*steps, *settled, (at_s, plain(0.01, **FOREIGN))]) == [("new_network", "info")]


def test_an_hour_of_the_day_in_which_a_key_was_silent() -> None:
    start = watch_rows.START - watch_rows.START % DAY_S
    past = [(start + day * DAY_S + hour * 3_600, plain(0.5)) for day in range(15) for hour in (9, 10, 14)]
    at_s = start + 15 * DAY_S
    assert suspicions([*past, (at_s + 9 * 3_600, plain(1))]) == []
    assert suspicions([*past, (at_s + 3 * 3_600, plain(1))]) == [("new_hour", "warning")]


def test_a_stolen_key_is_told_of_at_the_probe_and_critical_at_the_floor() -> None:
    """2.40 USD a day on a cheap model; a call on a dear one; a day later 12.8 M input tokens an hour, 15 USD a million.

    That is 5.3 cents a second: a usual day, of which one in six was silent, is spent after 38 s.
    """
    start = watch_rows.START - watch_rows.START % DAY_S
    past = [(start + n * 3_600, plain(0.1, model="cheap")) for n in range(5 * 24)]
    probe_s = start + 5 * DAY_S + 60
    probe = [(probe_s, [{"model": "dear", "input_tokens": 20, "cost_nano": 300_000}])]
    burst_s = probe_s + DAY_S
    each = {"model": "dear", "input_tokens": 3_556, "output_tokens": 0, "cost_nano": 53_340_000}
    burst = [(burst_s + n, [{**each, "client_ip": "203.0.113.9"}]) for n in range(90)]
    alerts = [alert for alert in told(a_log([*past, *probe, *burst])) if alert.kind == "new_model"]
    assert [alert.severity for alert in alerts] == ["info", "critical"]
    assert alerts[0].received_at.timestamp() == probe_s
    spent_s = alerts[1].received_at.timestamp() - burst_s
    assert 30 <= spent_s <= 50
    assert alerts[1].facts["cost_nano"] - each["cost_nano"] < alerts[1].facts["usual_day_nano"]
    assert (alerts[1].facts["model"], alerts[1].facts["address"]) == ("dear", "203.0.113.9")
    assert "uses dear, which it never did before" in alerts[1].text


def test_a_model_whose_price_is_not_known_is_told_with_that() -> None:
    """It counts as what it may cost at most, so it may be dear: that it is, nobody knows."""
    past = days(lambda _: plain(), 5)
    unknown = {"model": "new", "price_status": "UNKNOWN_MODEL", "cost_nano": None, "at_risk_nano": 3 * USD // 10}
    alerts = told_after(past, [(past[-1][0] + 600, [plain()[0] | unknown])])
    (found,) = [alert for alert in alerts if alert.kind == "new_model"]
    assert found.facts["unknown_price"] == 1
    assert found.text.endswith("; some of these calls have no known price and count as what they may cost at most")


def test_calls_of_the_window_before_count_beside_those_of_the_next() -> None:
    """A call is charged at when it began: a host that is nine minutes behind is seen beside one that is not."""
    past = days(lambda _: plain(), 5)
    at_s = past[-1][0] + WINDOW_S
    fine, failed = plain(0.001)[0], plain(0, status="ERROR")[0]
    steps = [(at_s + n, [fine, failed | {"event_time": round((at_s + n - 540) * 1_000_000)}]) for n in range(60)]
    since = datetime.fromtimestamp(at_s, UTC)
    alerts = [alert for alert in told_after(past, steps) if alert.kind in RULES and alert.received_at >= since]
    assert [(alert.kind, alert.severity) for alert in alerts] == [("error_storm", "info"), ("error_storm", "warning")]


def test_a_leak_is_told_at_the_call_that_crosses_and_again_when_it_is_dear() -> None:
    """A call a second, one body, two cents: info with the sixteenth, a warning when the ten minutes cost a dollar."""
    past = days(lambda _: plain(), 5)
    at_s = past[-1][0] + 600
    leak = [(at_s + n, bodies(1, 0.02)) for n in range(60)]
    alerts = [one for one in told_after(past, leak) if one.kind == "same_body"]
    said = [(one.severity, one.received_at.timestamp() - at_s, one.facts["cost_nano"]) for one in alerts]
    assert said == [("info", 15, 16 * USD // 50), ("warning", 49, USD)]


def test_it_is_told_once_an_hour_and_once_more_when_it_becomes_critical() -> None:
    steps = [(watch_rows.START + n, addresses(100, usd=2)) for n in range(10)]
    assert suspicions(steps) == [("fan_out", "warning"), ("fan_out", "critical")]


def test_a_leak_is_not_the_norm_after_one_window_but_after_some() -> None:
    past = days(lambda _: addresses(2, 0.1))
    leak = [(past[-1][0] + (n + 1) * 3_600, addresses(200, 3)) for n in range(6)]
    found = suspicions([*past, *leak])
    assert 2 <= len(found) < 6


@pytest.mark.parametrize(("weeks", "left"), [(0, 40), (1, 40), (2, 0), (7, 0)])
def test_a_peak_is_known_for_one_to_two_weeks(weeks: int, left: int) -> None:
    profile = np.zeros((1, WIDTH), dtype=np.int64)
    turn(profile, PER_WEEK)
    profile[0, ERRORS] = 40
    turn(profile, PER_WEEK + 1)
    assert peak(profile, P_ERRORS).tolist() == [40]
    turn(profile, PER_WEEK * (1 + weeks) + 1)
    assert peak(profile, P_ERRORS).tolist() == [left]


def test_after_two_months_of_silence_a_key_is_new() -> None:
    profile = np.zeros((1, WIDTH), dtype=np.int64)
    turn(profile, 10)
    profile[0, CALLS] = 1
    turn(profile, 10 + KEPT_WINDOWS)
    assert (profile[0, BORN], two_weeks(profile, W_WINDOWS)[0]) == (10, 0)
    turn(profile, 11 + 2 * KEPT_WINDOWS)
    assert profile[0, BORN] == 11 + 2 * KEPT_WINDOWS


def test_calls_that_come_late_are_suspected_of_nothing() -> None:
    late = [{**call, "received_s": watch_rows.START + 700} for call in addresses(250)]
    assert suspicions([(watch_rows.START, late)]) == []


def test_the_alert_says_who_what_since_and_how_much_more() -> None:
    found: list[Alert] = [one for one in told(a_log([(watch_rows.START, addresses(250))])) if one.kind == "fan_out"]
    (alert,) = found
    assert (alert.org_id, alert.scope, alert.name, alert.period) == ("acme", "api_key", "k", "2026-11-20T10")
    assert alert.text.startswith("key k of acme is used from about 2")
    assert "with no past to compare: 250 calls for 6.00 USD" in alert.text
    assert alert.facts["calls"] == 250
    assert 225 <= alert.facts["addresses"] <= 250, "never more than there were calls"


def test_what_an_organisation_never_showed_is_not_called_usual() -> None:
    (alert,) = [one for one in told(a_log([(watch_rows.START, keys(11))])) if one.kind == "dominance"]
    assert "usual_share_pct" not in alert.facts
    assert "in this hour, with no past to compare: 11.0" in alert.text


@pytest.mark.parametrize("count", [0, 1, 5, 40, 250, 1_000])
def test_distinct_names_are_counted_within_a_tenth(count: int) -> None:
    values = np.zeros((1, WIDTH), dtype=np.int64)
    names = np.array([hash_of(f"10.0.{n // 250}.{n % 250}") for n in range(count)], dtype=np.int64)
    for _ in range(2):  # again they are no more
        set_bits(values, PARTNERS, np.zeros(count, dtype=np.int64), names)
    found = int(distinct(values[:, PARTNERS])[0])
    assert abs(found - count) <= max(1, count // 10)
    assert int(distinct(np.full((1, SET_BITS // 64), -1))[0]) > 3_000  # full: so many at least


def test_repeats_never_say_more_than_came() -> None:
    values = np.zeros((2, WIDTH), dtype=np.int64)
    counts = np.zeros((2, 64), dtype=np.uint16)
    counts[0, 5], counts[1] = 30, 100
    counts[1, 7] = 160
    values[:, BODIES] = counts.view(np.int64)
    assert repeats(values).tolist() == [30, 0]


def test_windows_of_a_week_hold_a_day_seven_times() -> None:
    assert PER_WEEK == 7 * PER_DAY


def test_thresholds_each_say_what_they_rest_on() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert text.count("value:") == text.count("rests_on:") > 20
    assert shipped_limits() == read_limits(SHIPPED)


def test_thresholds_that_are_wrong_name_file_and_line(tmp_path: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SHIPPED.read_text(encoding="utf-8").replace("least: {value: 4,", "lest: {value: 4,"), "utf-8")
    with pytest.raises(YamlError, match=r"mine.yaml:\d+: fan_out.le"):
        read_limits(path)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.1.2.3", "10.1.2.250", True),
        ("10.1.2.3", "10.1.3.3", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::9", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("gateway", "gateway", True),
        ("gateway", "other", False),
    ],
)
def test_networks_of_addresses(one: str, other: str, same: bool) -> None:
    assert (network_hash("client_ip", one) == network_hash("client_ip", other)) is same
    assert network_hash("api_key", one) == network_hash("client_ip", "__other__") == 0
