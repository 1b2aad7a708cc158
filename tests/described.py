"""Answers held to the description: no member that it does not name, none missing that it says is always there."""

import json
import re
from collections.abc import Collection
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tollmeter.server import answers, doors, openapi
from tollmeter.server.openapi import PROXY

DOCUMENT = openapi.document(doors.ALL, answers.routes())
Operation = tuple[str, str]


def operations() -> set[Operation]:
    """Return every method and path of the description but the proxy's, which a provider answers."""
    paths = DOCUMENT["paths"].items()
    return {(method.upper(), path) for path, methods in paths for method in methods if path != PROXY}


class Held:
    """A hook for responses of a client: each is as described. It knows which operations have answered well."""

    def __init__(self) -> None:
        self.answered: set[Operation] = set()

    def __call__(self, response: httpx.Response) -> None:
        operation = operation_of(response.request.method, response.request.url.path)
        if operation is None:
            return
        response.read()
        method, path = operation
        kind = response.headers.get("content-type", "").partition(";")[0]
        hold(path, method, response.status_code, kind, response.content)
        if response.is_success:
            self.answered.add(operation)


def hold(path: str, method: str, status: int, kind: str, body: bytes) -> None:
    """Hold an answer to the description."""
    kinds = described(path, method, status)
    if not kinds:
        assert body == b"", (method, path, status)
        return
    assert kind in kinds, (method, path, status, kind)
    if kind.endswith("json"):
        kinds[kind].validate(json.loads(body))


@cache
def described(path: str, method: str, status: int) -> dict[str, Draft202012Validator]:
    """Return what the description says of an answer's body, by media type; none for an answer without one."""
    said = DOCUMENT["paths"][path][method.lower()]["responses"]
    assert str(status) in said or status >= 400, (method, path, status)
    parts = {"components": {"schemas": closed(DOCUMENT["components"]["schemas"])}}
    content = said.get(str(status), said["default"]).get("content", {})
    return {kind: Draft202012Validator({**closed(one.get("schema", {})), **parts}) for kind, one in content.items()}


def operation_of(method: str, path: str) -> Operation | None:
    """Return the operation that a request is of; None for pages and the proxy."""
    found = (one for one, pattern in _patterns(frozenset(operations())) if one[0] == method and pattern.fullmatch(path))
    return next(found, None)


@cache
def _patterns(known: Collection[Operation]) -> list[tuple[Operation, re.Pattern[str]]]:
    """Return each operation with its path as a pattern, those without parameters first."""
    by_parameters = sorted(known, key=lambda one: (one[1].count("{"), -len(one[1]), one))
    return [(one, re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(one[1])))) for one in by_parameters]


def closed(schema: Any) -> Any:
    """Return a schema whose objects have no member that it does not name, unless it says that others may come."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(one) for name, one in schema.items()}
    return {"additionalProperties": False, **made} if isinstance(made.get("properties"), dict) else made
