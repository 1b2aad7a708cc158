"""Of two statements about the same usage the larger one holds, field by field."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from tollmeter.producers.extract.usage import amount, get

_DEPTH = 12


def plain(value: object, depth: int = 0) -> object:
    """Return an SDK's object as dicts and lists, without what says nothing. Bounded in depth; never raises."""
    if depth > _DEPTH:
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(item, depth + 1) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Enum):
        return plain(value.value, depth + 1)
    try:
        dump = getattr(value, "model_dump", None)
        fields = dump() if callable(dump) else vars(value) if hasattr(value, "__dict__") else None
    except Exception:  # an SDK's object may do anything when it is looked at
        return None
    return plain(fields, depth + 1) if isinstance(fields, Mapping) else value


def grown(old: object, new: object) -> object:
    """Return the larger of two counts, the longer of two lists, the later of two texts; blocks field by field."""
    if new is None:
        return old
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{name: grown(old.get(name), value) for name, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return _lists(old, new)
    before, after = amount(old), amount(new)
    if before is not None and (after is None or after < before):
        return old
    return new


def _lists(old: list[object], new: list[object]) -> list[object]:
    """Lists by modality meet by their modality; others are the same list as it grows."""
    if any(get(item, "modality") is not None for item in (*old, *new)):
        by_kind: dict[str, Any] = {}
        for item in (*old, *new):
            kind = str(get(item, "modality"))
            by_kind[kind] = grown(by_kind.get(kind), item)
        return list(by_kind.values())
    if len(old) != len(new):
        return old if len(old) > len(new) else new
    return [grown(one, other) for one, other in zip(old, new, strict=True)]
