"""No way out of the product that the law of hostile names does not know: each place in the code is listed with its way.

Found from the syntax tree: whatever prints, logs, answers, writes a file for people or sends a text to them.
"""

import ast

from tests.outward import OF_PROGRAMS, PLACES, WAYS
from tests.unit.test_size import trees

CALLS = {
    "print": "print",
    "sys.stdout": "stream",
    "sys.stderr": "stream",
    "click.echo": "stream",
    "click.secho": "stream",
    "click.get_binary_stream": "stream",
    "click.get_text_stream": "stream",
    "Console": "stream",
    "warnings.warn": "stream",
    "logging.StreamHandler": "log",
    "logging.FileHandler": "log",
    "logging.Formatter": "log",
    "csv.writer": "csv",
    "csv.DictWriter": "csv",
    "*.write_csv": "csv",
    "yaml.dump": "yaml",
    "yaml.safe_dump": "yaml",
    "json.dumps": "json",
    "json.dump": "json",
    "orjson.dumps": "json",
    "msgspec.json.encode": "json",
    "msgspec.json.Encoder": "json",
    "JSONResponse": "json",
    "*.model_dump_json": "json",
    "HTMLResponse": "page",
    "PlainTextResponse": "answer",
    "StreamingResponse": "answer",
    "Response": "answer",
    "*.wfile.write": "answer",
    "*.send_header": "answer",
    "Environment": "page",
    "jinja2.Environment": "page",
    "html.escape": "page",
    "EmailMessage": "mail",
    "*.notify": "chat",
    "generate_latest": "metrics",
    "openmetrics.generate_latest": "metrics",
}
ENDS = {end[1:]: kind for end, kind in CALLS.items() if end.startswith("*")}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def kind_of(name: str) -> str | None:
    """Return what a name that is used writes to."""
    if name in CALLS:
        return CALLS[name]
    return next((kind for end, kind in ENDS.items() if name.endswith(end)), None)


def found() -> set[tuple[str, str]]:
    return {
        (path, kind)
        for path, nodes in trees().items()
        for node in nodes
        if isinstance(node, ast.Name | ast.Attribute) and (kind := kind_of(dotted(node)))
    }


def test_every_place_is_listed_with_its_way() -> None:
    there = found()
    assert sorted(there - set(PLACES)) == [], "list it in tests/outward.py, with the way that escapes what leaves"
    assert sorted(set(PLACES) - there) == [], "gone from the code"


def test_every_way_that_is_named_is_one() -> None:
    assert set(PLACES.values()) <= {*WAYS, OF_PROGRAMS}


def test_a_new_way_out_is_found() -> None:
    tree = ast.parse("def f(name):\n    sys.stdout.write(name)\n    self.wfile.write(name)\n    print(name)")
    kinds = [kind_of(dotted(node)) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)]
    assert {"stream", "answer", "print"} <= set(kinds)
