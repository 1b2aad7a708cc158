"""The description of the server in OpenAPI 3.1, made of the doors, the routes and the shapes that the code has."""

import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import msgspec
from pydantic import BaseModel
from starlette.routing import BaseRoute, Route

from tollmeter import __version__
from tollmeter.schemas.cloudevents import REQUIRED
from tollmeter.schemas.event import UsageEvent
from tollmeter.server.door import Door
from tollmeter.server.query import PARAMETERS, Taken, taken_of
from tollmeter.server.shapes import Schema, schema_of

PUBLIC = frozenset({"/ping", "/health", "/livez", "/readyz", "/openapi.json", "/docs"})
"""Paths that ask for no key."""
_REF = "#/components/schemas/"
_OPTIONAL_HERE = ("event_id", "occurred_at", "service", "provider")
_KEYS: Schema = {
    "AdminKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "IngestKey": {"type": "apiKey", "in": "header", "name": "X-Ingest-Key"},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "Any of the keys"},
}
_PROBLEM: Schema = {
    "type": "object",
    "additionalProperties": True,
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and where, in a sentence"},
        "code": {"type": "string", "description": "The same for programs"},
        "request_id": {"type": "string"},
    },
}
PROXY = "/proxy/{upstream}/{path}"
_PROXIED = ("get", "post", "put", "patch", "delete")
_DEFAULT: Schema = {
    "default": {
        "description": "A problem document (RFC 9457)",
        "content": {"application/problem+json": {"schema": {"$ref": f"{_REF}Problem"}}},
    }
}


def document(doors: Sequence[Door], routes: Iterable[BaseRoute]) -> Schema:
    """Return the whole description."""
    components: Schema = {"Problem": _PROBLEM, "UsageEvent": _usage_event(), "CloudEvent": _cloud_event()}
    paths: Schema = {door.path: {"post": _of_door(door, components)} for door in doors}
    for route in routes:
        if isinstance(route, Route):
            path, parameters = _path(route.path)
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                made = _of_route(route, method, parameters, components)
                paths.setdefault(path, {})[method.lower()] = made
    paths[PROXY] = {method: _of_proxy(method) for method in _PROXIED}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tollmeter",
            "version": __version__,
            "summary": "Usage of language models comes in, spend and limits go out",
            "description": "Pages for people lie below /dashboard.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": components, "securitySchemes": _KEYS},
    }


def _of_door(door: Door, components: Schema) -> Schema:
    content = {kind: {"schema": _resolved(schema, components)} for kind, schema in door.schemas.items()}
    found: Schema = {
        "summary": door.summary,
        "operationId": _name("post", door.path),
        "security": [{"IngestKey": []}, {"AdminKey": []}, {"Bearer": []}],
        "requestBody": {"required": True, "content": content or {"application/json": {}}},
        "responses": {**_answers_of(door, components), **_DEFAULT},
    }
    return found | ({"deprecated": True} if door.deprecated else {})


def _answers_of(door: Door, components: Schema) -> Schema:
    """Return the answers of a door, of the shapes that it sends."""
    found: Schema = {}
    for status, shape in door.answers.items():
        text = " ".join(((inspect.getdoc(shape) or "") if shape else "Everything was taken; without a body").split())
        found[str(status)] = {"description": text}
        if shape:
            packed = {door.packed: {"schema": {"type": "string", "format": "binary"}}} if door.packed else {}
            told = {"application/json": {"schema": _shape(shape, components)}}
            found[str(status)]["content"] = told | packed
    return found


def _of_route(route: Route, method: str, in_path: list[Schema], components: Schema) -> Schema:
    text, taken = inspect.getdoc(inspect.unwrap(route.endpoint)) or "", taken_of(route.endpoint)
    found: Schema = {
        "summary": " ".join(text.partition("\n\n")[0].split()),
        "operationId": _name(method.lower(), route.path),
        "responses": {**_given(taken, method), **_DEFAULT},
    }
    if parameters := [*in_path, *map(_parameter, taken.parameters)]:
        found["parameters"] = parameters
    if method in taken.bodies:
        schema = {"schema": _body(*taken.bodies[method], components)}
        found["requestBody"] = {"required": True, "content": {"application/json": schema}}
    if route.path not in PUBLIC:
        found["security"] = [{"AdminKey": []}, {"Bearer": []}]
    return found


