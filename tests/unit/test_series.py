"""Statistics of scopes: who is beyond his past and by which part; gaps in closed form; whose matter it is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tests import watch_rows
from tests.suspects import USD, told_after
from tollmeter.streams.rules.anomalies import series
from tollmeter.streams.rules.anomalies.layout import KEPT_WINDOWS, PER_DAY, WINDOW_MINUTES
from tollmeter.streams.rules.anomalies.unusual import PARTS, beyond, far
from tollmeter.streams.watch.thresholds import shipped_limits

WINDOW_S = 600
Call = dict[str, Any]


def plain(usd: float, **columns: Any) -> list[Call]:
    return [{"cost_nano": int(usd * USD), "input_tokens": 1_000_000, "output_tokens": 100_000, **columns}]


def found(usual: Callable[[int], Sequence[Call]], burst: Sequence[Call], every: int, windows: int = 2 * PER_DAY) -> Any:
    """Return (scope, name, severity, signals) of what is told of a burst ten minutes after a past, and is no key's."""
    past = [(watch_rows.START + n * WINDOW_S, usual(n)) for n in range(0, windows + 1, every)]
    return [
        (alert.scope, alert.name, alert.severity, [part for at, part in enumerate(PARTS) if bits >> at & 1])
        for alert in told_after(past, [(past[-1][0] + WINDOW_S, burst)])
        if alert.kind == "unusual_use" and (bits := alert.facts["signals"]) and "key" not in alert.facts
    ]


@pytest.mark.parametrize(
    ("burst", "severity", "parts"),
    [  # every fourth window one call of 1 USD: an hour costs 2 at most, a day 36; a floor of 0.36 USD an hour
        pytest.param(plain(0.6) * 3, "", [], id="three calls for less than twice as much"),
        pytest.param(plain(1) * 5, "info", ["cost", "hour"], id="five times as many"),
        pytest.param(plain(1.35), "", [], id="dearer a call by a third"),
        pytest.param(plain(1.5), "info", ["per_call"], id="dearer a call by half"),
        pytest.param(plain(1, output_tokens=50_000), "info", ["ratio"], id="twice the input per output"),
        pytest.param(plain(60), "info", ["cost", "hour", "per_call", "minute"], id="far beyond a usual day"),
    ],
)
def test_an_irregular_key_is_told_of_as_info(burst: list[Call], severity: str, parts: list[str]) -> None:
    expected = [("api_key", "k", severity, parts)] if severity else []
    assert found(lambda _: plain(1), burst, 4) == expected


@pytest.mark.parametrize(
    ("burst", "expected"),
    [  # every window one call of 1 USD: an hour costs 6, a day 144; a floor of 1.44 USD an hour
        pytest.param(plain(1) * 2, [], id="twice as many calls"),
        pytest.param(plain(1) * 3, [("api_key", "k", "warning", ["cost", "minute"])], id="three times as many calls"),
    ],
)
def test_a_steady_key_is_told_of_sooner(burst: list[Call], expected: list[Any]) -> None:
    assert found(lambda _: plain(1), burst, 1) == expected


def spread(usd: float, user: str) -> list[Call]:
    return [
        call for n in range(3) for call in plain(usd / 3, api_key_id=f"k{n}", user_id=user, client_ip=f"10.0.{n}.1")
    ]


