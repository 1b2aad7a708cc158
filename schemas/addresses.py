"""Addresses in one form, so that a block and a caller that mean the same are the same text. Pure.

IPv6 is short and in lower case, an IPv4 address that a dual-stack listener shows as ::ffff:203.0.113.9 is 203.0.113.9.
"""

import ipaddress
from functools import lru_cache

MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
CACHED = 4_096


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


def network_of(known: str, wide: tuple[int, int]) -> str | None:
    """Return the network of that width around an address in its normal form; None where it has none."""
    try:
        parsed = ipaddress.ip_address(known)
    except ValueError:
        return None
    version, bits = wide
    return str(ipaddress.ip_network((parsed, bits), strict=False)) if parsed.version == version else None
