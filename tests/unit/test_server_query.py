"""What answers read of a request is what they declare, and what they declare is what the description says."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route

from tollmeter.server import answers, doors, openapi, query

ROUTES = [route for route in answers.routes() if isinstance(route, Route)]
HANDLERS = {f"{route.endpoint.__module__.rpartition('.')[2]}.{route.endpoint.__name__}": route for route in ROUTES}
READERS = {"get": 0, "whole": 1}
"""Functions that are given the name of a parameter, and at which place."""


def statements(handler: Any) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(handler))))


def names_read(tree: ast.AST) -> Iterator[str]:
    """Yield the parameters that a handler reads by their names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "given":
            assert isinstance(node.slice, ast.Constant | ast.Name)
            if isinstance(node.slice, ast.Constant):
                yield str(node.slice.value)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            source = ast.unparse(node.func)
            if name in READERS and (source in ("given.get", "checked(request).get") or name == "whole"):
                place = node.args[READERS[name]]
                if isinstance(place, ast.Constant):
                    yield str(place.value)
            if name == "asked_of":
                yield "zone"
            if name == "page_of":
                yield from query.PAGES


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_declares_what_it_reads(name: str) -> None:
    endpoint = HANDLERS[name].endpoint
    tree, taken = statements(endpoint), query.taken_of(endpoint)
    assert set(names_read(tree)) <= {*taken.parameters}
    assert {*taken.parameters} <= query.PARAMETERS.keys()
    text = ast.unparse(tree)
    assert "query_params" not in text, "read by `checked`, which lets through what is declared"
    shapes = {ast.unparse(node.args[1]) for node in ast.walk(tree) if isinstance(node, ast.Call) and reads_body(node)}
    assert shapes == {shape.__name__ for shape, _ in taken.bodies.values()}


def reads_body(node: ast.Call) -> bool:
    return ast.unparse(node.func) in ("bodies.read", "_access")


def test_every_parameter_that_any_handler_declares_is_read_somewhere() -> None:
    declared = {name for route in ROUTES for name in query.taken_of(route.endpoint).parameters}
    assert declared == query.PARAMETERS.keys()


def test_the_description_has_parameters_and_bodies_as_they_are_declared() -> None:
    document = openapi.document(doors.ALL, answers.routes())
    for route in ROUTES:
        taken = query.taken_of(route.endpoint)
        path, in_path = openapi._path(route.path)
        for method in (route.methods or set()) - {"HEAD"}:
            said = document["paths"][path][method.lower()]
            found = [one["name"] for one in said.get("parameters", ()) if one["in"] == "query"]
            assert found == list(taken.parameters), path
            assert ("requestBody" in said) == (method in taken.bodies), (method, path)
            assert {one["name"] for one in said.get("parameters", ()) if one["in"] == "path"} == {
                one["name"] for one in in_path
            }
    block = document["paths"]["/api/v1/blocks/{kind}/{id}"]["put"]["requestBody"]["content"]["application/json"]
    assert "reason" in block["schema"]["properties"]
    assert not {"org_id", "scope", "name"} & block["schema"]["properties"].keys(), "path and key say these"


def test_a_parameter_that_a_handler_reads_unsaid_is_found() -> None:
    tree = ast.parse('async def h(request):\n    given = checked(request)\n    return given["x"], given.get("y")')
    assert set(names_read(tree)) == {"x", "y"}
