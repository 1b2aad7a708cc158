"""YAML that people write: decimals and dates stay text, a key given twice is refused, every mistake has its line."""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails


class YamlError(ValueError):
    """The file is no valid YAML or cannot be read; the text names file and line."""


class YamlFile(NamedTuple):
    """What a file holds, and where each part stands."""

    path: str
    body: Any
    node: Any

    def line(self, location: Iterable[int | str]) -> int:
        """Return the line of the deepest part of `location` that the file has."""
        return 1 if self.node is None else _line(self.node, location)

    def problem(self, location: Iterable[int | str], text: str) -> str:
        """Return one mistake as file:line: key: what is wrong."""
        parts = tuple(location)
        where = ".".join(map(str, parts)) or "document"
        return f"{self.path}:{self.line(parts)}: {where}: {text}"

    def problems(self, error: ValidationError) -> list[str]:
        """Return every mistake that pydantic found."""
        return [
            self.problem(problem["loc"], words(problem))
            for problem in error.errors(include_url=False, include_input=False)
        ]


class _Loader(yaml.SafeLoader):
    """Leaves dates and decimals as text, so that 0.1 stays one tenth; refuses a key that is given twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] not in ("timestamp", "float")]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> YamlFile:
    """Read one file. Raises `YamlError`."""
    try:
        return parse_yaml(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise YamlError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def parse_yaml(text: str, path: str) -> YamlFile:
    """Read a text; `path` is how mistakes name it. Raises `YamlError`."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return YamlFile(path, None if node is None else loader.construct_document(node), node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(f"{path}:{line}: no valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        raise YamlError(f"{path}:1: no valid YAML: {reason}") from None


def words(problem: ErrorDetails) -> str:
    """Return what pydantic says about one mistake, in the words of these files."""
    return "no such key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")


def _line(node: yaml.Node, location: Iterable[int | str]) -> int:
    line: int = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode) and (
            found := [(key, value) for key, value in node.value if key.value == part]
        ):
            key, node = found[0]
            line = key.start_mark.line + 1
            continue
        else:
            break
        line = node.start_mark.line + 1
    return line
