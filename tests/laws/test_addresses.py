"""Whatever way an address is written, the block and the caller that mean it meet; a network holds whom it contains."""

import ipaddress
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollmeter.producers.guard.access import AccessView
from tollmeter.producers.guard.guard import Guard
from tollmeter.producers.middleware.admission import Admission
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.addresses import address_or_network, caller_form, comparable, normal_address
from tollmeter.schemas.policy import Policy
from tollmeter.schemas.secrets import IpMode, mask_ip
from tollmeter.streams.rules.events.addresses import normal_addresses

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6).filter(lambda one: one.ipv4_mapped is None)
ORGS = st.sampled_from(["acme", "*"])


def spellings(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> st.SearchStrategy[str]:
    if one.version == 4:
        return st.sampled_from([str(one), f"::ffff:{one}", f"::FFFF:{one}", f" {one} ", f"{one}/32"])
    return st.sampled_from([str(one), one.exploded, one.exploded.upper(), f"{one}/128"])


def view(*names: str, org: str = "*") -> AccessView:
    made = AccessView()
    for name in names:
        block = Block(org_id=org, scope="client_ip", name=name, reason="r")
        made.apply(block.key, block.model_dump_json().encode())
    return made


@given(one=V4 | V6, data=st.data(), org=ORGS)
def test_a_blocked_address_is_refused_however_it_is_written(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject, org: str
) -> None:
    name = address_or_network(data.draw(spellings(one)))
    caller = data.draw(spellings(one)).partition("/")[0]
    found = view(name, org=org).blocked("acme", (("client_ip", caller),), 0)
    assert found is not None
    assert found.name == name


@given(one=V4 | V6, other=V4 | V6, bits=st.integers(0, 128))
def test_a_network_refuses_those_within_and_nobody_else(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address, other: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int
) -> None:
    network = ipaddress.ip_network((one, min(bits, one.max_prefixlen)), strict=False)
    known = view(address_or_network(str(network)), "198.51.100.0/24", "2001:db8::/32")
    callers = (one, other, network.network_address, network.broadcast_address)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.ip_network((mapped, network.prefixlen - 96))
    for caller in callers:
        networks = (network, ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8::/32"))
        address = getattr(caller, "ipv4_mapped", None) or caller  # one of IPv4, however a server shows it
        inside = any(address.version == each.version and address in each for each in networks)
        assert (known.blocked("acme", (("client_ip", str(caller)),), 0) is not None) == inside


@given(st.text(max_size=30))
def test_any_text_compares_and_normal_forms_stay(text: str) -> None:
    assert comparable(comparable(text)) == comparable(text)


def test_a_network_that_is_unblocked_is_forgotten() -> None:
    known = view("10.0.0.0/8")
    caller = (("client_ip", "10.1.2.3"),)
    assert known.blocked("acme", caller, 0)
    known.apply(Block(scope="client_ip", name="10.0.0.0/8", reason="r").key, None)
    assert known.blocked("acme", caller, 0) is None


def test_an_address_written_before_in_another_form_is_refused_and_limited() -> None:
    known = view("2001:0DB8::2")
    assert known.blocked("acme", (("client_ip", "2001:db8::2"),), 0)
    limit = RateLimit(scope="client_ip", name="::ffff:10.0.0.1", requests=1, window_s=60)
    known.apply(limit.key, json.dumps(limit.model_dump(mode="json")).encode())
    assert known.take("acme", (("client_ip", "10.0.0.1"),), 0, 0) is None
    assert known.take("acme", (("client_ip", "::ffff:10.0.0.1"),), 0, 0) is not None, "one caller, one bucket"


@pytest.mark.parametrize(
    "text", ["300.1.1.1", "203.0.113.9:8080", "[::1]:80", "fe80::1%eth0", "010.0.0.1", "", "ann", "10.0.0.0/33"]
)
def test_what_is_no_address_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        address_or_network(text)


def limited(*names: str, ipv6_prefix: int = 64) -> AccessView:
    """Return a view in which each of these may call once a minute."""
    made = AccessView(ipv6_prefix=ipv6_prefix)
    for name in names:
        limit = RateLimit(scope="client_ip", name=name, requests=1, window_s=60)
        made.apply(limit.key, limit.model_dump_json().encode())
    return made


def passes(known: AccessView, caller: str) -> bool:
    return known.take("acme", (("client_ip", caller),), 0, 0) is None


@given(one=V6, other=V6, suffix=st.integers(0, 2**64 - 1), bits=st.sampled_from([48, 56, 64, 128]))
def test_a_network_of_ipv6_is_one_caller(
    one: ipaddress.IPv6Address, other: ipaddress.IPv6Address, suffix: int, bits: int
) -> None:
    known = limited("*", ipv6_prefix=bits)
    near = ipaddress.IPv6Address((int(one) >> 64 << 64) + suffix)  # another address of its /64
    assert passes(known, str(one))
    called = {int(one) >> (128 - bits)}
    for caller in (near, other):
        if caller.ipv4_mapped is not None:
            continue
        network = int(caller) >> (128 - bits)
        assert passes(known, f" {caller.exploded.upper()} ") is (network not in called)
        called.add(network)
        assert not passes(known, str(caller)), "it has had its call"


def test_whose_limit_an_address_of_ipv6_meets() -> None:
    known = limited("*", "2001:db8:1:2::7")
    assert passes(known, "2001:db8:1:2::7"), "it has a limit of its own"
    assert passes(known, "2001:db8:1:2::8")
    assert not passes(known, "2001:db8:1:2:ffff::9")
    assert not passes(known, "2001:db8:1:2::7")
    assert passes(known, "2001:db8:1:3::7")
    assert passes(limited("*"), "::ffff:203.0.113.1")
    four = limited("*")
    assert [passes(four, one) for one in ("203.0.113.1", "203.0.113.2", "::ffff:203.0.113.2")] == [True, True, False]
    named = limited("2001:db8:1:2::/64")
    answers = [passes(named, one) for one in ("2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:3::2")]
    assert answers == [True, False, True]
    refused = named.take("acme", (("client_ip", "2001:db8:1:2::5"),), 0, 0)
    assert refused is not None
    assert refused.name == "2001:db8:1:2::/64"


def blocking(block: Block) -> Guard:
    """Return a guard that knows this block and no prices."""
    guard = Guard(mode="memory")
    assert guard.apply("policies", block.key, block.model_dump_json().encode())
    return guard


@st.composite
def arriving(draw: st.DrawFn, one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return an address as servers and proxies show it: with a port, in brackets, with a zone."""
    plain = draw(spellings(one)).partition("/")[0].strip()
    if ":" in plain and "." not in plain and draw(st.booleans()):
        plain = f"{plain}%eth0"
    if draw(st.booleans()):
        plain = f"[{plain}]:443" if ":" in plain else f"{plain}:443"
    return draw(st.sampled_from(["", " ", "\t"])) + plain


@given(one=V4 | V6, data=st.data())
def test_a_caller_is_one_however_servers_show_it(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject
) -> None:
    shown, again = data.draw(arriving(one)), data.draw(arriving(one))
    assert caller_form(shown) == normal_address(again) == str(one)
    guard = blocking(Block(scope="client_ip", name=address_or_network(data.draw(spellings(one))), reason="leak"))
    assert not guard.check("gpt-4o", client_ip=shown, prompt_chars=1)
    assert Admission(guard).enter((), shown, {}).deny is not None
    assert Admission(guard, ip_mode="hashed", ip_salt="s").enter((), again, {}).deny is not None
    written = data.draw(spellings(one)).partition("/")[0]
    assert Policy(org_id="acme", scope="client_ip", name=written, daily_limit_micro=1).name == str(one)
    others = ["", "9f86d081884c7d65", "not an address"]
    assert normal_addresses(pl.Series([shown, *others])).to_list() == [str(one), *others]
    modes: tuple[IpMode, ...] = ("full", "truncated", "hashed")
    for mode in modes:
        assert mask_ip(shown, mode, "s") == mask_ip(again, mode, "s")


def test_a_hash_of_an_address_can_be_blocked_as_reports_show_it() -> None:
    guard = blocking(Block(scope="client_ip", name=mask_ip("203.0.113.9", "hashed", "today"), reason="leak"))
    door = Admission(guard, ip_mode="hashed", ip_salt="today")
    assert door.enter((), "::ffff:203.0.113.9", {}).deny is not None
    assert door.enter((), "203.0.113.10", {}).deny is None


@given(V4 | V6)
def test_a_truncated_address_is_no_address_of_its_own(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    base = mask_ip(str(one), "truncated")
    guard = blocking(Block(scope="client_ip", name=base, reason="leak"))
    refused = Admission(guard, ip_mode="truncated").enter((), str(one), {}).deny is not None
    assert refused == (ipaddress.ip_address(base) == one)


@pytest.mark.parametrize("name", ["10.0.0.0/8", "300.1.1.1", "ann"])
def test_a_budget_is_of_one_address(name: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Policy(org_id="acme", scope="client_ip", name=name, daily_limit_micro=1)
