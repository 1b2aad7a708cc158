"""The names of the package: loaded on first use, and known with their types to whoever checks a service's code."""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import tollmeter


def stub() -> dict[str, str]:
    """Name -> module, as the stub says."""
    tree = ast.parse(Path(tollmeter.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        name.asname or name.name: str(node.module)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }


def test_the_stub_names_what_the_package_loads() -> None:
    package: Any = tollmeter  # the stub knows neither
    assert stub() == package._PUBLIC
    assert set(package.__all__) == {*stub(), "__version__"}


def test_every_name_is_there() -> None:
    for name, module in stub().items():
        assert getattr(tollmeter, name) is getattr(import_module(module), name)
