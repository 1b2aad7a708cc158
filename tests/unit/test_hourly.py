"""What an hour is beside four weeks, and a key beside its peers: worked out by hand."""

from collections.abc import Sequence

import pytest

from tollmeter.streams.rules.anomalies.hourly import Peer, Season, off_season, unlike_peers

USD = 10**9


@pytest.mark.parametrize(
    ("cost", "past", "weeks", "found"),
    [
        # median 2, deviations 0: the band is half of 2, six of it make 8; the floor of 5 makes 7; the highest 3
        pytest.param(8.1, [2] * 12, 4, (2, 8), id="beyond six halves of the median"),
        pytest.param(8.0, [2] * 12, 4, None, id="not beyond"),
        pytest.param(8.1, [2] * 12, 2, None, id="two weeks are no season"),
        pytest.param(5.1, [0] * 12, 3, (0, 5), id="an hour that it never used: the floor alone"),
        pytest.param(5.0, [0] * 12, 3, None, id="below the floor"),
        # median 1, highest 20: half more than that
        pytest.param(30.1, [1] * 11 + [20], 4, (1, 30), id="beyond the highest by half"),
        pytest.param(29.9, [1] * 11 + [20], 4, None, id="it was so dear before"),
        # 1 and 11: median 6, deviation 5 * 1.48 = 7.4, six of it and 6 make 50.4
        pytest.param(50.5, [1] * 6 + [11] * 6, 4, (6, 50.4), id="who varies may vary"),
        pytest.param(50.3, [1] * 6 + [11] * 6, 4, None, id="within its own spread"),
    ],
)
def test_off_season(cost: float, past: Sequence[float], weeks: int, found: tuple[float, float] | None) -> None:
    got = off_season(int(cost * USD), [int(amount * USD) for amount in past], weeks)
    assert got == (None if found is None else Season(int(found[0] * USD), int(found[1] * USD)))


def peer(name: str, usd: float, calls: int = 100, past_usd: float = 0, past_calls: int = 0) -> Peer:
    return Peer(name, int(usd * USD), calls, int(past_usd * USD), past_calls)


OTHERS = [peer(f"k{n}", 1 + n / 10) for n in range(5)]
"""Five keys that pay 0.010 to 0.014 USD a call: 0.012 at the median."""


@pytest.mark.parametrize(
    ("one", "found"),
    [
        pytest.param(peer("x", 7.3), True, id="six times the others'"),
        pytest.param(peer("x", 6.1), False, id="five times, but not 5 USD beyond: 6.1 - 1.2 = 4.9"),
        pytest.param(peer("x", 5.9), False, id="less than five times"),
        pytest.param(peer("x", 7.3, past_usd=7.3, past_calls=199), False, id="half of it was usual: 0.0367 a call"),
        pytest.param(peer("x", 7.3, past_usd=7.2, past_calls=200), True, id="twice what was usual: 0.036 a call"),
        pytest.param(peer("x", 0, 0), False, id="no calls"),
    ],
)
def test_unlike_peers(one: Peer, found: bool) -> None:
    got = unlike_peers([*OTHERS, one])
    assert [(unlike.peer.name, unlike.peers_per_call_nano, unlike.peers) for unlike in got] == (
        [("x", 12_000_000, 5)] if found else []
    )


def test_four_others_are_no_peers() -> None:
    assert unlike_peers([*OTHERS[:4], peer("x", 700)]) == []
