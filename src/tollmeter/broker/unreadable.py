"""Records of `usage.policies` that this version cannot read stop nobody: they are named with their keys, and can go.

Nothing obeys such a record: no guard, not WATCH. Who lists rules is told of it.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from tollmeter.schemas.access import BLOCK_PREFIX, RATE_PREFIX, Block, RateLimit
from tollmeter.schemas.model_rules import MODELS_PREFIX, ModelRule
from tollmeter.schemas.policy import Member, Policy

POLICY, MEMBER = b"policy:", b"member:"
SHAPES: Mapping[bytes, type[BaseModel]] = {
    POLICY: Policy,
    MEMBER: Member,
    MODELS_PREFIX.encode(): ModelRule,
    BLOCK_PREFIX.encode(): Block,
    RATE_PREFIX.encode(): RateLimit,
}
"""What the values of our own rules are, by what their keys begin with."""
_Shape = TypeVar("_Shape", bound=BaseModel)


class Unreadable(NamedTuple):
    """A record by its key, as it is shown and typed, and what is wrong with it."""

    key: str
    why: str

    @property
    def org_id(self) -> str:
        """The organisation that the key names."""
        return self.key.partition(":")[2].partition("/")[0].replace("%2F", "/").replace("%25", "%")


def readable(found: Mapping[bytes, bytes], shape: type[_Shape]) -> list[_Shape]:
    """Return the rules of one shape among entries of the topic, in order of their keys; others are passed over."""
    prefix = next(prefix for prefix, known in SHAPES.items() if known is shape)
    read = (_read(found[key], shape) for key in sorted(found) if key.startswith(prefix))
    return [one for one in read if not isinstance(one, str)]


def unreadable(found: Mapping[bytes, bytes]) -> list[Unreadable]:
    """Return what of the topic's rules cannot be read, in order of the keys."""
    problems = []
    for key in sorted(found):
        shape = next((known for prefix, known in SHAPES.items() if key.startswith(prefix)), None)
        wrong = None if shape is None else _read(found[key], shape)
        if isinstance(wrong, str):
            problems.append(Unreadable(text_of(key), wrong))
    return problems


def text_of(key: bytes) -> str:
    """Return a key as it is shown and typed."""
    return key.decode("utf-8", "backslashreplace")


def _read(value: bytes, shape: type[_Shape]) -> _Shape | str:
    try:
        return shape.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}"
