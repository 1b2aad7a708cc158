"""Which addresses a webhook may reach: public ones, and those that the routes file allows by name.

A name is resolved once, every address it has must pass, and the connection goes to the address that was checked.
"""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

_NAT64 = IPv6Network("64:ff9b::/96")


class ForbiddenAddressError(ValueError):
    """The host has an address inside a network, where a webhook has no business."""


def effective(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for (mapped, 6to4, NAT64), else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Tell whether a webhook may go to this address."""
    meant = effective(address)
    if any(meant.version == network.version and meant in network for network in allowed):
        return True
    return meant.is_global and not meant.is_multicast


def pinned(host: str, port: int, allowed: Sequence[Network], resolve: Resolve) -> str:
    """Return the address to connect to. Raises `ForbiddenAddressError`, or `OSError` when the name is not known."""
    found = [ip_address(text.partition("%")[0]) for text in resolve(host, port)]
    if not found:
        raise OSError(f"{host} has no address")
    for address in found:
        if not is_allowed(address, allowed):
            raise ForbiddenAddressError(
                f"{host} has the address {address}, which is not public: name it under `allow` if that is meant"
            )
    return str(found[0])


def system_resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name in the order to try; also of names like 2130706433 or 0x7f.1."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
