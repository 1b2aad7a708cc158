"""Addresses in one form, so that a block and a caller that mean the same are the same text. Pure.

IPv6 is short and in lower case, an IPv4 address that a dual-stack listener shows as ::ffff:203.0.113.9 is 203.0.113.9.
"""

import ipaddress
import re
from functools import lru_cache

MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
CACHED = 4_096
HASHED = re.compile(r"[0-9a-f]{16}")
"""What events may keep in place of an address."""


def address(text: str) -> str:
    """Return an address in its normal form. Raises `ValueError` for what is none, as with a port or a zone."""
    parsed = ipaddress.ip_address(text.strip())
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            raise ValueError(f"{text!r} names an interface of one machine")
        return str(parsed.ipv4_mapped or parsed)
    return str(parsed)


def address_or_network(text: str) -> str:
    """Return an address or a network in its normal form; a network of one address is that. Raises `ValueError`."""
    if "/" not in text:
        return address(text)
    network = ipaddress.ip_network(text.strip(), strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED):
        mapped = network.network_address.ipv4_mapped
        return address_or_network(f"{mapped}/{network.prefixlen - MAPPED.prefixlen}")
    return str(network) if network.prefixlen < network.max_prefixlen else str(network.network_address)


_WRITTEN = re.compile(r"\[([^\[\]]*)\](?::\d{1,5})?|([\d.]+):\d{1,5}|([^%\[\]]*:[^%\[\]]*)%.*")
"""An address as servers and proxies write it: IPv6 in brackets or with a zone, IPv4 plain; a port behind."""


@lru_cache(CACHED)
def caller_form(text: str) -> str:
    """Return what is known of a caller: an address in its normal form without port and zone, any other text as it is.

    Unlike a rule, which an admin can write anew, a caller is as servers and proxies show it.
    """
    plain = text.strip()
    found = _WRITTEN.fullmatch(plain)
    host = next((part for part in found.groups() if part), "") if found else plain
    try:
        return address(host.partition("%")[0])
    except ValueError:
        return plain


def parsed_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of a caller, None for text that is none."""
    try:
        return ipaddress.ip_address(caller_form(text))
    except ValueError:
        return None


def normal_address(text: str) -> str:
    """Return the address of a caller in its normal form; "" for text that is none."""
    return caller_form(text) if parsed_address(text) is not None else ""


def named_address(text: str) -> str:
    """Return the form under which a budget keeps an address, or the hash of one. Raises `ValueError` for what is none.

    A budget is of one address: nothing sums up those of a network.
    """
    if HASHED.fullmatch(text):
        return text
    try:
        return address(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is no address: write it like 203.0.113.9 or 2001:db8::7") from None


@lru_cache(CACHED)
def comparable(text: str) -> str:
    """Return an address or a network in its normal form, and any other text, such as a hashed address, as it is."""
    try:
        return address_or_network(text)
    except ValueError:
        return text


def width(network: str) -> tuple[int, int] | None:
    """Return version and prefix length of a network in its normal form; None for what is none."""
    try:
        parsed = ipaddress.ip_network(network)
    except ValueError:
        return None
    return (parsed.version, parsed.prefixlen) if "/" in network else None


IPV6_PREFIX = 64
"""Bits of an IPv6 address that tell callers apart: a site has at least so small a network, and any address in it."""


@lru_cache(CACHED)
def rated_as(text: str, bits: int = IPV6_PREFIX) -> str:
    """Return whose calls count together with those of an address: of IPv6 its network, of anything else itself."""
    known = caller_form(text)
    return known if bits >= 128 else network_of(known, (6, bits)) or known


def network_of(known: str, wide: tuple[int, int]) -> str | None:
    """Return the network of that width around an address in its normal form; None where it has none."""
    try:
        parsed = ipaddress.ip_address(known)
    except ValueError:
        return None
    version, bits = wide
    return str(ipaddress.ip_network((parsed, bits), strict=False)) if parsed.version == version else None
