"""The caller is whom the nearest proxy of ours saw: nothing that a caller sends moves it."""

import random

import pytest

from tollmeter.producers.middleware.admission import Admission
from tollmeter.producers.middleware.forwarded import Proxies, caller_address

OURS = ["10.0.0.0/8", "2001:db8:ffff::/48"]
CALLER = "203.0.113.7"


def seen(peer: str | None, proxies: Proxies, *lines: str) -> str:
    return caller_address([("X-Forwarded-For", line) for line in lines], peer, proxies)


@pytest.mark.parametrize(
    ("lines", "peer", "proxies", "expected"),
    [
        pytest.param(["203.0.113.7"], "10.0.0.1", OURS, CALLER, id="one proxy"),
        pytest.param([" 203.0.113.7 , 10.0.0.2"], "10.0.0.1", OURS, CALLER, id="two proxies"),
        pytest.param(["9.9.9.9, 203.0.113.7"], "10.0.0.1", OURS, CALLER, id="forged by the caller"),
        pytest.param(["10.0.0.9, 203.0.113.7"], "10.0.0.1", OURS, CALLER, id="forged as one of ours"),
        pytest.param(["9.9.9.9", "203.0.113.7"], "10.0.0.1", OURS, CALLER, id="forged in a line of its own"),
        pytest.param(["203.0.113.7, 2001:db8:ffff::2"], "::ffff:10.0.0.1", OURS, CALLER, id="dual stack"),
        pytest.param(["203.0.113.7"], "198.51.100.2", OURS, "198.51.100.2", id="a stranger"),
        pytest.param(["203.0.113.7"], "10.0.0.1", [], "10.0.0.1", id="no proxy configured"),
        pytest.param(["203.0.113.7:51234"], "10.0.0.1", OURS, CALLER, id="port"),
        pytest.param(["[2001:DB8:0::1]:443"], "10.0.0.1", OURS, "2001:db8::1", id="six with port"),
        pytest.param(["9.9.9.9, unknown"], "10.0.0.1", OURS, "10.0.0.1", id="garbled: the proxy counts"),
        pytest.param(["9.9.9.9, "], "10.0.0.1", OURS, "10.0.0.1", id="empty entry"),
        pytest.param(["9.9.9.9, x, 10.0.0.2"], "10.0.0.1", OURS, "10.0.0.2", id="garbled behind a second proxy"),
        pytest.param(["9.9.9.9, fe80::1%eth0"], "10.0.0.1", OURS, "10.0.0.1", id="zone"),
        pytest.param(["a" * 5000], "10.0.0.1", OURS, "10.0.0.1", id="too long"),
        pytest.param([""], "10.0.0.1", OURS, "10.0.0.1", id="empty"),
        pytest.param([], "10.0.0.1", OURS, "10.0.0.1", id="a proxy says nothing"),
        pytest.param(["10.0.0.8, 10.0.0.9"], "10.0.0.1", OURS, "10.0.0.8", id="from within"),
        pytest.param([], "192.0.2.1", OURS, "192.0.2.1", id="direct"),
        pytest.param(["203.0.113.7"], None, OURS, "", id="nobody"),
        pytest.param(["203.0.113.7"], "a socket", OURS, "", id="unix socket"),
        pytest.param(["9.9.9.9, 203.0.113.7"], "192.0.2.1", 1, CALLER, id="counted, one"),
        pytest.param(["9.9.9.9, 203.0.113.7, 192.0.2.9"], "192.0.2.1", 2, CALLER, id="counted, two"),
        pytest.param(["9.9.9.9, unknown"], "192.0.2.1", 1, "192.0.2.1", id="counted, garbled"),
        pytest.param(["203.0.113.7"], "192.0.2.1", 2, "192.0.2.1", id="counted, came past a proxy"),
        pytest.param(["9.9.9.9, 203.0.113.7"], "", 1, CALLER, id="counted, at a unix socket"),
        pytest.param([], None, 1, "", id="counted, nobody"),
        pytest.param(["203.0.113.7"], "192.0.2.1", 0, "192.0.2.1", id="counted, none"),
    ],
)
def test_caller_address(lines: list[str], peer: str | None, proxies: Proxies, expected: str) -> None:
    assert seen(peer, proxies, *lines) == expected


def test_nothing_a_caller_sends_moves_it() -> None:
    """Whatever list a caller begins with, in however many lines, behind proxies that append it is the same caller."""
    draw = random.Random(3)
    pieces = [
        "",
        "unknown",
        "9.9.9.9",
        "10.0.0.9",
        "::1",
        "[::1]:8",
        "fe80::1%e",
        '"',
        ",,,",
        "\x00",
        "é",
        "a" * 300,
        CALLER,
    ]
    for _ in range(5_000):
        sent = [", ".join(draw.choices(pieces, k=draw.randint(0, 4))) for _ in range(draw.randint(0, 3))]
        appended = [*sent, CALLER] if draw.random() < 0.5 else [", ".join([*sent, CALLER])]
        assert seen("10.0.0.1", OURS, *appended) == CALLER
        assert seen("192.0.2.1", 1, *appended) == CALLER


@pytest.mark.parametrize("proxies", [["10.0.0.0/99"], ["nginx"], "10.0.0.1", -1, True])
def test_what_is_no_proxy_is_said_at_the_start(proxies: Proxies) -> None:
    with pytest.raises(ValueError):
        Admission(trusted_proxies=proxies)
