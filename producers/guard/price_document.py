"""What a published price book says of its own rules: which models it knows, and which rules ask for more than names."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

_CONDITIONS = ("deployment", "api_host", "region", "operation")
"""What an override may ask for and a guard does not know: such a rule is left out of its prices."""


def exact_names(rules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A book that does not say how its models may be written: only their own ids are known."""
    models: dict[str, dict[str, Any]] = {}
    for rule in rules:
        if not str(rule["rule_id"]).startswith("override:"):
            models.setdefault(rule["provider"], {})[rule["model"]] = {"equals": rule["model"]}
    return [{"id": provider, "models": named} for provider, named in models.items()]


def conditional(entry: Mapping[str, object]) -> bool:
    return any(entry.get(name, "*") != "*" for name in _CONDITIONS)


def conditional_names(overrides: Iterable[dict[str, Any]]) -> frozenset[str]:
    return frozenset(
        str(entry["name"])
        for part in overrides
        for kind in ("free", "fees", "factors", "rates")
        for entry in part.get(kind, ())
        if conditional(entry)
    )


def any_fits(names: set[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)
