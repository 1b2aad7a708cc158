"""What answers look like, written as they look, for the description in OpenAPI.

A mapping is an object, with members that are not always there under a name with ? at its end and "..." where others may
come; a list of one is an array; a type is a value of it; `Model` is what a model says of itself.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter

Schema = dict[str, Any]
Shape = Any
OTHERS = "..."
_SAID = frozenset({"type", "format", "enum", "const", "items", "anyOf", "additionalProperties"})
"""What of a model is said of its answers; what bounds its values is for those who send them."""


class Model(NamedTuple):
    """A model as it is answered: without some members, `more` besides. `sparse`: those that are null are left out."""

    model: type[BaseModel]
    without: tuple[str, ...] = ()
    more: Mapping[str, Shape] = {}
    sparse: bool = False


class Maybe(NamedTuple):
    """A shape, or null."""

    shape: Shape


def sometimes(names: Iterable[str], of: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return members that are not always there."""
    return {f"{name}?": of[name] for name in names}


def schema_of(shape: Shape) -> Schema:
    """Return a shape as JSON Schema."""
    if isinstance(shape, Model):
        return _of_model(shape)
    if isinstance(shape, Maybe):
        return {"anyOf": [schema_of(shape.shape), {"type": "null"}]}
    if isinstance(shape, Mapping):
        return _object(
            {name.removesuffix("?"): schema_of(one) for name, one in shape.items() if name != OTHERS},
            [name for name in shape if not name.endswith("?") and name != OTHERS],
            others=OTHERS in shape,
        )
    if isinstance(shape, list):
        (one,) = shape
        return {"type": "array", "items": schema_of(one)}
    return TypeAdapter(shape).json_schema()


def _object(members: Schema, always: list[str], *, others: bool = False) -> Schema:
    made: Schema = {"type": "object", "properties": members, "required": always}
    return made | ({"additionalProperties": True} if others else {})


def _of_model(shape: Model) -> Schema:
    schema = shape.model.model_json_schema(mode="serialization")
    made = _plain(schema, schema.get("$defs", {}), sparse=shape.sparse)
    more = {name.removesuffix("?"): schema_of(one) for name, one in shape.more.items()}
    members = {name: one for name, one in made["properties"].items() if name not in shape.without}
    optional = {name for name, field in shape.model.model_fields.items() if field.exclude_if is not None}
    always = [name for name in made["required"] if name in members and name not in optional]
    return _object(members | more, [*(name for name in shape.more if not name.endswith("?")), *always])


def _plain(schema: Schema, parts: Mapping[str, Schema], *, sparse: bool) -> Schema:
    """Return a schema of pydantic with its parts in place, and with all members required that are always there."""
    if "$ref" in schema:
        return _plain(parts[schema["$ref"].rpartition("/")[2]], parts, sparse=sparse)
    made = {name: value for name, value in schema.items() if name in _SAID}
    if "properties" in schema:
        members = {name: _plain(one, parts, sparse=sparse) for name, one in schema["properties"].items()}
        null = {name for name, one in members.items() if sparse and {"type": "null"} in one.get("anyOf", ())}
        return _object(members, [name for name in members if name not in null])
    for name in ("items", "additionalProperties"):
        if isinstance(made.get(name), dict):
            made[name] = _plain(made[name], parts, sparse=sparse)
    if "anyOf" in made:
        made["anyOf"] = [_plain(one, parts, sparse=sparse) for one in made["anyOf"]]
    return made
