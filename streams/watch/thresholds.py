"""The figures of the rules about identity, as they ship and as somebody else would have them."""

from functools import cache
from pathlib import Path

from pydantic import ValidationError

from tollmeter.streams.rules import anomalies
from tollmeter.streams.rules.anomalies.limits import Limits
from tollmeter.yaml_files import YamlError, read_yaml

SHIPPED = Path(anomalies.__file__).with_name("thresholds.yaml")


@cache
def shipped_limits() -> Limits:
    """Return the figures that ship."""
    return read_limits(SHIPPED)


def read_limits(path: Path) -> Limits:
    """Read figures from YAML: each is {value, rests_on}. Raises `YamlError` with one line for each mistake."""
    file = read_yaml(path)
    try:
        return Limits.model_validate(_values(file.body))
    except ValidationError as error:
        raise YamlError("\n".join(file.problems(error))) from None


def changed_limits(path: Path) -> Limits:
    """Return the figures that ship, but for those of a file, which are plain or {value, rests_on}.

    Raises `YamlError` with one line for each mistake.
    """
    file = read_yaml(path)
    if not isinstance(file.body, dict):
        raise YamlError(file.problem((), "figures by rule are expected, as in `error_storm: {least: 80}`"))
    try:
        return Limits.model_validate(_merged(shipped_limits().model_dump(), _values(file.body)))
    except ValidationError as error:
        raise YamlError("\n".join(file.problems(error))) from None


def _merged(base: object, changes: object) -> object:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {**base, **{name: _merged(base.get(name), part) for name, part in changes.items()}}


def _values(body: object) -> object:
    if not isinstance(body, dict):
        return body
    return body["value"] if "value" in body else {name: _values(part) for name, part in body.items()}
