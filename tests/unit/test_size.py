"""The size budget of the code: modules and functions that fit a screen, few parameters, few values of any type.

Counted from the syntax tree of everything but tests and benchmarks.
"""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("dashboards", "producers", "streams", "sinks", "schemas", "src/tollmeter")
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 300, 40, 6
"""Of a function counts what stands below its signature: the options of a command are its parameters."""
MANY_PARAMETERS = 27
"""So many functions may take more, such as constructors with defaults; a command's parameters are its options."""
ANY, UNFORMATTED = 60, 20
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if not _linked(path)]


def _linked(path: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents)


@cache
def trees() -> dict[str, list[ast.AST]]:
    """Return every node of every module, by its path."""
    return {
        str(path.relative_to(ROOT)): list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for path in modules()
    }


def functions() -> list[tuple[str, Function]]:
    return [
        (f"{path}:{node.lineno} {node.name}", node)
        for path, nodes in trees().items()
        for node in nodes
        if isinstance(node, Function)
    ]


def room_of(name: str) -> str:
    """Return the room of a module or path below the package; streams has several."""
    parts = (
        name.removeprefix("src/tollmeter/").removesuffix(".py").replace("/", ".").removeprefix("tollmeter.").split(".")
    )
    return ".".join(parts[:2]) if parts[0] == "streams" else parts[0]


def parameters(function: Function) -> list[ast.arg]:
    """Return the parameters, without the one for the object or the class."""
    spec = function.args
    named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
    return [one for one in named if one.arg not in ("self", "cls")]


def anys(annotation: ast.expr | None) -> int:
    """Count `Any` in an annotation; `dict[str, Any]` says what it can of JSON."""
    if annotation is None or ast.unparse(annotation) == "dict[str, Any]":
        return 0
    own = isinstance(annotation, ast.Name) and annotation.id == "Any"
    parts = (node for node in ast.iter_child_nodes(annotation) if isinstance(node, ast.expr))
    return own + sum(anys(part) for part in parts)


def test_the_size_of_modules_and_functions() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert [f"{path}: {count}" for path, count in lines.items() if count > MODULE_LINES] == []
    long = [where for where, one in functions() if (one.end_lineno or 0) - one.body[0].lineno >= FUNCTION_LINES]
    assert long == []


def _is_command(function: Function) -> bool:
    return any("command" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_few_functions_take_many_parameters() -> None:
    many = [where for where, one in functions() if len(parameters(one)) > PARAMETERS and not _is_command(one)]
    assert len(many) <= MANY_PARAMETERS, many


def test_signatures_name_their_types() -> None:
    found = []
    for where, one in functions():
        spec = one.args
        marked = [*parameters(one), *(star for star in (spec.vararg, spec.kwarg) if star is not None)]
        found += [where] * (sum(anys(arg.annotation) for arg in marked) + anys(one.returns))
    assert len(found) <= ANY, found


def test_the_formatter_wins() -> None:
    mark = "fmt: " + "skip"
    files = [*modules(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert sum(path.read_text(encoding="utf-8").count(mark) for path in files) <= UNFORMATTED


def test_no_two_rooms_import_each_other() -> None:
    asks = {
        (room_of(path), room_of(f"{node.module}.{name.name}"))
        for path, nodes in trees().items()
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tollmeter"
        for name in node.names
    }
    assert len(asks) > 50
    assert sorted((one, other) for one, other in asks if one < other and (other, one) in asks) == []
