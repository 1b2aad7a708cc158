"""The caller is whom our nearest proxy saw, read from the right: what stands further left, anyone may send."""

import ipaddress
from collections.abc import Iterable, Sequence

from tollmeter.schemas.addresses import normal_address, parsed_address

Proxies = int | Sequence[str]
"""Trusted proxies: their addresses and networks ("10.0.0.0/8"), or how many of them stand before this service."""

HEADER = "x-forwarded-for"


def checked_proxies(proxies: int | Iterable[str]) -> Proxies:
    """Return the trusted proxies as `caller_address` takes them. Raises `ValueError` for what are none."""
    if isinstance(proxies, int):
        if proxies < 0 or isinstance(proxies, bool):
            raise ValueError(f"trusted_proxies={proxies!r}: say how many proxies there are, or name their networks")
        return proxies
    if isinstance(proxies, str):
        raise ValueError(f"trusted_proxies={proxies!r}: give a list, like [{proxies!r}]")
    named = tuple(proxies)
    for network in named:  # wrong ones are said at the start, not at the first request
        ipaddress.ip_network(network, strict=False)
    return named


def caller_address(headers: Iterable[tuple[str, str]], peer: str | None, proxies: Proxies) -> str:
    """Return the caller's address in its one form; "" when nobody said it, or what was said is no address.

    Each proxy appends whom it was asked by, so the caller is the first entry from the right that is no trusted proxy.
    Several X-Forwarded-For lines are one list. Where a trusted proxy left no address, it stands for the caller itself:
    limits hold for all behind it rather than for nobody. Behind a Unix socket proxies can only be counted.
    """
    direct = normal_address(peer or "")
    lines = [value for name, value in headers if name.lower() == HEADER]
    if not lines or not proxies or not (direct or isinstance(proxies, int)):  # a Unix socket has no address to trust
        return direct
    hops = [_written(entry) for entry in ",".join(lines).split(",")]
    if isinstance(proxies, int):
        return (hops[-proxies] if proxies <= len(hops) else "") or direct
    known = direct
    for hop in [direct, *reversed(hops)]:
        if not hop:
            return known
        known = hop
        if not _within(hop, proxies):
            break
    return known


def _written(entry: str) -> str:
    """Return the address a proxy wrote. One with a zone names an interface of another machine, so it is none."""
    return "" if "%" in entry else normal_address(entry)


def _within(address: str, networks: Iterable[str]) -> bool:
    parsed = parsed_address(address)
    return parsed is not None and any(parsed in ipaddress.ip_network(network, strict=False) for network in networks)
