"""Blocks and rate limits are rows of the compacted topic that guards read: written when acknowledged, no restart."""

from pydantic import ValidationError

from tollmeter.broker.policies import Change, PolicyError, entries, write
from tollmeter.schemas.access import BLOCK_PREFIX, RATE_PREFIX, Block, RateLimit
from tollmeter.settings import Settings


def put(settings: Settings, entry: Block | RateLimit) -> None:
    """Return when the row is on the log, in place of any for the same caller. Raises `PolicyError`."""
    write(settings, [Change(entry.org_id, entry.key.encode(), entry.model_dump_json().encode())])


def take_away(settings: Settings, entry: Block | RateLimit) -> None:
    """Return when the row is gone; an absent one is no error. Raises `PolicyError`."""
    write(settings, [Change(entry.org_id, entry.key.encode(), None)])


def blocks(settings: Settings) -> list[Block]:
    """Return all blocks in order of their keys, those that have run out too. Raises `PolicyError`."""
    return [Block.model_validate_json(value) for value in _rows(settings, BLOCK_PREFIX, Block)]


def rate_limits(settings: Settings) -> list[RateLimit]:
    """Return all rate limits in order of their keys, those that have run out too. Raises `PolicyError`."""
    return [RateLimit.model_validate_json(value) for value in _rows(settings, RATE_PREFIX, RateLimit)]


def _rows(settings: Settings, prefix: str, shape: type[Block] | type[RateLimit]) -> list[bytes]:
    found = entries(settings)
    rows = [found[key] for key in sorted(found) if key.startswith(prefix.encode())]
    try:
        for row in rows:
            shape.model_validate_json(row)
    except ValidationError:
        raise PolicyError(f"a {shape.__name__.lower()} was written by a newer version: upgrade this one") from None
    return rows
