"""Blocks and rate limits are rows of the compacted topic that guards read: written when acknowledged, no restart."""

from tollmeter.broker.policies import Change, entries, write
from tollmeter.broker.unreadable import readable
from tollmeter.schemas.access import Block, RateLimit
from tollmeter.schemas.addresses import width
from tollmeter.settings import Settings


def put(settings: Settings, entry: Block | RateLimit) -> None:
    """Return when the row is on the log, in place of any for the same caller. Raises `PolicyError`."""
    write(settings, [Change(entry.org_id, entry.key.encode(), entry.model_dump_json().encode())])


def take_away(settings: Settings, entry: Block | RateLimit) -> None:
    """Return when the row is gone; an absent one is no error. Raises `PolicyError`."""
    write(settings, [Change(entry.org_id, entry.key.encode(), None)])


def can_be_rated(settings: Settings, name: str) -> bool:
    """Say whether calls are counted for what a rate limit names: an address, or a network that counts as one."""
    found = width(name)
    return found is None or found == (6, settings.rate_ipv6_prefix)


def not_rated(settings: Settings, name: str) -> str:
    """Return why a rate limit of a network would hold for nobody."""
    return (
        f"{name} is a network: a rate limit is of one address, of an IPv6 /{settings.rate_ipv6_prefix} "
        "(TOLLMETER_RATE_IPV6_PREFIX), or of each by itself"
    )


def blocks(settings: Settings) -> list[Block]:
    """Return all blocks in order of their keys, those that have run out too. Raises `PolicyError`."""
    return readable(entries(settings), Block)


def rate_limits(settings: Settings) -> list[RateLimit]:
    """Return all rate limits in order of their keys, those that have run out too. Raises `PolicyError`."""
    return readable(entries(settings), RateLimit)