def _given(taken: Taken, method: str) -> Schema:
    """Return the answers of a route to a method that are no problem."""
    if method in taken.empty:
        return {"204": {"description": "Done; without a body"}}
    content: Schema = {} if taken.gives is None else {"application/json": {"schema": schema_of(taken.gives)}}
    content |= {kind: {"schema": {"type": "string"}} for kind in taken.text}
    return {str(status): {"description": "The answer", "content": content} for status in taken.statuses}


def _of_proxy(method: str) -> Schema:
    """Return what the proxy does with a method: it passes on what the provider's own interface takes and answers."""
    names = {"upstream": "A provider, by its name in the configuration", "path": "A path of the provider's interface"}
    return {
        "summary": "Pass a call on to a provider, and meter it",
        "operationId": _name(method, PROXY),
        "security": [{"IngestKey": []}, {"AdminKey": []}, {"Bearer": []}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": text}
            for name, text in names.items()
        ],
        "responses": {"2XX": {"description": "The provider's answer, as it came", "content": {"*/*": {}}}, **_DEFAULT},
    }


def _parameter(name: str) -> Schema:
    schema, text = PARAMETERS[name]
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _body(shape: type[BaseModel], said: Collection[str], components: Schema) -> Schema:
    """Return the schema of a body: the shape without what path or key say."""
    schema = shape.model_json_schema(ref_template=_REF + "{model}")
    components.update(schema.pop("$defs", {}))
    schema["properties"] = {name: one for name, one in schema["properties"].items() if name not in said}
    schema["required"] = [name for name in schema.get("required", ()) if name not in said]
    return schema


def _path(path: str) -> tuple[str, list[Schema]]:
    """Return a route's path as OpenAPI writes it, and the parameters in it."""
    names = re.findall(r"{(\w+)(?::\w+)?}", path)
    plain = re.sub(r"{(\w+):\w+}", r"{\1}", path)
    return plain, [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _name(method: str, path: str) -> str:
    return "_".join([method, *re.findall(r"\w+", path)]) or method


def _resolved(schema: Mapping[str, object], components: Schema) -> Schema:
    """Return a door's shape as JSON Schema: `type` may be a class, `event` and `cloudevent` stand for those."""
    made: Schema = {}
    for word, value in schema.items():
        if word in ("event", "cloudevent"):
            return {"$ref": _REF + ("UsageEvent" if word == "event" else "CloudEvent")}
        if word == "array":
            return {
                "type": "array",
                "items": _resolved(value, components) if isinstance(value, Mapping) else _shape(value, components),
            }
        if word == "anyOf" and isinstance(value, Sequence):
            made["anyOf"] = list(map(partial(_resolved, components=components), value))
        elif word == "type" and isinstance(value, type):
            return _shape(value, components)
        else:
            made[word] = value
    return made


def _shape(kind: object, components: Schema) -> Schema:
    (schema,), parts = msgspec.json.schema_components([kind], ref_template=_REF + "{name}")
    components.update(parts)
    return dict(schema)


def _usage_event() -> Schema:
    """Return a usage event as the doors take it: what they fill in may be absent."""
    schema = UsageEvent.model_json_schema()
    schema["required"] = [name for name in schema["required"] if name not in _OPTIONAL_HERE]
    schema["properties"]["event_id"] = {"type": "string", "minLength": 1, "maxLength": 256}
    schema["properties"]["occurred_at"] = {"type": ["string", "number"], "description": "RFC 3339, or since 1970"}
    schema["properties"]["tracking_token"] = {"type": "string", "maxLength": 64}
    schema["description"] = "One call, as docs/json.md describes it"
    return schema


def _cloud_event() -> Schema:
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "required": [*REQUIRED, "data"],
        "properties": {
            **dict.fromkeys(REQUIRED, text),
            "specversion": {"type": "string", "pattern": "^1\\."},
            "time": {"type": "string", "format": "date-time"},
            "subject": {"type": "string"},
            "data": {"type": "object"},
        },
    }