def test_little_money_is_nobodys_concern() -> None:
    """An hour costs 0.06 USD: it is told from 0.25 on, a minute by itself from 0.05 on."""
    rows, limits = one_row(), shipped_limits()
    for window in range(300):
        step(rows, window, cost=USD // 100)
    told = []
    for minute in range(5):
        series.turn(rows, 300 * WINDOW_MINUTES + minute)
        series.add(rows, np.array([[1, (1, 1, 1, 7, 15)[minute] * USD // 100, 10, 1]]))
        told.append([part for part, value in zip(PARTS, far(rows, limits)[:, 0].tolist(), strict=True) if value])
    assert told[:4] == [[], [], [], ["minute"]]
    assert "cost" in told[4]


def test_what_is_one_keys_matter_is_told_of_the_key_alone() -> None:
    """Three keys share a user: one that grows is told of itself, three that grow a little each are told of together."""
    alone = found(
        lambda _: spread(1, "u"), spread(1, "u") + plain(9, api_key_id="k0", user_id="u", client_ip="10.0.0.1"), 1
    )
    assert {(scope, name) for scope, name, *_ in alone} == {("api_key", "k0")}
    young = [call | {"api_key_id": f"young{n}"} for n, call in enumerate(spread(9, "u"))]
    assert {(scope, name) for scope, name, *_ in found(lambda _: spread(1, "u"), young, 1)} == {
        ("user", "u"),
        ("org", ""),
    }


def test_a_user_of_a_key_that_many_share_is_told_of_and_the_key_named() -> None:
    """Nothing is strange of the key: whoever hears of a user by the key alone would hear nothing."""

    def everybody(usd: float) -> list[Call]:
        return [
            call
            for n in range(20)
            for call in plain(usd, api_key_id="shared", user_id=f"u{n}", client_ip=f"10.0.{n}.1")
        ]

    past = [(watch_rows.START + n * WINDOW_S, everybody(0.5)) for n in range(2 * PER_DAY)]
    burst = [*everybody(0.5)[1:], *plain(0.5, api_key_id="shared", user_id="u0", client_ip="10.0.0.1") * 18]
    alerts = told_after(past, [(past[-1][0] + WINDOW_S, burst)])
    told = {(one.scope, one.name): one.facts.get("key") for one in alerts if one.kind == "unusual_use"}
    assert told == {("user", "u0"): "shared"}


def test_whose_most_is_does_not_hang_on_the_last_second() -> None:
    """Each tenth call is another key's, and a tick follows each call: one second shows that key alone."""
    keys = [plain(1, api_key_id=f"k{n}", user_id="u", client_ip=f"10.0.{n}.1")[0] for n in range(3)]
    past = [(watch_rows.START + n * WINDOW_S, keys) for n in range(2 * PER_DAY)]
    at_s = past[-1][0] + WINDOW_S
    other = keys[1] | {"cost_nano": USD // 10, "input_tokens": 100_000, "output_tokens": 10_000}
    steps = [(at_s + n, [other if n % 10 == 9 else keys[0]]) for n in range(30)]
    told = [one for one in told_after(past, steps) if one.kind == "unusual_use"]
    assert {(one.scope, one.name, one.facts.get("key")) for one in told} == {
        ("api_key", "k0", None),
        ("user", "u", "k0"),
    }


def test_rows_of_the_version_before_are_taken_over_and_no_minute_is_new_at_once() -> None:
    rows = one_row()
    for window in range(300):
        step(rows, window)
    old = rows[:, series._VERSION_1].copy()
    old[:, series.LAYOUT] = 1
    now = series.of_version_1(old)
    assert (now[:, series._VERSION_1[1:]] == rows[:, series._VERSION_1[1:]]).all()
    assert now[0, series.LAYOUT] == series.VERSION
    step(now, 300, cost=USD)
    assert beyond(now)[PARTS.index("minute")][0] == 100, "a minute is held against the dearest window"
    old[:, series.LAYOUT] = 0
    assert series.of_version_1(old)[0, series.LAYOUT] == 0, "what is of no known version begins anew"


def test_a_sum_of_small_things_is_told_and_begins_anew() -> None:
    """Costs swing between 1 and 3, then stay at 6: three standard deviations and more beyond the mean."""
    rows = one_row()
    for window in range(600):
        step(rows, window, cost=USD * (1 if window % 2 else 3))
    reached = []
    for window in range(600, 700):
        step(rows, window, cost=6 * USD)
        reached.append(int(beyond(rows)[PARTS.index("sum")][0]))
    assert reached == sorted(reached)
    assert reached[-1] > shipped_limits().unusual_use.steady.sum_hundredths


def one_row() -> Any:
    return np.zeros((1, series.WIDTH), dtype=np.int64)


def step(rows: Any, window: int, calls: int = 1, cost: int = USD, tokens_in: int = 10, tokens_out: int = 1) -> None:
    series.turn(rows, window * WINDOW_MINUTES)
    series.add(rows, np.array([[calls, cost, tokens_in, tokens_out]]))


@pytest.mark.parametrize("born", [0, 470, 5_000])
@pytest.mark.parametrize("gap", [1, 2, 29, 500, 4_000])
def test_a_gap_is_caught_up_as_if_its_windows_had_been_closed_one_by_one(born: int, gap: int) -> None:
    """Mean and variance, by the same recurrence in plain Python, of costs 5, 1, 4, ... and then nothing."""
    rows, mean, variance = one_row(), 0.0, 0.0
    for window in range(born + 1):
        step(rows, window, cost=(5, 1, 4)[window % 3] * USD)
    costs = [(5, 1, 4)[window % 3] * USD for window in range(born + 1)] + [0] * (gap - 1)
    for seen, cost in enumerate(costs):
        rate = 1 / min(seen + 1, series.MEMORY)
        off = cost - mean
        mean, variance = mean + rate * off, (1 - rate) * (variance + rate * off * off)
    series.turn(rows, (born + gap) * WINDOW_MINUTES)
    assert series.floats(rows, series.MEAN)[0] == pytest.approx(mean, rel=1e-9)
    assert series.floats(rows, series.VARIANCE)[0] == pytest.approx(variance, rel=1e-6)


def test_nothing_is_left_after_two_months_of_silence() -> None:
    rows = one_row()
    for window in range(300):
        step(rows, window)
    series.turn(rows, (299 + KEPT_WINDOWS + 1) * WINDOW_MINUTES)
    assert series.summed(rows, series.S_WINDOWS)[0] == 0
    assert rows[0, series.BORN] == 299 + KEPT_WINDOWS + 1


def test_classes_are_learned() -> None:
    """Each window the same: regular. Each window but every sixth: semi-regular. One of six: irregular."""
    figures = shipped_limits().unusual_use
    told_as = []
    for used in (lambda n: True, lambda n: n % 6 != 5, lambda n: n % 6 == 0):
        rows = one_row()
        for window in range(600):
            if used(window):
                step(rows, window)
        regular, steady = series.steady(rows, figures)
        told_as.append((bool(regular[0]), bool(steady[0])))
    assert told_as == [(True, True), (False, True), (False, False)]


def test_mean_and_variance_stand_still_while_something_is_told() -> None:
    rows, figures = one_row(), shipped_limits().unusual_use
    for window in range(300):
        step(rows, window)
    for window in range(300, 330):
        step(rows, window, cost=50 * USD)
        series.tell(rows, np.array([True]), figures)
    assert series.floats(rows, series.MEAN)[0] == pytest.approx(USD, rel=0.2)
    assert (rows[0, series.BEGAN], rows[0, series.TOLD]) == (300, 329)
