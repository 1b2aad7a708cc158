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


def _values(body: object) -> object:
    if not isinstance(body, dict):
        return body
    return body["value"] if "value" in body else {name: _values(part) for name, part in body.items()}
